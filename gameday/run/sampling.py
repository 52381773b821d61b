"""Keeps the curves of a run: asks Prometheus only for what is new, and says where something is missing.

Prometheus stores the points, so nothing is lost while it can't be reached: what was missed is asked for
when it is back. Only what Prometheus itself did not see is a gap. Of each query no more than the time of
its last point is held, so a run may take as long as it likes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday.events import Emit, Gap, QueryDeclared, Samples, Warn
from gameday.experiment.text import shorten
from gameday.platform.errors import PartialAnswer, PlatformError, Unreachable
from gameday.platform.prometheus import PrometheusError
from gameday.run.alert_watch import AlertWatch

if TYPE_CHECKING:
    from gameday.platform.prometheus import Prometheus, Series

STEP = 5.0  # seconds between two points
EVERY = 15.0  # seconds between two rounds of asking
AT_ONCE = 8  # queries under way at the same time
MOST_SERIES = 200  # of one query; more can't be told apart in a chart
CHUNK = 360  # points of a series asked for at once, to bound memory while catching up
SETTLE = 2.0  # seconds after which the samples of a moment have been scraped and stored
COVERAGE = "max(timestamp(up))"  # when Prometheus last scraped anything, whatever it scrapes
LOOK_BACK = 300.0  # seconds before the run that tell how old the newest sample usually is
ALERTS = "ALERTS"


@dataclass(frozen=True)
class Query:
    """A query to sample. `purpose`: steady-state, observe; `name` is the probe's."""

    expression: str
    purpose: str = "observe"
    name: str = ""


@dataclass
class _Curve:
    """How far one query has come. Up to `last` everything is in the log, as points or as a gap."""

    number: int
    query: Query
    last: int  # in steps since the epoch, so that there is no rounding
    gap_from: int | None = None
    gap_reason: str = ""
    gap_partial: bool = False  # points are there, of an answer with reservations
    warned: bool = False
    unanswered: bool = False  # the last time it was asked


