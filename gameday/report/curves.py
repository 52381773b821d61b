"""Sampled curves: gathered compactly, put in order, and thinned for drawing without losing an extreme."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gameday.inert import visible
from gameday.report.model import Series

HOLE = 2.2  # a step between two samples longer than this many intervals is a hole


class Gatherer:
    """The growing series of one query; 16 bytes a point."""

    def __init__(self) -> None:
        self._series: dict[tuple[tuple[str, str], ...], tuple[array[float], array[float]]] = {}

    def add(self, found: Iterable[dict[str, Any]]) -> None:
        """New points, as the log's Samples event has them. What is not a number breaks the line."""
        for one in found:
            key = tuple(sorted(one.get("labels", {}).items()))
            if key not in self._series:
                self._series[key] = (array("d"), array("d"))
            times, values = self._series[key]
            try:
                ts, vs = zip(*one.get("points", ()), strict=True)
            except ValueError:  # no points
                continue
            times.extend(ts)
            try:
                values.extend(vs)
            except TypeError:  # a value in words: keep what is a number
                del values[len(times) - len(ts) :]
                values.extend(map(number, vs))

    def series(self) -> tuple[Series, ...]:
        """All series, each in order of time with every moment once (a later reading of it counts)."""
        return tuple(
            Series({visible(str(k)): visible(str(v)) for k, v in key}, *_ordered(*points))
            for key, points in self._series.items()
        )


def number(value: object) -> float:
    """A sample's value; Prometheus writes `NaN` and `+Inf` as text. Nothing to draw becomes NaN."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def _ordered(times: array[float], values: array[float]) -> tuple[array[float], array[float]]:
    if not all(map(math.isfinite, values)):
        values = array("d", map(number, values))
    if all(map(float.__lt__, times, times[1:])):
        return times, values
    points = dict(zip(times, values, strict=True))
    moments = sorted(points)
    return array("d", moments), array("d", [points[t] for t in moments])


def stretches(series: Series, step: float) -> Iterator[tuple[int, int]]:
    """Index ranges without a hole: a line is drawn within one, never from one to the next."""
    times, values = series.times, series.values
    limit, start = HOLE * step, 0
    for i in range(len(times)):
        if values[i] != values[i]:
            if i > start:
                yield start, i
            start = i + 1
        elif i > start and times[i] - times[i - 1] > limit:
            yield start, i
            start = i
    if len(times) > start:
        yield start, len(times)


def thin(series: Series, step: float, most: int) -> list[tuple[float, float | None]]:
    """At most about `most` points that look the same: of each bucket its lowest and its highest stay.

    The first and the last point of every stretch stay too; None stands between stretches.
    """
    points: list[tuple[float, float | None]] = []
    times, values = series.times, series.values
    size = max(1, math.ceil(2 * len(times) / max(2, most)))
    for start, end in stretches(series, step):
        if points:
            points.append((times[start], None))
        points.extend((times[i], values[i]) for i in _kept(values, start, end, size))
    return points


def _kept(values: Sequence[float], start: int, end: int, size: int) -> Iterable[int]:
    if size <= 2:
        return range(start, end)
    kept = {start, end - 1}
    for left in range(start, end, size):
        bucket = values[left : min(left + size, end)]
        kept.add(left + bucket.index(min(bucket)))
        kept.add(left + bucket.index(max(bucket)))
    return sorted(kept)


def spread(series: Series) -> float:
    """How much a curve moves, to choose which ones get a colour."""
    real = [v for v in series.values if v == v]
    return max(real) - min(real) if real else -1.0
