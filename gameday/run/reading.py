"""From a measurement to a reading: does it hold, against which bound, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from gameday.experiment.model import Check, Expectation
from gameday.probes.base import Measurement, Value

HOLDS, BROKEN, NO_DATA, UNREACHABLE = "holds", "broken", "no-data", "unreachable"


@dataclass(frozen=True)
class Reading:
    """What a check said at one moment. `at` is monotonic seconds, when the question was asked."""

    state: str
    at: float
    took: float = 0.0
    value: Value | None = None
    series: str = ""
    margin: float | None = None
    low: float | None = None
    high: float | None = None
    expected: str = ""
    during: bool = False
    ignored: bool = False
    message: str = ""

    @property
    def fine(self) -> bool:
        """Whether it stands in nobody's way."""
        return self.ignored or self.state == HOLDS


def judge(
    check: Check, bound: Expectation, measured: Measurement, baseline: float | None, at: float, took: float
) -> Reading:
    """The reading of a measurement: the worst series counts, or the best with `match: any`."""
    low, high = bound.limits(baseline)
    common = {"at": at, "took": took, "low": low, "high": high, "expected": bound.text}
    if not measured.series:
        return Reading(NO_DATA, message=measured.message or "no data", **common)  # type: ignore[arg-type]
    if bound.relative and baseline is None:
        name, value = measured.series[0]
        return Reading(HOLDS, value=value, series=name, message="no baseline yet", **common)  # type: ignore[arg-type]
    judged = [
        (bound.judge(value, baseline), _margin(bound, value, baseline), name, value)
        for name, value in measured.series
    ]
    ranked = sorted(judged, key=lambda j: (j[0], j[1] if j[1] is not None else 0.0))
    holds, margin, name, value = ranked[-1] if check.match == "any" else ranked[0]
    return Reading(
        HOLDS if holds else BROKEN,
        value=value,
        series=name,
        margin=margin,
        message=measured.message,
        **common,  # type: ignore[arg-type]
    )


def _margin(bound: Expectation, value: Value, baseline: float | None) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return bound.margin(float(value), baseline) if number else None
