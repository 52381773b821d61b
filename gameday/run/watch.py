"""The watch beside the method: every probe and abort condition at its own interval, each for itself.

A slow or dead system never delays another check, an abort or an undo: each check is a task with a
time-out of its own, and nobody waits for it but who wants its reading. Whatever happens to a probe, of
whatever type, is that probe's reading; only a defect of the watch itself can end the watch, and the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from gameday.events import Emit, Probed
from gameday.experiment.model import AbortIf, Probe
from gameday.experiment.text import plain
from gameday.run.asking import ask
from gameday.run.first_look import unready
from gameday.run.reading import Reading, explain
from gameday.run.standing import BASELINE_READINGS, Standing

if TYPE_CHECKING:
    from gameday.platform.world import World

HURRY = 1.0  # seconds between readings, at most, where a baseline or a recovery waits for them


class Watch:
    """All checks of a run. `on_abort` hears of an abort condition that held, or was blind, for too long."""

    def __init__(
        self,
        steady: list[Probe],
        aborts: list[AbortIf],
        world: World,
        emit: Emit,
        on_abort: Callable[[str], None],
        *,
        paced: bool = False,  # a strategy alone says when the steady state is asked, at its own frequency
    ) -> None:
        self._paced = paced
        self._world, self._emit, self._on_abort = world, emit, on_abort
        self.steady = [Standing(p) for p in steady]
        self._aborts = [Standing(a) for a in aborts]
        self._wake = {standing: asyncio.Event() for standing in self._all}
        self._during = self._faulted = False  # a fault is in; one was
        self._armed = False  # once the baseline is known, abort conditions count
        self._over = False
        self._changed = asyncio.Condition()
        self.phase = "baseline"
        self._asks = not paced  # whether the steady state is looked at
        self.broken: dict[str, str] = {}  # probes that did not hold while a fault was in force

    @property
    def _all(self) -> list[Standing]:
        return [*self.steady, *self._aborts]

    @property
    def unseen(self) -> list[str]:
        """Probes that counted while a fault was in, and were never measured then."""
        if self._paced or not self._faulted:
            return []
        return [s.check.name for s in self.steady if s.bound(during=True)[1] and not s.measured]

    @property
    def slowest(self) -> float:
        """Seconds that a baseline may take where every answer comes just in time."""
        return float(BASELINE_READINGS * max(standing.check.timeout for standing in self._all))

    async def run(self) -> None:
        """Ask for ever; cancel it to stop."""
        for standing in self._all:
            standing.begin(time.monotonic())
        try:
            async with asyncio.TaskGroup() as group:
                for standing in self._all:
                    group.create_task(self._loop(standing))
        finally:
            self._over = True
            async with self._changed:
                self._changed.notify_all()

    def mark(self, *, during: bool, phase: str | None = None, asks: bool | None = None) -> None:
        """A fault went in or out, or a phase began: readings asked before count no more; ask again now.

        With `asks` a strategy says whether the steady state is looked at from now on.
        """
        if self._paced and asks is None:
            return
        self._during, self._faulted = during, during or self._faulted
        self._asks = self._asks if asks is None else asks
        self.phase = phase or self.phase
        for standing in self.steady:
            standing.restart(time.monotonic())
            self._wake[standing].set()

    async def look(self, timeout: float) -> list[Standing]:
        """Ask each probe once, as `chaos run` does; those that do not hold, or have not answered by then."""
        await self._wait(lambda s: s.answered, self.steady, timeout)
        return [s for s in self.steady if not (s.answered and s.streak)]

    async def baseline(self, timeout: float, *, steady: bool = True) -> list[str]:
        """Wait for the baseline; what speaks against beginning if it is not there by then.

        The baseline is the mean of a few readings that hold; an abort condition must be seen not to. Without
        `steady` only abort conditions are waited for.
        """
        await self._wait(lambda s: s.settled, self._all if steady else self._aborts, timeout)
        if steady and self._unsettled(self.steady):
            complaints = "; ".join(s.complaint() for s in self._unsettled(self.steady))
            return [f"steady state does not hold before anything is touched: {complaints}"]
        if blind := self._unsettled(self._aborts):
            return [unready(s.check, s.reading) for s in blind]
        for standing in self._all:
            if reading := standing.settle():
                self._emit(self._event(standing, reading))
        self._armed = True
        return []

    async def steady_again(self, timeout: float) -> list[str]:
        """Wait until all probes hold, each in fresh readings in a row; the complaints if not by then."""
        await self._wait(lambda s: s.steady, self.steady, timeout)
        return [s.complaint() for s in self.steady if not s.steady]

    async def _wait(
        self, holds: Callable[[Standing], bool], standings: list[Standing], timeout: float
    ) -> None:
        """Until it holds of all, the time is up, or the watch is over."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._over or all(map(holds, standings)))
        except TimeoutError:
            return

    @staticmethod
    def _unsettled(standings: Iterable[Standing]) -> list[Standing]:
        return [standing for standing in standings if not standing.settled]

    # -- asking ------------------------------------------------------------------------------------

    async def _loop(self, standing: Standing) -> None:
        while True:
            asked = time.monotonic()
            self._wake[standing].clear()
            if not self._asks and standing in self.steady:
                await self._wake[standing].wait()
                continue
            await self._take(standing, await self._ask(standing, asked))
            try:
                async with asyncio.timeout(max(0.0, asked + self._interval(standing) - time.monotonic())):
                    await self._wake[standing].wait()
            except TimeoutError:
                continue

    def _interval(self, standing: Standing) -> float:
        """Where a baseline or a recovery is awaited there is no point in waiting out long intervals."""
        if self._paced:
            return standing.check.interval
        awaited = not self._armed or (isinstance(standing.check, Probe) and not self._during)
        if awaited and standing.streak < BASELINE_READINGS:
            return min(standing.check.interval, HURRY)
        return standing.check.interval

    async def _ask(self, standing: Standing, asked: float) -> Reading:
        during = self._during
        bound, counts = standing.bound(during)
        reading = await ask(standing.probe, standing.check, bound, self._world, standing.baseline, asked)
        reading = replace(reading, during=during)
        return replace(reading, ignored=not counts or (during and standing.mending(reading)))

    async def _take(self, standing: Standing, reading: Reading) -> None:
        old = standing.reading
        standing.take(reading, baseline=self.phase == "baseline")
        if standing.worth_writing(old, reading):
            standing.written = reading.at
            self._emit(self._event(standing, reading))
        if isinstance(standing.check, AbortIf):
            if self._armed and (alarm := standing.alarm()):
                self._on_abort(alarm)
        elif standing.failing(reading):
            self.broken.setdefault(standing.check.name, explain(reading))
        async with self._changed:
            self._changed.notify_all()

    def _event(self, standing: Standing, reading: Reading) -> Probed:
        return Probed(
            probe=standing.check.name,
            state=reading.state,
            purpose=standing.purpose,
            phase=self.phase,
            value=reading.value if not isinstance(reading.value, bool) else plain(reading.value),
            baseline=standing.baseline,
            low=reading.low,
            high=reading.high,
            margin=reading.margin,
            expected=reading.expected,
            during=reading.during,
            ignored=reading.ignored,
            series=reading.series,
            message=reading.message,
            took=round(reading.took, 4),
            measured=standing.measured,
        )
