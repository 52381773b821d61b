"""A native Chaos Toolkit experiment: its steady state, rollbacks and controls when `chaos run` has them.

Each probe is asked once before and once after the method, or at its frequency while the method runs, as
`runtime.hypothesis.strategy` says; `runtime.rollbacks.strategy` says after which endings rollbacks run.
Beyond that, the steady state is looked at once more when rollbacks are over: what they were for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gameday.experiment.model import ChaosToolkitRun
from gameday.platform import controls
from gameday.platform.controls import Controls, Interrupted
from gameday.platform.kube import Kube
from gameday.run.reading import UNREACHABLE
from gameday.run.verdict import Outcome
from gameday.run.watch import Watch


@dataclass
class Native:
    """The strategies of one run, and what they depend on. Times are in seconds."""

    rules: ChaosToolkitRun
    outcome: Outcome
    on_end: Callable[[str], None]  # hears why a control ended the experiment
    deviated: bool = False  # the steady state did not hold after the method
    failed: bool = False  # a probe could not be asked then, which `chaos run` calls failed
    _controls: Controls = field(init=False)
    _begun: list[str] = field(default_factory=list)  # levels whose end the controls have not heard of

    def __post_init__(self) -> None:
        self._controls = Controls(self.rules.experiment, self.on_end)
        controls.current.set(self._controls)

    async def begin(self, kube: Kube) -> None:
        """Start the controls. Raises PlatformError."""
        if self.rules.experiment:
            await self._controls.start(kube.environment())
            await self._level("experiment")

    async def baseline(self, watch: Watch, within: float) -> list[str]:
        """What speaks against beginning."""
        if self.rules.before:
            seen, _ = await self._look(watch, within, "before", phase="baseline")
            if seen:
                return [f"steady state does not hold before anything is touched: {seen}"]
        return await watch.baseline(within, steady=False)

    @asynccontextmanager
    async def method(self, watch: Watch, within: float) -> AsyncIterator[None]:
        """The method, and the look at the steady state after it, where the strategy says so."""
        watch.mark(during=self.rules.during, phase="method", asks=self.rules.during)
        await self._level("method")
        yield
        await self._over("method")
        watch.mark(during=False, asks=False)
        if not self.rules.after:
            return
        seen, self.failed = await self._look(watch, within, "after")
        if seen:
            self.deviated = True
            self.outcome.deviations.append(f"steady state did not hold after the method: {seen}")

    @asynccontextmanager
    async def rollbacks(self, any_left: bool) -> AsyncIterator[None]:
        """The rollbacks, if there are any. From here on no control holds anything up for long."""
        self._controls.patience = controls.HURRY
        with contextlib.suppress(Interrupted):
            await self._over("hypothesis", "method")
            if any_left:
                await self._level("rollback")
        yield
        with contextlib.suppress(Interrupted):
            await self._over("rollback")

    def look_for_ourselves(self, watch: Watch) -> None:
        """The look at the end of a run, which `chaos run` does not have: its controls hear nothing of it."""
        self._controls.hears = False
        watch.mark(during=False, phase="recovery", asks=True)

    async def end(self) -> None:
        """The experiment is over. Never raises."""
        self._controls.hears, self._controls.patience = True, controls.HURRY
        status = "interrupted" if self.outcome.interrupted else "aborted" if self.outcome.aborted else ""
        status = status or ("failed" if self.failed else "completed")
        with contextlib.suppress(Interrupted):
            await self._over("experiment", state={"status": status, "deviated": self.deviated})
        await self._controls.end()

    def spares(self) -> str:
        """Why rollbacks do not run, "" where they do. Whoever aborts a run wants all of it put back."""
        if self.outcome.aborted:
            return ""
        match self.rules.rollbacks:
            case "default" if self.outcome.interrupted or self.failed:
                return "not run after an interruption or a failed probe (runtime.rollbacks.strategy: default)"
            case "deviated" if not self.deviated:
                return "run only after a deviation (runtime.rollbacks.strategy: deviated)"
        return ""

    @property
    def looks_again(self) -> bool:
        """Whether the steady state must hold at the end: where something may have mended it."""
        return self.rules.after and not (self.deviated and self.spares())

    async def _look(
        self, watch: Watch, within: float, when: str, phase: str | None = None
    ) -> tuple[str, bool]:
        """Ask each probe once: what does not hold, in words, and whether some of it could not be asked."""
        await self._level("hypothesis")
        watch.mark(during=False, phase=phase, asks=True)
        wrong = await watch.look(within)
        seen = "; ".join(standing.complaint() for standing in wrong)
        failed = any(not s.answered or (s.reading and s.reading.state == UNREACHABLE) for s in wrong)
        watch.mark(during=False, asks=False)
        await self._over("hypothesis", state={"steady_state_met": not wrong, "probes": [], "when": when})
        return seen, failed

    async def _level(self, level: str) -> None:
        self._begun.append(level)
        await self._controls.apply(level, "before")

    async def _over(self, *levels: str, state: Any = None) -> None:
        for level in levels:
            if level in self._begun:
                self._begun.remove(level)
                cut_off: dict[str, Any] = {"steady_state_met": None, "probes": [], "when": "after"}
                told = cut_off if state is None and level == "hypothesis" else state
                await self._controls.apply(level, "after", state=told)
