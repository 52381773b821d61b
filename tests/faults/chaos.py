"""One step of a run for the tests of Chaos Mesh and Chaos Toolkit: a world, a ledger, and what was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from gameday.events import Event
from gameday.extend import Evidence, Fault, FaultPlan
from gameday.extend import Step as Here
from gameday.ledger.key import read_key
from gameday.ledger.ledger import Ledger, StepLedger
from gameday.ledger.store import ClusterStore, ensure_namespace
from gameday.ledger.survey import entries_of
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.world import Victim, World
from tests.support.ledgers import Alone, unguarded
from tests.support.polling import eventually


@dataclass
class Step:
    """Step 1 of a run that is nothing else."""

    here: Here
    told: list[Event] = field(default_factory=list)
    admitted: list[Victim] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.here.world

    @property
    def ledger(self) -> StepLedger:
        return self.here.ledger

    async def settled(self, fault: Fault[Any], plan: FaultPlan[Any]) -> Evidence:
        return await fault.settled(plan, self.here.injected, self.world)

    async def becomes(self, fault: Fault[Any], plan: FaultPlan[Any], state: str) -> Evidence:
        return await eventually(lambda: self.settled(fault, plan), lambda e: e.state == state)

    async def comes_to_rest(self, fault: Fault[Any], plan: FaultPlan[Any], within: float) -> Evidence:
        """Out, or over by itself, each look knowing what the one before has noted."""

        async def look() -> Evidence:
            evidence = await self.settled(fault, plan)
            self.here.record(**evidence.noted)
            return evidence

        return await eventually(look, lambda e: e.state in ("out", "over"), within=within)

    async def inject(self, fault: Fault[Any], plan: FaultPlan[Any]) -> Evidence:
        await fault.inject(plan, self.here)
        return await self.becomes(fault, plan, "in")

    async def undo(self) -> list[str]:
        """The states in which the entries ended, newest first."""
        return [entry.state for entry in await self.ledger.ledger.undo()]


async def taken_over(step: Step) -> Ledger:
    """The ledger of a step's run as another machine has it: from the record alone, which it claims."""
    run, kube, owner = step.world.run, step.world.kube, Alone()
    owner.epoch = 2
    store = ClusterStore(kube, run, {}, owner, None)
    claimed = await store.claim(key := await read_key(kube, run))
    assert claimed is not None
    found, read = claimed
    return Ledger.taken(kube, run, store, entries_of(found, read, key), step.told.append, owner)


@asynccontextmanager
async def step_of(
    kube: Kube,
    folder: Path,
    namespaces: Iterable[str] = ("inference",),
    hold: float | None = None,
    seed: int = 7,
) -> AsyncIterator[Step]:
    """Whatever the test leaves in force is undone at its end, and must be out."""
    await ensure_namespace(kube)
    run = f"test-{uuid4().hex[:6]}"
    told: list[Event] = []
    admitted: list[Victim] = []

    async def admit(victims: Iterable[Victim]) -> None:
        admitted.extend(victims)

    world = World(
        kube,
        run=run,
        seed=seed,
        namespaces=tuple(namespaces),
        step="1",
        hold=hold,
        folder=folder,
        emit=told.append,
        admit=admit,
    )
    ledger = unguarded(kube, run, folder, {}, told.append)
    try:
        yield Step(Here(world, ledger.step("1")), told, admitted)
    finally:
        await ledger.undo()
        left = [a for a in await ledger.audit() if a.state == "left"]
        await ledger.close(restored=True)
        assert not left, left


def delay(**spec: Any) -> Object:
    """A NetworkChaos on the inference pods, as in an experiment file."""
    selector = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
    whole = {"action": "delay", "mode": "all", "selector": selector, "delay": {"latency": "100ms"}}
    return {"kind": "NetworkChaos", "spec": whole | spec}


def names(victims: Iterable[Victim]) -> set[str]:
    return {f"{v.ref.namespace}/{v.ref.name}" for v in victims}
