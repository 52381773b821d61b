"""The engine: takes an approved plan through baseline, method, recovery and audit to a verdict.

Beside the phases run guards (watch, Lease, lever and others), whose death aborts the run, and tellers
(sampler, observer). An abort, from wherever, cancels the method; its faults unwind through the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gameday import __version__, defect, events
from gameday.experiment.loader import Loaded
from gameday.extend import Fault, Step
from gameday.ledger import locks
from gameday.ledger.keeping import cluster_id, ensure_namespace
from gameday.ledger.lease import RunLease
from gameday.ledger.ledger import IDENTITY, WHOLE_RUN, Ledger
from gameday.ledger.listening import Listener, Said
from gameday.ledger.scope import named
from gameday.platform import controls
from gameday.platform.errors import Failure, PlatformError
from gameday.platform.fence import Lost
from gameday.platform.objects import Object
from gameday.platform.shield import or_leave, to_the_end
from gameday.platform.world import World
from gameday.run import hooks as hooking
from gameday.run.beside import Beside
from gameday.run.endings import Endings
from gameday.run.evidence import collect
from gameday.run.expected import ExpectedAlerts
from gameday.run.lapse import Heard
from gameday.run.log import Log
from gameday.run.method import Method, StepFailed
from gameday.run.native import Native
from gameday.run.observe import observe
from gameday.run.reacted import Reacted
from gameday.run.sampling import Query, Sampler
from gameday.run.verdict import Outcome
from gameday.run.watch import Watch
from gameday.safety.gate import Gate
from gameday.safety.identity import RunIdentity
from gameday.safety.installed import fault_of
from gameday.safety.lever import hear_lever
from gameday.safety.plan import Plan, StepPlan, without_vanished
from gameday.safety.scope import scope_of
from gameday.safety.targets import locks_of
from gameday.states import Audit, Phase
from gameday.user import user_name

T = TypeVar("T")
LEAST_STEP, MOST_STEP = 1.0, 5.0  # seconds between samples: as the probes ask, within these
FLUSH_WITHIN = 15.0  # seconds for the last samples
EVIDENCE_WITHIN = 20.0
BASELINE_WITHIN = 15.0  # seconds in which the steady state must show itself before anything is touched


@dataclass
class Engine:
    """One run. `execute` may be called once, `abort` at any time from the same loop."""

    loaded: Loaded
    plan: Plan
    world: World
    log: Log
    folder: Path
    outcome: Outcome = field(default_factory=Outcome)
    identity: RunIdentity | None = None  # None: everything is done as whoever runs it
    _current: asyncio.Task[Any] | None = None  # what an abort cancels
    _alerts: ExpectedAlerts = field(init=False)
    _gate: Gate = field(init=False)
    _endings: Endings = field(init=False)
    _reacted: Reacted = field(init=False)
    _native: Native | None = field(init=False)
    _heard: Heard = field(default_factory=Heard)

    def __post_init__(self) -> None:
        rules = self.loaded.experiment.spec.chaos_toolkit
        controls.current.set(None)
        self._native = Native(rules, self.outcome, lambda why: self.abort("control", why)) if rules else None
        self._alerts = ExpectedAlerts(self.loaded.experiment.spec.expect_alerts)
        self._reacted = Reacted.of(self.plan)
        self._gate = Gate(self.loaded.experiment, self.plan, self.world)
        self._endings = Endings(self.world.kube, self.world.namespaces)

    def abort(self, by: str, reason: str) -> None:
        """Stop the method and put everything back. The first reason counts; a later signal only hurries."""
        first = not (self.outcome.aborted or self.outcome.interrupted)
        if first and by in ("signal", "control"):
            self.outcome.interrupted = reason
        elif first:
            self.outcome.aborted = reason
        current = self._current
        # Once: a second cancellation could cut off what the first is waiting for, a request under way.
        if (first or by == "signal") and current is not None and not current.cancelling():
            current.cancel()
        if first:
            self.log.emit(events.Abort(by=by, reason=reason))

    async def execute(self) -> events.Verdict:
        """Run to the verdict, which is also the log's last event; the cluster's failures end in it too."""
        self.log.emit(events.Planned(plan=self.plan.to_data()))
        self.log.listeners += [self._alerts.hear, self._reacted.hear_event]
        lease = RunLease(self.world.kube, self.world.run)
        try:
            about, scope = await self._about(), scope_of(self.loaded.experiment, self.plan)
            if self.identity is not None:
                self._gate.identity = self.identity.refs
                scope = replace(scope, objects=scope.objects | set(map(named, self.identity.refs)))
            kube, run = self.world.kube, self.world.run
            ledger = Ledger.begin(
                kube,
                run,
                self.folder,
                about,
                self.log.emit,
                admit=self._gate.check,
                owner=lease,
                scope=scope,
            )
            await ensure_namespace(kube)
            await lease.acquire()
            await locks.acquire(kube, run, locks_of(self.plan))
        except Failure as error:
            self.outcome.refused = f"the run could not be registered: {error}"
            for release in (partial(locks.release, self.world.kube, self.world.run), lease.release):
                with contextlib.suppress(PlatformError):  # it may be there, and only its answer was lost
                    await release()
            return self._end()
        try:
            async with Beside(self.log.emit, lambda why: self.abort("engine", why)) as beside:
                beside.guard("Lease keeper", lease.keep(lambda why: self.abort("engine", why)))
                try:
                    if await self._assumed(ledger, beside):
                        await self._beside(ledger)
                finally:
                    await to_the_end(self._finish(ledger))
        finally:
            await to_the_end(self._let_go(ledger, lease))
            if self.identity is not None:
                await self.identity.close()
        await to_the_end(self._tell_hooks())
        return self._end()

    async def _assumed(self, ledger: Ledger, beside: Beside) -> bool:
        """Whether the run has its own identity now, where it is to have one."""
        if self.identity is None:
            return True
        try:
            await self.identity.assume(ledger, self.log.emit)
        except Failure as error:
            self.outcome.refused = f"the run's own identity can't be made: {error}"
            return False
        beside.guard("identity", self.identity.keep(self.log.emit))
        return True

    # -- the phases ----------------------------------------------------------------------------

    async def _beside(self, ledger: Ledger) -> None:
        """The phases, with everything that runs beside them."""
        spec = self.loaded.experiment.spec
        watch = Watch(
            spec.steady_state,
            spec.abort_if,
            self.world,
            self.log.emit,
            lambda text: self.abort("condition", text),
            paced=self._native is not None,
        )
        sampler = self._sampler()
        victims = [v for s in self.plan.steps.values() for v in s.fault.victims]
        async with Beside(self.log.emit, lambda why: self.abort("engine", why)) as beside:
            beside.guard("watch", watch.run())
            beside.guard("listener", Listener(self.world.kube, self.world.run, self._said()).run())
            beside.guard("lever", hear_lever(self.world.kube, lambda why: self.abort("lever", why)))
            beside.guard("time limit", self._until_too_long())
            beside.teller("observer", observe(self.world, victims, self.log.emit, self._hear))
            if sampler is not None:
                beside.teller("sampler", sampler.run())
            await self._until_aborted(self._phases(ledger, watch))
            await self._recovery(ledger, watch)
            if sampler is not None:
                await self._tell("sampler", _within(FLUSH_WITHIN, sampler.flush()))
            evidence = collect(self.world, victims, self.folder / "evidence", self.log.emit)
            await self._tell("evidence", _within(EVIDENCE_WITHIN, evidence))

    async def _until_aborted(self, work: Coroutine[Any, Any, T]) -> T | None:
        """As `_cancellable`, but nothing is begun after an abort."""
        if self.outcome.aborted or self.outcome.interrupted:
            work.close()
            return None
        return await self._cancellable(work)

    async def _cancellable(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The work's result, None when an abort cancelled it. A defect of ours is an abort too."""
        self._current = task = asyncio.create_task(work)
        await asyncio.wait({task})
        if task.cancelled():
            return None
        error = task.exception()
        if error is not None and not isinstance(error, controls.Interrupted):  # which has been told already
            self.outcome.defect = f"{defect.sentence(error)}; {defect.keep_trace(error, self.folder)}"
            self.abort("engine", f"internal error: {self.outcome.defect}")
        return None if error is not None else task.result()

    async def _phases(self, ledger: Ledger, watch: Watch) -> None:
        before, find = self.loaded.experiment.spec.hooks.before_run, self.world.kube.environment
        if no := await hooking.asked(before, "beforeRun", self._facts(), find):
            self.outcome.refused = no[0]
            return
        if problems := await self._inspect(ledger):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            self.outcome.refused = f"{problems[0]}{more}"
            return
        within, native = max(BASELINE_WITHIN, watch.slowest), self._native
        if native:
            await native.begin(self.world.kube)
        self._phase(Phase.BASELINE, watch)
        if complaints := await (native.baseline(watch, within) if native else watch.baseline(within)):
            self.outcome.refused = "; ".join(complaints)
            return
        self._phase(Phase.METHOD, watch)
        experiment, evidence = self.loaded.experiment, self.folder / "evidence"
        method = Method(
            experiment,
            self.plan,
            self.world,
            ledger,
            watch,
            self._gate,
            self._endings,
            evidence,
            self._heard,
        )
        try:
            async with native.method(watch, within) if native else contextlib.nullcontext():
                await method.run()
        except StepFailed as failure:
            self.abort("engine", str(failure))
        finally:
            self.outcome.deviations += [
                f"{name} did not hold while a fault was in force: {what}"
                for name, what in watch.broken.items()
            ]
            self.outcome.deviations += method.deviations
            self.outcome.allowed += method.allowed

    async def _inspect(self, ledger: Ledger) -> list[str]:
        """Reasons against faults that look for them on the spot (on the nodes, say), before any begins."""
        asked = {}
        for step in self.plan.steps.values():
            fault = fault_of(step.kind, step.fault.spec)
            if fault.inspects():
                asked[step.path] = self._inspected(fault, step, ledger)
        try:
            answers = await asyncio.gather(*asked.values(), return_exceptions=True)
        finally:
            await to_the_end(ledger.undo(but=IDENTITY))
        found = []
        for path, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Failure):
                raise answer
            problems = [str(answer)] if isinstance(answer, BaseException) else answer
            found += [f"step {path}: {p}" for p in problems]
        for problem in found:
            self.log.emit(events.Preflight(check="on the spot", level="refused", message=problem))
        if asked and not found:
            text = f"nothing speaks against {', '.join(f'step {p}' for p in asked)}"
            self.log.emit(events.Preflight(check="on the spot", level="ok", message=text))
        return found

    async def _inspected(self, fault: Fault[Any], step: StepPlan, ledger: Ledger) -> list[str]:
        """Reasons against one step. The gate is asked as before an injection: programs run on its nodes."""
        left, _ = await without_vanished(step, self.world.kube)
        if left is None:
            return []  # the method skips it, and says so
        async with self._gate.looking(left, self.world.at(step.path, step.hold)) as let_in:
            return await or_leave(fault.inspect(let_in.fault, Step(let_in.world, ledger.step(step.path))))

    async def _recovery(self, ledger: Ledger, watch: Watch) -> None:
        """Steady state must return within its objective; nobody who pressed Ctrl-C is made to wait for it."""
        await self._undo(ledger)
        if self.outcome.refused or self.outcome.interrupted:
            return
        self._phase(Phase.RECOVERY, watch)
        if self._native:
            if not self._native.looks_again:
                return
            self._native.look_for_ourselves(watch)
        within = self.loaded.experiment.spec.recovery.within
        complaints = await self._cancellable(watch.steady_again(within))
        if complaints:
            text = f"steady state did not return within {within:g} s: {'; '.join(complaints)}"
            self.outcome.deviations.insert(0, text)
        self.outcome.unseen = watch.unseen

    async def _finish(self, ledger: Ledger) -> None:
        """Whatever happened: undo what is left, and audit; the Lease is renewed meanwhile."""
        await self._undo(ledger)
        if self._native is not None:
            await self._native.end()
        if self.identity is not None:
            self.identity.drop()
        self._phase(Phase.AUDIT)
        audits = await ledger.restore()
        self.outcome.add_audit(audits)
        await self._tell("what was ended", self._see_ended(audits))

    async def _see_ended(self, audits: list[events.Audited]) -> None:
        """What is gone by now of all that the steps could end."""
        self.outcome.ended = await self._endings.seen(audits)
        for ended in self.outcome.ended:
            self.log.emit(ended)
        ours = {a.object for a in audits if a.state == Audit.IRREVERSIBLE} | {
            e.object for e in self.outcome.ended
        }
        self.outcome.reacted = self._reacted.pods(but=ours)

    async def _undo(self, ledger: Ledger) -> None:
        """Take everything back but the run's identity, and what a native experiment wants left."""
        if self._native is None:
            await ledger.undo(but=IDENTITY)
            return
        if why := self._native.spares():
            await ledger.leave(WHOLE_RUN, why)
        async with self._native.rollbacks(any(e.open and e.step == WHOLE_RUN for e in ledger.entries)):
            await ledger.undo(but=IDENTITY)

    async def _let_go(self, ledger: Ledger, lease: RunLease) -> None:
        """Remove what the run kept in the cluster, the Lease last; where something is left, it stays."""
        restored = not self.outcome.left
        try:
            await ledger.close(restored=restored)
            if restored:
                await locks.release(self.world.kube, self.world.run)
            await lease.release(restored=restored)
        except Lost:
            pass  # whoever took the run over removes them
        except PlatformError as error:
            text = f"what the run kept in the cluster is there still: gameday recover removes it ({error})"
            self.outcome.deviations.insert(0, text)
            self.log.emit(events.Warn(source="ledger", message=text))

    async def _tell_hooks(self) -> None:
        """The hooks after the run: all is put back, and only the verdict waits."""
        facts = self._facts() | {"verdict": self.outcome.verdict().verdict}
        after, find = self.loaded.experiment.spec.hooks.after_run, self.world.kube.environment
        await hooking.told(after, "afterRun", facts, find, self.log.emit)

    def _facts(self) -> dict[str, str]:
        return {
            "run": self.world.run,
            "experiment": self.loaded.experiment.metadata.name,
            "plan": self.plan.digest,
        }

    # -- the small print -----------------------------------------------------------------------

    def _hear(self, obj: Object) -> None:
        """A watch brought this object."""
        self._heard.of(obj)
        self._endings.hear(obj)
        self._reacted.hear(obj)

    def _said(self) -> Said:
        return Said(
            abort=lambda reason: self.abort("person", reason),
            note=lambda author, text: self.log.emit(events.Note(author=author, text=text)),
        )

    def _end(self) -> events.Verdict:
        if not (self.outcome.refused or self.outcome.interrupted):
            self.outcome.deviations += self._alerts.missed()
        verdict = self.outcome.verdict()
        self._phase(Phase.DONE)
        self.log.emit(verdict)
        return verdict

    def _phase(self, phase: Phase, watch: Watch | None = None) -> None:
        self.log.emit(events.Phase(phase=phase))
        if watch is not None:
            watch.mark(during=False, phase=phase)

    async def _until_too_long(self) -> None:
        """The end of a run that takes longer than it may, by the monotonic clock."""
        limit = self.loaded.experiment.spec.max_duration
        await asyncio.sleep(limit)
        self.abort("engine", f"the run took longer than its maxDuration of {limit:g} s")

    async def _tell(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """A teller may fail: that is reported, and never takes the run with it."""
        try:
            await work
        except Exception as error:
            self.log.emit(events.Warn(source=name, message=f"{type(error).__name__}: {error}"))

    def _sampler(self) -> Sampler | None:
        if self.world.prometheus is None:
            return None
        spec = self.loaded.experiment.spec
        queries = [
            Query(p.spec.query, "steady-state", p.name) for p in spec.steady_state if p.kind == "prometheus"
        ]
        queries += [Query(q, "observe", q) for q in spec.observe]
        step = min([MOST_STEP, *(max(p.interval, LEAST_STEP) for p in spec.steady_state)])
        return Sampler(self.world.prometheus, queries, self.log.emit, step=step)

    async def _about(self) -> dict[str, str]:
        return {
            "cluster": await cluster_id(self.world.kube),
            "experiment": self.loaded.experiment.metadata.name,
            "by": user_name(),
            "host": socket.gethostname(),
            "version": __version__,
        }


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(seconds):
        await work
