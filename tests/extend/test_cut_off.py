"""An injection that never began, or was cut off, is seen to be out; one that was not, in: for every fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from gameday import events
from gameday.experiment import registry
from gameday.extend import Fault, FaultPlan, Injected, Spec, World
from gameday.ledger.lease import RunLease
from gameday.platform.kube import Kube
from gameday.safety.installed import fault_of
from tests.faults.chaos import Step, step_of
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

NAMESPACES = ("platform", "training", "inference", "argocd", "chaos-mesh")
ELSEWHERE = {"rollout", "slurm"}  # the sandbox has nothing for their examples
INSTEAD = {"chaostoolkit": {"type": "action", "name": "a", "provider": {"type": "process", "path": "true"}}}
every_fault = pytest.mark.parametrize("key", sorted({*registry.names(registry.FAULTS)} - ELSEWHERE))
OVER = ("out", "over")


@pytest.fixture(autouse=True)
def sandbox(platform: Platform) -> None:
    if platform.name != "sandbox":
        pytest.skip("the faults' examples are for the sandbox's objects")


async def planned(key: str, world: World) -> tuple[Fault[Any], FaultPlan[Any]]:
    owner: Any = registry.fault(key)
    spec: Spec = owner.Spec.model_validate(INSTEAD.get(key) or yaml.safe_load(owner.example)[key])
    fault = fault_of(key, spec)
    return fault, await fault.plan(spec, world)


@every_fault
async def test_in_by_its_injection_alone(
    key: str, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Out before it, in after it, and out again by the undo of what it has written down."""
    async with step_of(kube, tmp_path, NAMESPACES, hold=5.0) as step:
        fault, plan = await planned(key, step.world)
        evidence = await fault.settled(plan, Injected(), step.world)
        assert evidence.state in OVER, evidence
        async with alive(step):  # a program on a node does nothing for a run that nobody keeps
            await step.inject(fault, plan)
            assert changes(step)
            await step.undo()
        assert fault.instant or (await step.comes_to_rest(fault, plan, 300.0)).state in OVER


@every_fault
@pytest.mark.parametrize("every", [0.0, 0.1], ids=["at-once", "soon"])
async def test_out_after_it_was_cut_off(
    key: str, every: float, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """When its first change is written down and not made yet, or is perhaps; the ledger alone knows of it."""
    async with step_of(kube, tmp_path, NAMESPACES, hold=5.0) as step:
        fault, plan = await planned(key, step.world)
        kept = plan.to_data()
        injection = asyncio.create_task(fault.inject(plan, step.here))
        await eventually(partial(_true, lambda: changes(step) or injection.done()), every=every)
        injection.cancel()
        await asyncio.gather(injection, return_exceptions=True)
        assert changes(step), injection
        await step.undo()
        assert fault.instant or (await step.comes_to_rest(fault, plan, 300.0)).state in OVER
        assert plan.to_data() == kept


@asynccontextmanager
async def alive(step: Step) -> AsyncIterator[None]:
    """The Lease of the step's run, renewed while the block lasts."""
    lease = RunLease(step.world.kube, step.world.run)
    await lease.acquire()
    keeper = asyncio.create_task(lease.keep(lambda _: None))
    try:
        yield
    finally:
        keeper.cancel()
        await lease.release()


def changes(step: Step) -> list[str]:
    """What the ledger has told of by now."""
    return [e.summary for e in step.told if isinstance(e, events.Change)]


async def _true(value: Callable[[], object]) -> bool:
    return bool(value())
