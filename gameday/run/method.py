"""The method: each step injects, holds and undoes its fault, whatever happens in between.

A cancellation, from an abort, may come anywhere; the undo of every fault in force is shielded, and
those of parallel steps run at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday import events, states
from gameday.experiment.model import Experiment, Step
from gameday.extend import Evidence, Fault, FaultError, PlatformError
from gameday.extend import Step as Here
from gameday.ledger.ledger import Entry, Ledger
from gameday.platform.errors import Failure, only
from gameday.platform.shield import at_most, or_leave, to_the_end
from gameday.run import hooks as hooking
from gameday.run.endings import Endings
from gameday.run.evidence import keep_before
from gameday.run.lapse import Heard, Lapse, Look
from gameday.run.watch import Watch
from gameday.safety.gate import Gate
from gameday.safety.installed import fault_of
from gameday.safety.plan import Plan, StepPlan, keeps_pods_off, name_of, without_vanished
from gameday.states import Fault as State
from gameday.states import Presence

if TYPE_CHECKING:
    from gameday.platform.world import World

AGAIN_EVERY = 2.0  # seconds between two attempts at an undo that was refused
LOOK_WITHIN = 10.0  # seconds that a look has in any case, also where the time to be seen in or out is over


def _in_vain(undone: Sequence[Entry], task: asyncio.Task[Any] | None) -> str:
    """Why nobody need wait for a fault to be out: somebody wants it so, or it is not ours to end."""
    if undone and all(e.state is states.Change.KEPT for e in undone):
        return f"{undone[0].operation.ref} is somebody else's by now"
    if task is not None and task.cancelling() and all(e.state is states.Change.IRREVERSIBLE for e in undone):
        return "the run was stopped, and there is nothing to undo"
    return ""


def _altered(made: Sequence[Entry]) -> str:
    """Why nobody need wait for a fault to be in: something else than what was approved is in force."""
    return next((f"{e.operation.ref}: {e.altered}" for e in made if e.altered), "")


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
        gate: Gate,
        endings: Endings,
        evidence: Path,  # the folder for what is kept of pods before they go
        heard: Heard,
    ) -> None:
        self._spec = experiment.spec
        self._plan, self._world, self._ledger, self._watch = plan, world, ledger, watch
        self._emit, self._gate, self._endings = world.emit, gate, endings
        self._evidence, self._heard = evidence, heard
        self._in_force: list[str] = []  # the steps' paths
        self.deviations: list[str] = []
        self.allowed: list[str] = []  # ends of faults by others, of which the file says that they are well

    async def run(self) -> None:
        """All steps. Raises StepFailed."""
        await self._sequence(self._spec.method, "")

    async def _sequence(self, steps: Sequence[Step], prefix: str) -> None:
        for number, step in enumerate(steps, 1):
            path = f"{prefix}{number}"
            await self._step(step, path)
            between = self._spec.steady_between_steps if step.steady_between is None else step.steady_between
            last = not prefix and number == len(steps)
            if between and not last and step.kind != "wait" and not self._in_force:
                await self._recover(f"after step {path}")

    async def _step(self, step: Step, path: str) -> None:
        name = name_of(step, path)
        self._emit(events.StepStarted(step=path, name=name, kind=step.kind))
        outcome, message = states.Step.ABORTED, ""
        try:
            await self._execute(step, path)
            outcome = states.Step.DONE
        except StepSkipped as skipped:
            outcome, message = states.Step.SKIPPED, str(skipped)
            self.deviations.append(f"step {path} ({name}) was skipped: {message}")
        except StepFailed as failure:
            outcome, message = states.Step.FAILED, str(failure)
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
                await self._hooked(step, self._plan.steps[path])

    async def _parallel(self, steps: Sequence[Step], path: str) -> None:
        """All at the same time; the first failure cancels, and so undoes, the others."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, step in enumerate(steps, 1):
                    group.create_task(self._step(step, f"{path}.{number}"))
        except ExceptionGroup as group:
            raise StepFailed("; ".join(map(str, only(StepFailed, group)))) from group

    # -- one fault -----------------------------------------------------------------------------

    async def _hooked(self, step: Step, planned: StepPlan) -> None:
        """One fault, between what is asked before and told after it; an abort tells nobody, and waits not."""
        hooks, find = self._spec.hooks, self._world.kube.environment
        facts = {"run": self._world.run, "step": planned.path, "name": planned.name, "fault": planned.kind}
        if no := await hooking.asked(hooks.before_step, "beforeStep", facts, find):
            raise StepFailed(f"step {planned.path} ({planned.name}): {no[0]}")
        await self._fault(step, planned)
        await hooking.told(hooks.after_step, "afterStep", facts, find, self._emit)

    async def _fault(self, step: Step, planned: StepPlan) -> None:
        fault = fault_of(step.kind, step.spec)
        planned, world = await self._admitted(fault, await self._without_vanished(planned), step)
        here = Here(world, self._ledger.step(planned.path))
        self._tell(planned, State.INJECTING)
        self._in_force.append(planned.path)
        self._watch.mark(during=True)
        lapse: Lapse | None = None
        try:
            await keep_before(world, planned.fault, self._evidence, self._emit)
            try:
                await or_leave(fault.inject(planned.fault, here))
                evidence = await self._settle(
                    fault, planned, here, Presence.IN, lambda: _altered(here.ledger.entries)
                )
            except Failure as error:
                self._tell(planned, State.FAILED, message=str(error))
                raise StepFailed(f"step {planned.path} ({planned.name}): {error}") from error
            self._tell(planned, State.IN, evidence)
            self._watch.mark(during=True)
            if fault.instant or evidence.state is Presence.OVER:
                await or_leave(fault.hold(planned.fault, here, step.for_ or 0))
            else:
                lapse = await self._held(fault, planned, here)
        finally:
            await to_the_end(self._undo(fault, planned, here, asyncio.current_task(), lapse))
        if lapse is not None:
            await self._after(lapse, step, planned)

    async def _held(self, fault: Fault[Any], planned: StepPlan, here: Here) -> Lapse | None:
        """Hold it and look at it. Who ends it meanwhile ends the hold too, unless the fault has its own."""
        hold = asyncio.ensure_future(or_leave(fault.hold(planned.fault, here, here.seconds or 0)))
        look = asyncio.ensure_future(Look(fault, planned, here).until_ended(self._heard))
        try:
            await asyncio.wait({hold, look}, return_when=asyncio.FIRST_COMPLETED)
            lapse = look.result() if look.done() else None
            if lapse is not None:
                self._tell(planned, State.UNDOING, lapse=lapse)
            if lapse is None or type(fault).hold is not Fault.hold:
                await hold
            return lapse
        finally:
            hold.cancel()
            look.cancel()
            await asyncio.gather(hold, look, return_exceptions=True)

    async def _after(self, lapse: Lapse, step: Step, planned: StepPlan) -> None:
        """What becomes of a step whose fault somebody else ended."""
        text = f"step {planned.path} ({planned.name}) {lapse}"
        if step.hold_when_ended:
            self.allowed.append(text)
            await asyncio.sleep(max(0.0, lapse.of - lapse.after))
        elif not lapse.foreseen:
            self.deviations.append(text)

    async def _admitted(self, fault: Fault[Any], planned: StepPlan, step: Step) -> tuple[StepPlan, World]:
        """The step as it is planned now, and the world as it sees it, once the gate lets it in."""
        world = self._world.at(planned.path, step.for_)
        try:
            let_in = await self._gate.admit(planned, world, self._in_force)
            keeps_off = keeps_pods_off(fault, let_in.fault)
            await self._endings.expect(planned.path, let_in.effects, keeps_off=keeps_off)
            return replace(planned, fault=let_in.fault), let_in.world
        except Failure as error:
            self._tell(planned, State.FAILED, message=str(error))
            raise StepFailed(f"step {planned.path} ({planned.name}): {error}") from error

    async def _without_vanished(self, planned: StepPlan) -> StepPlan:
        """The plan without lasting targets that vanished since."""
        try:
            left, gone = await without_vanished(planned, self._world.kube)
        except PlatformError as error:
            raise StepFailed(f"step {planned.path} ({planned.name}): {error}") from error
        text = f"{', '.join(str(v) for v in gone)} vanished since the plan"
        if left is None:
            raise StepSkipped(text)
        if gone:
            self._emit(events.Progress(step=planned.path, message=f"{text}, and is skipped"))
        return left

    async def _undo(
        self,
        fault: Fault[Any],
        planned: StepPlan,
        here: Here,
        task: asyncio.Task[Any] | None,
        lapse: Lapse | None,
    ) -> None:
        """Take back what is in force, and see that it is out. Raises nothing but a defect of ours."""
        if lapse is None:  # else that was said when it was seen
            self._tell(planned, State.UNDOING)
        await self._ledger.end(planned.path)
        self._endings.caused(planned.path, here.ledger.entries, by_hand=fault.ends_by_hand)
        undone = await self._ledger.undo(planned.path, stopping=task is not None and task.cancelling() > 0)
        evidence = Evidence(Presence.OUT, ("nothing to undo",))
        try:
            if not fault.instant:
                evidence = await self._settle(
                    fault,
                    planned,
                    here,
                    Presence.OUT,
                    lambda: _in_vain(undone, task),
                    lambda: self._again(planned.path, undone),
                )
        except Failure as error:
            self.deviations.append(f"step {planned.path} ({planned.name}) did not leave: {error}")
            self._tell(planned, State.FAILED, message=str(error))
        else:
            self._tell(planned, State.OUT, evidence, lapse=lapse)
        finally:
            self._in_force.remove(planned.path)
            self._endings.over(planned.path)
            self._watch.mark(during=bool(self._in_force))

    async def _again(self, path: str, undone: Sequence[Entry]) -> None:
        """Undo once more what an answer refused for certain: somebody may have lifted what refuses it."""
        failed = [e for e in undone if e.state is states.Change.FAILED]
        if failed and all(e.refused for e in failed):
            await self._ledger.undo(path)

    async def _settle(
        self,
        fault: Fault[Any],
        planned: StepPlan,
        here: Here,
        wanted: Presence,
        in_vain: Callable[[], str] = lambda: "",
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> Evidence:
        """Read back until the fault is in, or out. Raises FaultError with what was seen instead.

        `in_vain` says why to wait no longer, or "". `again` is done every AGAIN_EVERY seconds meanwhile.
        """
        within = fault.settle_within(planned.fault.spec)
        deadline = time.monotonic() + within
        delay, tried = 0.05, time.monotonic()
        evidence = Evidence(Presence.PARTIAL)
        while True:
            try:
                left = max(LOOK_WITHIN, deadline - time.monotonic())
                evidence = await at_most(left, fault.settled(planned.fault, here.injected, here.world))
                here.record(**evidence.noted)
            except TimeoutError:
                evidence = Evidence(Presence.PARTIAL, ("the look was not answered",))
            except PlatformError as error:
                evidence = Evidence(Presence.PARTIAL, (str(error),))
            if evidence.state in (wanted, Presence.OVER):
                return evidence
            seen = "; ".join(evidence.facts) or "nothing"
            if why := in_vain():
                raise FaultError(f"not seen {wanted}: {seen}; not waited for, since {why}")
            if time.monotonic() > deadline:
                raise FaultError(f"not seen {wanted} within {within:g} s: {seen}")
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 1.0)
            if again is not None and time.monotonic() > tried + AGAIN_EVERY:
                await again()
                tried = time.monotonic()

    async def _recover(self, when: str) -> None:
        """Steady state must return between steps, so that effects can be told apart."""
        complaints = await self._watch.steady_again(self._spec.recovery.within)
        if complaints:
            within = self._spec.recovery.within
            raise StepFailed(
                f"{when} steady state did not return within {within:g} s: {'; '.join(complaints)}"
            )

    def _tell(
        self,
        planned: StepPlan,
        state: State,
        evidence: Evidence | None = None,
        message: str = "",
        lapse: Lapse | None = None,
    ) -> None:
        self._emit(
            events.Fault(
                step=planned.path,
                name=planned.name,
                kind=planned.kind,
                state=state,
                targets=[str(v) for v in planned.fault.victims],
                evidence=list(evidence.facts) if evidence else [],
                message=lapse.how if lapse else message,
                by=lapse.by if lapse else "",
            )
        )
