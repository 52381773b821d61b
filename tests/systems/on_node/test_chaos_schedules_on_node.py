"""Schedules of faults that Chaos Mesh's daemon carries out: in and out again in the pods, at each firing."""

from __future__ import annotations

import asyncio
from functools import partial
from operator import eq
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.node import RealNode
from tests.support.polling import eventually
from tests.support.program import Program
from tests.systems.on_node.test_chaos_daemon import (
    API,
    KINDS,
    PARTITION,
    SPACE,
    _dropped,
    _experiment,
    _pod,
    _stress,
    pair,
)

__all__ = ["pair"]  # a fixture

pytestmark = pytest.mark.usefixtures("daemon")

NEAR: Object = {"mode": "all", "selector": _pod("near")}
CPU: Object = {"stressors": {"cpu": {"workers": 1, "load": 10}}, "duration": "3s"}


def _schedule(kind: str, chaos: Object) -> Object:
    key = kind[0].lower() + kind[1:]
    return {"schedule": "@every 6s", "type": kind, "concurrencyPolicy": "Forbid", key: {**NEAR, **chaos}}


@pytest.mark.parametrize(
    ("kind", "chaos"),
    [("NetworkChaos", {**PARTITION, "duration": "3s"}), ("StressChaos", CPU)],
    ids=["partition", "stress"],
)
async def test_it_comes_and_goes_until_it_is_recovered(
    kube: Kube,
    node: RealNode,
    gameday: Program,
    tmp_path: Path,
    pair: tuple[Ref, Ref],
    kind: str,
    chaos: Object,
) -> None:
    async def there() -> bool:
        return bool(await (_stress(node) if kind == "StressChaos" else _dropped(kube, node, pair[0])))

    file = _experiment(tmp_path, node, "Schedule", _schedule(kind, chaos), "60s")
    with gameday.started(file) as run:
        for expected in (True, False, True):
            await eventually(there, partial(eq, expected), within=60)
        await asyncio.to_thread(run.fault_is, "in")
        name = run.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    await eventually(there, lambda found: not found)
    assert not await _left(kube)


async def _left(kube: Kube) -> list[str]:
    listed = [await kube.list(await kube.resource(API, kind), SPACE) for kind in KINDS]
    return [str(Ref.of(obj)) for objects in listed for obj in objects]
