"""Schedules on Chaos Mesh's own controllers: when they fire, whom they spare, what they keep, what stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gameday.platform.chaos_mesh import unrecovered
from gameday.platform.kube import Kube
from gameday.platform.objects import PROTECT, Object, Ref
from tests.e2e import experiments
from tests.support.polling import eventually
from tests.support.program import Program
from tests.systems.test_chaos_mesh import (
    FAULT,
    IMAGE,
    READY,
    SPACE,
    _experiments,
    _fault,
    _made,
    _planned,
    _step,
    _watching,
    as_before,
    victims,
)

__all__ = ["as_before", "victims"]  # fixtures

pytestmark = pytest.mark.usefixtures("mesh", "victims")


def _schedule(policy: str, chaos: Object, **spec: object) -> Object:
    often = {"schedule": "@every 1s", "type": "PodChaos", "concurrencyPolicy": policy}
    return {**often, "podChaos": chaos, **spec}


async def test_forbid_lets_one_end_before_the_next(kube: Kube, tmp_path: Path) -> None:
    """The next one comes as soon as the one before is over, whatever the interval would be."""
    spec = _schedule("Forbid", _fault("pod-failure", duration="3s"))
    most = 0

    async def fired() -> int:
        nonlocal most
        under_way = [o for o in await _experiments(kube) if unrecovered(o)]
        most = max(most, len(under_way))
        return len(made)

    async with _watching(kube) as made, _step(kube, tmp_path, hold=20) as step:
        plan = await _planned(step, "Schedule", spec)
        await step.inject(FAULT, plan)
        await eventually(fired, lambda count: count >= 3, within=60)
        assert most == 1
        assert await step.undo() == ["undone"]
        assert not await _made(kube)
        await step.becomes(FAULT, plan, "out")


async def test_its_history_holds_no_more_than_it_says(kube: Kube, tmp_path: Path) -> None:
    """What is over goes, the oldest first, however young; what is under way stays beyond that."""
    spec = _schedule("Allow", _fault("pod-failure", duration="1s"), historyLimit=2)
    async with _watching(kube) as made, _step(kube, tmp_path, hold=20) as step:
        plan = await _planned(step, "Schedule", spec)
        await step.inject(FAULT, plan)

        async def kept() -> list[str]:
            return [o["metadata"]["name"] for o in await _experiments(kube)]

        await eventually(kept, lambda names: len(made) >= 5 and not {*names} & {*made[:2]}, within=60)
        assert await step.undo() == ["undone"]
        assert not await _made(kube)
        await step.becomes(FAULT, plan, "out")


async def test_no_firing_hits_what_is_protected_by_then(kube: Kube, tmp_path: Path) -> None:
    """A pod that is made when the Schedule runs already, and carries the label."""
    spec = _schedule("Allow", _fault("pod-kill", mode="all"), historyLimit=2, schedule="@every 3s")
    meta = {"name": "spared", "namespace": SPACE, "labels": {"app": "victim", PROTECT: "true"}}
    container = {"name": "main", "image": IMAGE}
    body = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    async with _watching(kube) as made, _step(kube, tmp_path, hold=15) as step:
        plan = await _planned(step, "Schedule", spec)
        counted = sum(e.times for e in await FAULT.effects(plan, step.world) if e.ends)
        spared = await kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body})
        try:
            await step.inject(FAULT, plan)

            async def fired() -> int:
                return len(made)

            await eventually(fired, lambda count: count >= 3, within=60)
            assert await step.undo() == ["undone"]
            left = await kube.get(Ref.of(spared))
            assert left["metadata"]["uid"] == spared["metadata"]["uid"]
            assert "deletionTimestamp" not in left["metadata"]
        finally:
            await kube.delete(Ref.of(spared), grace=0)
        assert 3 * len(made) <= counted  # three pods each time
        await step.becomes(FAULT, plan, "out")


async def test_killed_and_recovered(kube: Kube, gameday: Program, tmp_path: Path) -> None:
    """Each pod that it kills is over at once, so that Forbid keeps none from the next."""
    spec = _schedule("Forbid", _fault("pod-kill"), schedule="@every 2s")
    file = experiments.write(
        tmp_path,
        method=[{"chaosMesh": {"kind": "Schedule", "spec": spec, "namespace": SPACE}, "for": "60s"}],
        target={"context": "gameday-.*", "namespaces": [SPACE]},
        steadyState=[READY],
        blastRadius={"pods": 100},
    )
    async with _watching(kube) as made:
        with gameday.started(file) as run:
            await asyncio.to_thread(run.fault_is, "in")

            async def fired() -> int:
                return len(made)

            await eventually(fired, lambda count: count >= 3)
            name = run.kill()
        ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
        assert ended.code == 0, ended.output
        assert not await _made(kube)
