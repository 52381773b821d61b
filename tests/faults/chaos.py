"""One step of a run for the tests of Chaos Mesh and Chaos Toolkit: a world, a ledger, and what was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from gameday.events import Event
from gameday.faults.base import Evidence, Fault, FaultPlan
from gameday.ledger.ledger import Ledger, StepLedger
from gameday.ledger.store import ensure_namespace
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.world import Victim, World
from tests.support.polling import eventually


@dataclass
class Step:
    """Step 1 of a run that is nothing else."""

    world: World
    ledger: StepLedger
    told: list[Event] = field(default_factory=list)
    admitted: list[Victim] = field(default_factory=list)

    async def becomes(self, fault: Fault, plan: FaultPlan, state: str) -> Evidence:
        return await eventually(lambda: fault.settled(plan, self.world), lambda e: e.state == state)

    async def inject(self, fault: Fault, plan: FaultPlan) -> Evidence:
        await fault.inject(plan, self.world, self.ledger)
        return await self.becomes(fault, plan, "in")

    async def undo(self) -> list[str]:
        """The states in which the entries ended, newest first."""
        return [entry.state for entry in await self.ledger.ledger.undo()]


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
    world = World(
        kube,
        run=run,
        seed=seed,
        namespaces=tuple(namespaces),
        step="1",
        hold=hold,
        folder=folder,
        emit=told.append,
        admit=admitted.extend,
    )
    ledger = Ledger.begin(kube, run, folder, {}, told.append)
    try:
        yield Step(world, ledger.step("1"), told, admitted)
    finally:
        await ledger.undo()
        left = [a for a in await ledger.audit() if a.state == "left"]
        await ledger.close(restored=True)
        assert not left


def delay(**spec: Any) -> Object:
    """A NetworkChaos on the inference pods, as in an experiment file."""
    selector = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
    whole = {"action": "delay", "mode": "all", "selector": selector, "delay": {"latency": "100ms"}}
    return {"kind": "NetworkChaos", "spec": whole | spec}


def names(victims: Iterable[Victim]) -> set[str]:
    return {f"{v.ref.namespace}/{v.ref.name}" for v in victims}
