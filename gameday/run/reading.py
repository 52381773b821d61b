"""From a measurement to a reading: does the bound hold, and by how much? What can't be seen never holds.

Each series is judged for itself, to `holds`, `broken` or `no-data`; together they are three-valued: with
`match: all` one broken series decides, then one without data; with `match: any` one that holds, then one
without data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gameday.experiment.figures import figure, unit_of
from gameday.experiment.model import AbortIf, Check, Expectation
from gameday.experiment.text import plain, shorten
from gameday.extend import Measurement, Value
from gameday.states import Reading as State

LONGEST = 500  # characters of what others wrote: a label or a field may be of any length
HOLDS, BROKEN, NO_DATA = State.HOLDS, State.BROKEN, State.NO_DATA
PARTIAL, UNREACHABLE, NO_BASELINE = State.PARTIAL, State.UNREACHABLE, State.NO_BASELINE
_WORST_FIRST = {BROKEN: 0, NO_DATA: 1, HOLDS: 2}


@dataclass(frozen=True)
class Reading:
    """The state of a check at one moment. `at` is monotonic seconds, when the question was asked."""

    state: State
    at: float
    took: float = 0.0
    value: Value | None = None
    series: str = ""
    margin: float | None = None
    low: float | None = None
    high: float | None = None
    expected: str = ""
    during: bool = False
    ignored: bool = False  # not held against the platform; never a proof of health either
    message: str = ""
    final: bool = False  # the system said no, and will say so again

    @property
    def number(self) -> float | None:
        """The value, where it is a finite number."""
        return number(self.value)


def judge(
    check: Check, bound: Expectation, measured: Measurement, baseline: float | None, at: float, took: float
) -> Reading:
    """The reading of a measurement, with the series that decides it."""
    low, high = bound.limits(baseline)
    blank = Reading(NO_DATA, at, took, low=low, high=high, expected=bound.text, message=measured.message)
    if not measured.series:
        return replace(blank, message=measured.message)
    if baseline is None and (share := _share_of_nothing(check, measured)):
        text = f"0 can't be a baseline: nothing would ever be on the wrong side of “{share}”"
        return replace(blank, value=0.0, series=measured.series[0][0], message=text)
    if bound.relative and (baseline is None or len(measured.series) > 1):
        return _unjudged(blank, measured)
    judged = [_Judged.of(check, bound, name, value, baseline) for name, value in measured.series]
    told = (max if check.match == "any" else min)(judged, key=_Judged.rank)
    return replace(
        blank,
        state=told.state,
        value=shorten(told.value, LONGEST) if isinstance(told.value, str) else told.value,
        series=shorten(told.name, LONGEST),
        margin=told.margin,
        message=shorten(measured.message, LONGEST) or _why_nothing(told),
    )


def number(value: Value | None) -> float | None:
    """A value as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def value_text(value: Value | None, expected: str = "") -> str:
    """A value in the unit of what is expected of it, close enough to see on which side of a bound it is."""
    if not isinstance(value, float):
        return plain(value)
    if math.isfinite(value):
        return figure(value, unit_of(expected), digits=4)
    return "NaN" if math.isnan(value) else f"{value:+}".title()  # as Prometheus writes them


@dataclass(frozen=True)
class _Judged:
    """One series, judged."""

    name: str
    value: Value
    state: State
    margin: float | None

    @classmethod
    def of(cls, check: Check, bound: Expectation, name: str, value: Value, baseline: float | None) -> _Judged:
        state = HOLDS if bound.judge(value, baseline) else BROKEN
        if value == "" and bound.word != "":  # nothing is there: `!= Failed` would hold of that
            state = NO_DATA
        if isinstance(value, float) and not math.isfinite(value):
            # An infinite value is a division by zero as often as a measurement: alarm, but never comfort.
            comfort = BROKEN if isinstance(check, AbortIf) else HOLDS
            state = NO_DATA if math.isnan(value) or state == comfort else state
        finite = number(value)
        return cls(name, value, state, None if finite is None else bound.margin(finite, baseline))

    def rank(self) -> tuple[int, float]:
        return _WORST_FIRST[self.state], self.margin if self.margin is not None else 0.0


def _unjudged(blank: Reading, measured: Measurement) -> Reading:
    """What can't be compared with a baseline: since there is none yet, or since it would need to be many."""
    name, value = measured.series[0]
    count = len(measured.series)
    if count > 1:
        text = f"{count} series, but a bound that is a share of the baseline needs one: aggregate them"
        return replace(blank, message=text)
    if number(value) is None:
        text = f"{value_text(value)} can't be a baseline: expected a finite number"
        return replace(blank, value=value, series=name, message=text)
    return replace(blank, state=NO_BASELINE, value=value, series=name)


def _share_of_nothing(check: Check, measured: Measurement) -> str:
    """A bound of the check that only a fall would show in, where the baseline would be 0: it is no bound.

    What watches over a rise (errors: `<= 120% of baseline`) says of 0 that none at all are allowed.
    """
    if len(measured.series) != 1 or number(measured.series[0][1]) != 0:
        return ""
    falls = ("<", "<=") if isinstance(check, AbortIf) else (">", ">=")
    bounds = (check.is_, getattr(check, "during", None))
    return next((str(b) for b in bounds if isinstance(b, Expectation) and b.relative and b.op in falls), "")


def _why_nothing(judged: _Judged) -> str:
    if judged.state != NO_DATA:
        return ""
    if judged.value != judged.value:
        return "the value is NaN: 0/0, as of a share of no traffic"
    return "the value is empty" if judged.value == "" else f"the value is {value_text(judged.value)}"


def explain(reading: Reading) -> str:
    """A reading in words."""
    where = f" for {reading.series}" if reading.series else ""
    match reading.state:
        case State.NO_DATA:
            return f"no data{where}" + (f" ({reading.message})" if reading.message else "")
        case State.PARTIAL:
            return f"known only in part ({reading.message})"
        case State.UNREACHABLE:
            return f"could not be asked ({reading.message})"
        case State.NO_BASELINE:
            return f"{value_text(reading.value, reading.expected)}{where}, and there is no baseline yet"
    verb = "is" if reading.state == HOLDS else "is not"
    return f"{value_text(reading.value, reading.expected)}{where} {verb} {reading.expected}"
