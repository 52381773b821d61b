"""The method: each step injects, holds and undoes its fault, whatever happens in between.

A cancellation, from an abort, may come anywhere; the undo of every fault in force is shielded, and
those of parallel steps run at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gameday import events
from gameday.experiment.model import Experiment, Step
from gameday.faults.base import Evidence, Fault, FaultError, FaultPlan, PlanError
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Refused
from gameday.platform.errors import PlatformError
from gameday.run.evidence import keep_before
from gameday.run.shield import to_the_end
from gameday.run.watch import Watch
from gameday.safety.blast import gate
from gameday.safety.plan import Plan, StepPlan, fault_of, name_of

if TYPE_CHECKING:
    from gameday.platform.world import World

OVER = "over"
SETTLE_WITHIN = 120.0  # seconds a fault may take to be seen in, or out
FAILURES = (PlanError, FaultError, Refused, PlatformError, OSError, ValueError)


class StepFailed(Exception):
    """A fault could not be put in force; what it had changed was taken back."""


class StepSkipped(Exception):
    """Nothing of what a fault was planned for is there any more."""


class Method:
    """Executes the approved plan, step by step."""

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        world: World,
        ledger: Ledger,
        watch: Watch,
        evidence: Path,  # the folder for what is kept of pods before they go
    ) -> None:
        self._spec = experiment.spec
        self._plan, self._world, self._ledger, self._watch = plan, world, ledger, watch
        self._emit = world.emit
        self._evidence = evidence
        self._in_force = 0
        self.deviations: list[str] = []

    async def run(self) -> None:
        """All steps. Raises StepFailed."""
        await self._sequence(self._spec.method, "")

    async def _sequence(self, steps: Sequence[Step], prefix: str) -> None:
        for number, step in enumerate(steps, 1):
            path = f"{prefix}{number}"
            await self._step(step, path)
            between = self._spec.steady_between_steps if step.steady_between is None else step.steady_between
            last = not prefix and number == len(steps)
            if between and not last and step.kind != "wait" and self._in_force == 0:
                await self._recover(f"after step {path}")

    async def _step(self, step: Step, path: str) -> None:
        name = name_of(step, path)
        self._emit(events.StepStarted(step=path, name=name, kind=step.kind))
        outcome, message = "aborted", ""
        try:
            await self._execute(step, path)
            outcome = "done"
        except StepSkipped as skipped:
            outcome, message = "skipped", str(skipped)
            self.deviations.append(f"step {path} ({name}) was skipped: {message}")
        except StepFailed as failure:
            outcome, message = "failed", str(failure)
            raise
        finally:
            finished = events.StepFinished(
                step=path, name=name, kind=step.kind, outcome=outcome, message=message
            )
            self._emit(finished)

    async def _execute(self, step: Step, path: str) -> None:
        match step.kind:
            case "wait":
                await asyncio.sleep(step.wait or 0)
            case "sequence":
                await self._sequence(step.steps, path + ".")
            case "repeat":
                assert step.repeat is not None
                for _ in range(step.repeat.times):
                    await self._sequence(step.repeat.steps, path + ".")
            case "parallel":
                await self._parallel(step.steps, path)
            case _:
                await self._fault(step, self._plan.steps[path])

    async def _parallel(self, steps: Sequence[Step], path: str) -> None:
        """All at the same time; the first failure cancels, and so undoes, the others."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, step in enumerate(steps, 1):
                    group.create_task(self._step(step, f"{path}.{number}"))
        except ExceptionGroup as failures:
            raise StepFailed("; ".join(str(e) for e in failures.exceptions)) from failures

    # -- one fault -----------------------------------------------------------------------------

    async def _fault(self, step: Step, planned: StepPlan) -> None:
        fault = fault_of(step.kind)
        world = replace(self._world.at(planned.path, step.for_), admit=gate(self._plan, planned.path))
        planned = await self._without_vanished(planned)
        self._tell(planned, "injecting")
        self._enter()
        try:
            await keep_before(world, planned.fault, self._evidence, self._emit)
            try:
                await fault.inject(planned.fault, world, self._ledger.step(planned.path))
                evidence = await self._settle(fault, planned, world, "in")
            except FAILURES as error:
                self._tell(planned, "failed", message=str(error))
                raise StepFailed(f"step {planned.path} ({planned.name}): {error}") from error
            self._tell(planned, "in", evidence)
            self._watch.mark(during=True)
            await _hold(fault, planned.fault, world, step.for_ or 0)
        finally:
            await to_the_end(self._undo(fault, planned, world))

    async def _without_vanished(self, planned: StepPlan) -> StepPlan:
        """The plan without lasting targets that vanished since; pods are resolved by the fault itself."""
        victims = planned.fault.victims
        lasting = [v for v in victims if v.role in ("node", "workload") and v.ref.uid]  # Slurm's have none
        try:
            found = await asyncio.gather(*(self._world.kube.find(v.ref) for v in lasting))
        except PlatformError as error:
            raise StepFailed(f"step {planned.path} ({planned.name}): {error}") from error
        gone = [v for v, obj in zip(lasting, found, strict=True) if obj is None]
        if not gone:
            return planned
        text = f"{', '.join(str(v) for v in gone)} vanished since the plan"
        if len(gone) == len(victims):
            raise StepSkipped(text)
        self._emit(events.Progress(step=planned.path, message=f"{text}, and is skipped"))
        left = tuple(v for v in victims if v not in gone)
        return replace(planned, fault=replace(planned.fault, victims=left))

    async def _undo(self, fault: Fault, planned: StepPlan, world: World) -> None:
        """Take back what is in force, and see that it is out. Never raises."""
        self._tell(planned, "undoing")
        await self._ledger.undo(planned.path)
        if fault.instant:
            evidence = Evidence("out", ("nothing to undo",))
        else:
            try:
                evidence = await self._settle(fault, planned, world, "out")
            except FAILURES as error:
                self.deviations.append(f"step {planned.path} ({planned.name}) did not leave: {error}")
                self._tell(planned, "failed", message=str(error))
                evidence = None
        self._leave()
        if evidence is not None:
            self._tell(planned, "out", evidence)

    async def _settle(self, fault: Fault, planned: StepPlan, world: World, wanted: str) -> Evidence:
        """Read back until the fault is in, or out. Raises FaultError with what was seen instead."""
        within = float(getattr(planned.fault.spec, "settle_within", SETTLE_WITHIN))
        deadline = time.monotonic() + within
        delay = 0.05
        evidence = Evidence("partial")
        while True:
            try:
                evidence = await fault.settled(planned.fault, world)
            except PlatformError as error:
                evidence = Evidence("partial", (str(error),))
            if evidence.state in (wanted, OVER):
                return evidence
            if time.monotonic() > deadline:
                seen = "; ".join(evidence.facts) or "nothing"
                raise FaultError(f"not seen {wanted} within {within:g} s: {seen}")
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 1.0)

    def _enter(self) -> None:
        self._in_force += 1
        self._watch.mark(during=True)

    def _leave(self) -> None:
        self._in_force -= 1
        self._watch.mark(during=self._in_force > 0)

    async def _recover(self, when: str) -> None:
        """Steady state must return between steps, so that effects can be told apart."""
        complaints = await self._watch.steady_again(self._spec.recovery.within)
        if complaints:
            within = self._spec.recovery.within
            raise StepFailed(
                f"{when} steady state did not return within {within:g} s: {'; '.join(complaints)}"
            )

    def _tell(
        self, planned: StepPlan, state: str, evidence: Evidence | None = None, message: str = ""
    ) -> None:
        self._emit(
            events.Fault(
                step=planned.path,
                name=planned.name,
                kind=planned.kind,
                state=state,
                targets=[str(v) for v in planned.fault.victims],
                evidence=list(evidence.facts) if evidence else [],
                message=message,
            )
        )


async def _hold(fault: Fault, plan: FaultPlan, world: World, seconds: float) -> None:
    """Keep a fault in force; one that has something to do meanwhile does it, and may end it sooner."""
    hold = getattr(fault, "hold", None)
    await (hold(plan, world, seconds) if hold is not None else asyncio.sleep(seconds))
