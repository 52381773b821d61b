"""The watch beside the method: every probe and abort condition at its own interval, each for itself.

A slow or dead system never delays another check, an abort or an undo: each check is a task with a
time-out of its own, and nobody waits for it but who wants its reading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gameday.events import Emit, Probed
from gameday.experiment import registry
from gameday.experiment.model import AbortIf, Check, Expectation, Probe
from gameday.platform.errors import PlatformError
from gameday.run.reading import BROKEN, HOLDS, NO_DATA, UNREACHABLE, Reading, judge

if TYPE_CHECKING:
    from gameday.platform.world import World

HEARTBEAT = 30.0  # seconds after which an unchanged reading is written again
BASELINE_READINGS = 3
STEADY_READINGS = 2  # in a row: one alone may be older than what it should show


@dataclass
class _State:
    """What is known of one check."""

    check: Check
    purpose: str
    reading: Reading | None = None
    streak: int = 0  # readings in a row that are fine and were asked after the last mark
    held_since: float | None = None  # abort conditions: since when without a break
    broken_since: float | None = None  # probes, while a fault is in: since when without a break
    baseline_values: list[float] = field(default_factory=list)
    baseline: float | None = None
    written: float = 0.0
    worst: float | None = None  # the smallest margin since the last mark
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Watch:
    """All checks of a run. `on_abort` is called, once, when an abort condition has held long enough."""

    def __init__(
        self,
        steady: list[Probe],
        aborts: list[AbortIf],
        world: World,
        emit: Emit,
        on_abort: Callable[[str], None],
    ) -> None:
        self._world, self._emit, self._on_abort = world, emit, on_abort
        self.steady = [_State(p, "steady-state") for p in steady]
        self._aborts = [_State(a, "abort") for a in aborts]
        self._during = False
        self._mark = 0.0
        self._changed = asyncio.Condition()
        self.phase = "baseline"
        self.broken: dict[str, str] = {}  # probes that did not hold while a fault was in force

    async def run(self) -> None:
        """Ask for ever; cancel it to stop."""
        async with asyncio.TaskGroup() as group:
            for state in [*self.steady, *self._aborts]:
                group.create_task(self._loop(state))

    def mark(self, *, during: bool, phase: str | None = None) -> None:
        """A fault went in or out, or a phase began: readings asked before count no more; ask again now."""
        self._during = during
        self.phase = phase or self.phase
        self._mark = time.monotonic()
        for state in self.steady:
            state.streak = 0
            state.written = 0.0
            state.worst = None
            state.broken_since = None
            state.wake.set()

    async def baseline(self, timeout: float) -> list[str]:
        """Wait for the baseline; the complaints, by probe, if the steady state does not hold by then.

        The baseline is the mean of a few readings. While the newest one does not hold against it, the
        platform is still on its way up or down, and the wait goes on.
        """
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: all(map(_settled, self.steady)))
        except TimeoutError:
            return self.complaints() or [
                f"{s.check.name}: still changing" for s in self.steady if not _settled(s)
            ]
        for state in self.steady:
            state.baseline = _mean(state)
        return []

    async def steady_again(self, timeout: float) -> list[str]:
        """Wait until all probes hold, each in fresh readings in a row; the complaints if not by then."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: all(s.streak >= STEADY_READINGS for s in self.steady))
        except TimeoutError:
            return self.complaints()
        return []

    def complaints(self) -> list[str]:
        """A sentence for each probe that is not fine."""
        found = []
        for state in self.steady:
            reading = state.reading
            if reading is None:
                found.append(f"{state.check.name}: not answered yet")
            elif not reading.fine:
                found.append(f"{state.check.name}: {explain(reading)}")
        return found

    async def _loop(self, state: _State) -> None:
        check = state.check
        # While a baseline or a recovery is awaited there is no point in waiting out long intervals.
        while True:
            asked = time.monotonic()
            state.wake.clear()
            reading = await self._ask(state, asked)
            await self._take(state, reading)
            hurry = isinstance(check, Probe) and state.streak < BASELINE_READINGS and not self._during
            interval = min(check.interval, 1.0) if hurry else check.interval
            try:
                async with asyncio.timeout(max(0.0, asked + interval - time.monotonic())):
                    await state.wake.wait()
            except TimeoutError:
                continue

    async def _ask(self, state: _State, asked: float) -> Reading:
        check = state.check
        bound, ignored = self._bound(check)
        during = self._during
        try:
            probe = registry.probe(check.kind)()
            async with asyncio.timeout(check.timeout):
                measured = await probe.measure(check.spec, self._world)
        except TimeoutError:
            message = f"did not answer within {check.timeout:g} s"
            reading = Reading(UNREACHABLE, asked, check.timeout, message=message, expected=bound.text)
        except (PlatformError, OSError) as error:
            reading = Reading(UNREACHABLE, asked, message=str(error), expected=bound.text)
        else:
            reading = judge(check, bound, measured, state.baseline, asked, time.monotonic() - asked)
        return replace(reading, during=during, ignored=ignored or (during and _mending(state, reading)))

    def _bound(self, check: Check) -> tuple[Expectation, bool]:
        if isinstance(check, Probe) and self._during and check.during is not None:
            if check.during == "ignore":
                return check.is_, True
            assert isinstance(check.during, Expectation)
            return check.during, False
        return check.is_, False

    async def _take(self, state: _State, reading: Reading) -> None:
        old, state.reading = state.reading, reading
        if reading.at >= self._mark:
            state.streak = state.streak + 1 if reading.fine else 0
        numeric = isinstance(reading.value, int | float) and not isinstance(reading.value, bool)
        if self.phase == "baseline" and reading.state == HOLDS and numeric:
            state.baseline_values.append(float(reading.value or 0.0))
        changed = old is None or _kind(old) != _kind(reading)
        worse = state.purpose == "steady-state" and self._is_worst(state, reading)
        if changed or worse or reading.at - state.written >= HEARTBEAT:
            state.written = reading.at
            self._emit(self._event(state, reading))
        if isinstance(state.check, Probe) and reading.during and not reading.fine:
            if reading.state != UNREACHABLE:  # "could not ask" says nothing about the platform
                self.broken.setdefault(state.check.name, explain(reading))
        elif isinstance(state.check, AbortIf):
            self._consider_abort(state, state.check, reading)
        async with self._changed:
            self._changed.notify_all()

    def _is_worst(self, state: _State, reading: Reading) -> bool:
        """Whether it is the worst since the last mark: the log must hold those, if no others."""
        if reading.margin is None:
            return reading.state == BROKEN
        worst = state.worst is None or reading.margin < state.worst
        state.worst = reading.margin if worst else state.worst
        return worst

    def _consider_abort(self, state: _State, check: AbortIf, reading: Reading) -> None:
        if reading.state != HOLDS:
            state.held_since = None
            return
        if state.held_since is None:
            state.held_since = reading.at
        if reading.at + reading.took - state.held_since >= check.for_:
            self._on_abort(f"{check.name}: {_value(reading)} is {check.is_.text}")

    def _event(self, state: _State, reading: Reading) -> Probed:
        return Probed(
            probe=state.check.name,
            state=reading.state,
            purpose=state.purpose,
            phase=self.phase,
            value=reading.value if not isinstance(reading.value, bool) else str(reading.value),
            baseline=state.baseline,
            low=reading.low,
            high=reading.high,
            margin=reading.margin,
            expected=reading.expected,
            during=reading.during,
            ignored=reading.ignored,
            series=reading.series,
            message=reading.message,
            took=round(reading.took, 4),
        )