class Sampler:
    """Samples queries, and the alerts, from the moment it is made until `flush`.

    `run` may be cancelled at any moment. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        queries: Iterable[Query],
        emit: Emit,
        *,
        step: float = STEP,
        every: float = EVERY,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prometheus, self._emit, self._clock = prometheus, emit, clock
        self._step, self._every, self._settle = step, every, settle
        asked = [*dict.fromkeys(queries), Query(ALERTS, "alerts")]
        before = self._steps(clock()) - 1
        self._curves = [_Curve(number, query, before) for number, query in enumerate(asked, 1)]
        self.alerts = AlertWatch(prometheus, emit)
        self._declared = False
        self._away = ""  # why nobody answers
        self._usual: float | None = None  # seconds, the age of Prometheus' newest sample
        self._unseen: frozenset[int] = frozenset()  # new moments that Prometheus itself did not see
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Sample for ever; cancel it to stop, then `flush`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.alerts.run())
            while True:
                await self.sample(self._clock() - self._settle)
                await asyncio.sleep(self._every)

    async def flush(self, within: float = 12.0) -> None:
        """Bring everything up to now, and say what is missing. Takes at most `within` seconds."""
        until = self._clock()
        try:
            async with asyncio.timeout(within):
                self._declare()
                await self.alerts.poll()
                await self.sample(until)
        except TimeoutError:
            self._away = self._away or f"Prometheus did not answer all within {within:g} s at the end"
        finally:
            self._close(self._steps(until))

    def _close(self, end: int) -> None:
        """Samples that could not be had up to that moment are a gap now."""
        for curve in self._curves:
            if curve.last < end:
                self._mark(curve, curve.last + 1, self._away or "the run ended first")
                curve.last = end
            self._mark(curve, end + 1, "")

    async def sample(self, until: float) -> None:
        """Ask once for all that is new up to that time (Unix seconds)."""
        async with self._busy:
            self._declare()
            end = self._steps(until)
            self._unseen = frozenset()
            try:
                await self._look(min(curve.last for curve in self._curves) + 1, end)
            except Unreachable as error:
                self._lost(str(error))
                return
            self._away = ""
            rest = iter(self._curves)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(self._curves))):
                    group.create_task(self._work(rest, end))

    def _steps(self, at: float) -> int:
        return int(at // self._step)

    def _declare(self) -> None:
        if self._declared:
            return
        self._declared = True
        for curve in self._curves:
            query = curve.query
            self._emit(
                QueryDeclared(
                    query=curve.number,
                    expression=query.expression,
                    purpose=query.purpose,
                    name=query.name,
                    step=self._step,
                )
            )

    async def _work(self, rest: Iterator[_Curve], end: int) -> None:
        for curve in rest:
            if self._away:
                return
            await self._catch_up(curve, end)

    async def _catch_up(self, curve: _Curve, end: int) -> None:
        while curve.last < end and not self._away:
            first, last = curve.last + 1, min(end, curve.last + CHUNK)
            try:
                found = await self._ask(curve.query.expression, first, last)
            except PartialAnswer as part:
                curve.unanswered = False
                self._refused(curve, str(part))
                self._keep(curve, first, last, part.found, f"only in part: {part.why}")
            except PlatformError as error:
                if isinstance(error, Unreachable) and not await self._too_heavy(curve):
                    self._lost(str(error))
                    return
                self._refused(curve, str(error))
                self._mark(curve, first, str(error))
            else:
                curve.unanswered = False
                self._keep(curve, first, last, found)
            curve.last = last

    async def _too_heavy(self, curve: _Curve) -> bool:
        """Whether this query alone gets no answer: twice, while simpler ones do."""
        again, curve.unanswered = curve.unanswered, True
        return again and await self._prometheus.ready()

    async def _ask(self, expression: str, first: int, last: int) -> Sequence[Series]:
        # One series more than is kept tells that there are more.
        step = self._step
        return await self._prometheus.range(
            expression, first * step, last * step, step, limit=MOST_SERIES + 1
        )

    def _keep(self, curve: _Curve, first: int, last: int, found: Sequence[Series], partial: str = "") -> None:
        """Write what was found; `partial` says why there may be more."""
        if len(found) > MOST_SERIES:
            found = sorted(found, key=lambda s: sorted(s.labels.items()))[:MOST_SERIES]
            self._refused(curve, f"more than {MOST_SERIES} series: the first {MOST_SERIES} are kept")
        series = [kept for one in found if (kept := self._compact(one))["points"]]
        if series:
            self._emit(Samples(query=curve.number, series=series))
        if partial:
            for moment in range(first, last + 1):
                self._mark(curve, moment, partial, partial=True)
        else:
            self._tell_missing(curve, first, last, series)

    def _compact(self, series: Series) -> dict[str, Any]:
        points = series.points
        if self._unseen:
            points = [point for point in points if round(point[0] / self._step) not in self._unseen]
        return {"labels": series.labels, "points": [[at, _number(value)] for at, value in points]}

    def _tell_missing(self, curve: _Curve, first: int, last: int, series: list[dict[str, Any]]) -> None:
        """Mark the moments without any value. That no alert is active is nothing missing."""
        longest = max((len(one["points"]) for one in series), default=0)
        if longest == last - first + 1 and curve.gap_from is None:
            return
        there = {round(point[0] / self._step) for one in series for point in one["points"]}
        reason = "" if curve.query.purpose == "alerts" else "no data"
        for moment in range(first, last + 1):
            if moment in self._unseen:
                self._mark(curve, moment, "Prometheus was down, so nobody saw these values")
            else:
                self._mark(curve, moment, "" if moment in there else reason)

    def _mark(self, curve: _Curve, moment: int, reason: str, *, partial: bool = False) -> None:
        """From this moment on values are missing for that reason, or, without one, are there."""
        if curve.gap_from is not None and curve.gap_reason != reason:
            start, end = curve.gap_from * self._step, moment * self._step
            self._emit(
                Gap(
                    query=curve.number,
                    start=start,
                    end=end,
                    reason=curve.gap_reason,
                    partial=curve.gap_partial,
                )
            )
            curve.gap_from = None
        if reason and curve.gap_from is None:
            curve.gap_from, curve.gap_reason, curve.gap_partial = moment, reason, partial

    def _refused(self, curve: _Curve, why: str) -> None:
        if not curve.warned:
            curve.warned = True
            self._emit(Warn(source="sampling", message=f"`{shorten(curve.query.expression, 120)}`: {why}"))

    def _lost(self, why: str) -> None:
        if not self._away:
            self._away = why
            self._emit(Warn(source="sampling", message=f"{why}; what is missing is fetched when it is back"))

    async def _look(self, first: int, last: int) -> None:
        """Find the moments that Prometheus did not see, because it was down or only just up again.

        It answers for them all the same, with the values before (for five minutes, its look-back). The
        age of its newest sample gives it away: it is higher than what was usual before the run.
        """
        before = round(LOOK_BACK / self._step) if self._usual is None else 0
        ages: dict[int, float] = {}
        try:
            for start in range(first - before, last + 1, CHUNK):
                for series in await self._ask(COVERAGE, start, min(last, start + CHUNK - 1)):
                    ages |= {round(at / self._step): at - value for at, value in series.points}
        except (PrometheusError, PartialAnswer):
            return  # what can't tell is believed
        if self._usual is None and ages:
            self._usual = max((age for moment, age in ages.items() if moment < first), default=self._step)
        if self._usual is not None:
            limit = self._usual + self._step
            moments = range(first, last + 1)
            self._unseen = frozenset(m for m in moments if ages.get(m, math.inf) > limit)


def _number(value: float) -> float | int | str:
    """The shortest JSON for a number; NaN and the infinities as Prometheus writes them."""
    if value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value if value - value == 0 else {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, "NaN")
