"""The engine: takes an approved plan through baseline, method, recovery and audit to a verdict.

Beside the phases run the lease, the watch, the sampler and the observer, as tasks of their own. An
abort, from wherever, cancels the method; its faults unwind through the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gameday import __version__, events
from gameday.experiment.loader import Loaded
from gameday.ledger.lease import Ears, Lost, RunLease
from gameday.ledger.ledger import Ledger
from gameday.ledger.store import ensure_namespace
from gameday.platform.errors import PlatformError
from gameday.platform.world import World
from gameday.run.evidence import collect
from gameday.run.expected import ExpectedAlerts
from gameday.run.log import Log
from gameday.run.method import FAILURES, Method, StepFailed
from gameday.run.observe import observe
from gameday.run.sampling import Query, Sampler
from gameday.run.shield import to_the_end
from gameday.run.verdict import Outcome
from gameday.run.watch import Watch
from gameday.safety.plan import Plan, fault_of

T = TypeVar("T")
LEAST_STEP, MOST_STEP = 1.0, 5.0  # seconds between samples: as the probes ask, within these
FLUSH_WITHIN = 15.0  # seconds for the last samples
EVIDENCE_WITHIN = 20.0
BASELINE_WITHIN = 15.0  # seconds in which the steady state must show itself before anything is touched


@dataclass
class Engine:
    """One run. `execute` may be called once; `abort` and `interrupt` at any time from the same loop."""

    loaded: Loaded
    plan: Plan
    world: World
    log: Log
    folder: Path
    outcome: Outcome = field(default_factory=Outcome)
    _current: asyncio.Task[Any] | None = None  # what an abort cancels
    _alerts: ExpectedAlerts = field(init=False)

    def __post_init__(self) -> None:
        self._alerts = ExpectedAlerts(self.loaded.experiment.spec.expect_alerts)

    def abort(self, by: str, reason: str) -> None:
        """Stop the method and put everything back. The first reason counts; a later signal only hurries."""
        first = not (self.outcome.aborted or self.outcome.interrupted)
        if first:
            self.log.emit(events.Abort(by=by, reason=reason))
            if by == "signal":
                self.outcome.interrupted = reason
            else:
                self.outcome.aborted = reason
        if (first or by == "signal") and self._current is not None:
            self._current.cancel()

    async def execute(self) -> events.Verdict:
        """Run to the verdict, which is also the log's last event; the cluster's failures end in it too."""
        self.log.emit(events.Planned(plan=self.plan.to_data()))
        self.log.listeners.append(self._alerts.hear)
        ledger = Ledger.begin(self.world.kube, self.world.run, self.folder, self._about(), self.log.emit)
        lease = RunLease(self.world.kube, self.world.run)
        try:
            await ensure_namespace(self.world.kube)
            await lease.acquire()
        except (PlatformError, Lost) as error:
            self.outcome.refused = f"the run could not be registered in the cluster: {error}"
            with contextlib.suppress(PlatformError):  # the lease may be there, and only its answer was lost
                await lease.release()
            return self._end()
        try:
            await self._beside(ledger, lease)
        finally:
            await to_the_end(self._finish(ledger, lease))
        return self._end()

    # -- the phases ----------------------------------------------------------------------------

    async def _beside(self, ledger: Ledger, lease: RunLease) -> None:
        """The phases, with everything that runs beside them."""
        spec = self.loaded.experiment.spec
        watch = Watch(
            spec.steady_state,
            spec.abort_if,
            self.world,
            self.log.emit,
            lambda text: self.abort("condition", text),
        )
        sampler = self._sampler()
        victims = [v for s in self.plan.steps.values() for v in s.fault.victims]
        background = {
            "watch": watch.run(),
            "lease": lease.keep(self._ears()),
            "observer": observe(self.world, victims, self.log.emit),
        }
        if sampler is not None:
            background["sampler"] = sampler.run()
        tasks = [asyncio.create_task(self._keep_going(name, work)) for name, work in background.items()]
        try:
            await self._until_aborted(self._phases(ledger, watch))
            await self._recovery(ledger, watch)
            if sampler is not None:
                await self._keep_going("sampler", _within(FLUSH_WITHIN, sampler.flush()))
            evidence = collect(self.world, victims, self.folder / "evidence", self.log.emit)
            await self._keep_going("evidence", _within(EVIDENCE_WITHIN, evidence))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
        if error := task.exception():
            self.abort("engine", f"internal error: {type(error).__name__}: {error}")
            self._keep_trace(error)
            return None
        return task.result()

    async def _phases(self, ledger: Ledger, watch: Watch) -> None:
        if problems := await self._inspect(ledger):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            self.outcome.refused = f"{problems[0]}{more}"
            return
        self._phase("baseline", watch)
        complaints = await watch.baseline(BASELINE_WITHIN)
        if complaints:
            text = "; ".join(complaints)
            self.outcome.refused = f"steady state does not hold before anything is touched: {text}"
            return
        self._phase("method", watch)
        experiment, evidence = self.loaded.experiment, self.folder / "evidence"
        method = Method(experiment, self.plan, self.world, ledger, watch, evidence)
        try:
            await method.run()
        except StepFailed as failure:
            self.abort("engine", str(failure))
        finally:
            self.outcome.deviations += [
                f"{name} did not hold while a fault was in force: {what}"
                for name, what in watch.broken.items()
            ]
            self.outcome.deviations += method.deviations

    async def _inspect(self, ledger: Ledger) -> list[str]:
        """What speaks against faults that look for it on the spot (on the nodes, say), before any begins."""
        asked = {}
        for step in self.plan.steps.values():
            if inspect := getattr(fault_of(step.kind), "inspect", None):
                world = self.world.at(step.path, step.hold)
                asked[step.path] = inspect(step.fault, world, ledger.step(step.path))
        try:
            answers = await asyncio.gather(*asked.values(), return_exceptions=True)
        finally:
            await to_the_end(ledger.undo())
        found = []
        for path, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, FAILURES):
                raise answer
            problems = [str(answer)] if isinstance(answer, BaseException) else answer
            found += [f"step {path}: {p}" for p in problems]
        for problem in found:
            self.log.emit(events.Preflight(check="on the spot", level="refused", message=problem))
        if asked and not found:
            text = f"nothing speaks against {', '.join(f'step {p}' for p in asked)}"
            self.log.emit(events.Preflight(check="on the spot", level="ok", message=text))
        return found

    async def _recovery(self, ledger: Ledger, watch: Watch) -> None:
        """Steady state must return within its objective; nobody who pressed Ctrl-C is made to wait for it."""
        await ledger.undo()
        if self.outcome.refused or self.outcome.interrupted:
            return
        self._phase("recovery", watch)
        within = self.loaded.experiment.spec.recovery.within
        complaints = await self._cancellable(watch.steady_again(within))
        if complaints:
            text = f"steady state did not return within {within:g} s: {'; '.join(complaints)}"
            self.outcome.deviations.insert(0, text)

    async def _finish(self, ledger: Ledger, lease: RunLease) -> None:
        """Whatever happened: undo what is left, audit, and give the lease back."""
        await ledger.undo()
        self._phase("audit")
        self.outcome.add_audit(await ledger.audit())
        with contextlib.suppress(PlatformError):
            await ledger.close(restored=not self.outcome.left)
            await lease.release()

    # -- the small print -----------------------------------------------------------------------

    def _ears(self) -> Ears:
        return Ears(
            abort=lambda reason: self.abort("person", reason),
            note=lambda author, text: self.log.emit(events.Note(author=author, text=text)),
            lost=lambda reason: self.abort("engine", reason),
        )

    def _keep_trace(self, error: BaseException) -> None:
        """The stack of a defect of ours, for its report; never on the screen."""
        import traceback

        (self.folder / "internal-error.txt").write_text("".join(traceback.format_exception(error)))

    def _end(self) -> events.Verdict:
        if not (self.outcome.refused or self.outcome.interrupted):
            self.outcome.deviations += self._alerts.missed()
        verdict = self.outcome.verdict()
        self._phase("done")
        self.log.emit(verdict)
        return verdict

    def _phase(self, phase: str, watch: Watch | None = None) -> None:
        self.log.emit(events.Phase(phase=phase))
        if watch is not None:
            watch.mark(during=False, phase=phase)

    async def _keep_going(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """A helper beside the run that fails is reported; it never takes the run with it."""
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

    def _about(self) -> dict[str, str]:
        return {
            "experiment": self.loaded.experiment.metadata.name,
            "by": getpass.getuser(),
            "host": socket.gethostname(),
            "version": __version__,
        }


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(seconds):
        await work