def _mending(state: _State, reading: Reading) -> bool:
    """Whether a probe is broken no longer than it may be while a fault is in."""
    check = state.check
    if not isinstance(check, Probe) or reading.state in (HOLDS, UNREACHABLE):
        state.broken_since = None if reading.state == HOLDS else state.broken_since
        return False
    if state.broken_since is None:
        state.broken_since = reading.at
    return reading.at - state.broken_since < check.within


def _kind(reading: Reading) -> tuple[str, bool, bool]:
    """What of a reading must be in the log as soon as it is another one."""
    return reading.state, reading.during, reading.ignored


def _mean(state: _State) -> float | None:
    values = state.baseline_values[-BASELINE_READINGS:]
    return sum(values) / len(values) if values else None


def _settled(state: _State) -> bool:
    """Whether a probe held often enough, and its last value holds against the mean of the last ones."""
    if state.streak < BASELINE_READINGS:
        return False
    mean = _mean(state)
    return mean is None or state.check.is_.judge(state.baseline_values[-1], mean)


def explain(reading: Reading) -> str:
    """A reading in words."""
    if reading.state == NO_DATA:
        return f"no data ({reading.message})"
    if reading.state == UNREACHABLE:
        return f"could not be asked ({reading.message})"
    where = f" for {reading.series}" if reading.series else ""
    verb = "is" if reading.state == HOLDS else "is not"
    return f"{_value(reading)}{where} {verb} {reading.expected}"


def _value(reading: Reading) -> str:
    value = reading.value
    return f"{value:.4g}" if isinstance(value, float) else str(value)
