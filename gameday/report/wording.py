"""How figures, times and events are said in words, the same in every output and in the live views."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from gameday import events as ev
from gameday.experiment.figures import figure as figure
from gameday.experiment.figures import scale_for as scale_for
from gameday.experiment.figures import unit_of as unit_of
from gameday.experiment.text import plural as plural
from gameday.states import Reading

VERDICTS = {
    "passed": ("Passed", "the steady state held within its bounds"),
    "deviated": ("Deviated", "the steady state did not hold as stated"),
    "aborted": ("Aborted", "the run was stopped before its end"),
    "refused": ("Refused", "the method was not begun"),
    "not-restored": ("Not restored", "something is not as it was before the run"),
    "defect": ("Defect", "gameday itself failed"),
    "interrupted": ("Interrupted", "the run did not reach its end"),
}


def percent(fraction: float | None) -> str:
    """A margin: `+12%` inside the bound, `-30%` beyond it."""
    if fraction is None or not math.isfinite(fraction):
        return "—"
    if abs(fraction) > 9.99:
        return "> 999%" if fraction > 0 else "< −999%"
    return f"{fraction * 100:+.0f}%".replace("-", "−")


def duration(seconds: float | None) -> str:
    """`840 ms`, `12.3 s`, `2 min 05 s`, `1 h 04 min`."""
    if seconds is None:
        return "—"
    if seconds < 0:
        return "−" + duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """Time since the start of the run: `+2:05`, `+1:04:09`."""
    sign, whole = ("−" if seconds <= -0.5 else "+"), abs(round(seconds))
    hours, rest = divmod(whole, 3600)
    return (
        f"{sign}{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{sign}{rest // 60}:{rest % 60:02d}"
    )


def wall(at: float, date: bool = False) -> str:
    """Wall clock, always UTC: `14:03:11 UTC`, or with the date before it."""
    if not 0 < at < 32503680000:
        return "—"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC" if date else "%H:%M:%S UTC")


def labels(pairs: Mapping[str, object], skip: tuple[str, ...] = ("__name__",)) -> str:
    """A series' labels as PromQL writes them, without the metric's name."""
    inner = ", ".join(f'{k}="{v}"' for k, v in sorted(pairs.items()) if k not in skip)
    return f"{{{inner}}}" if inner else str(pairs.get("__name__", "")) or "value"


def join(words: list[str] | tuple[str, ...], limit: int = 6) -> str:
    """`a, b and c`; what is beyond the limit is counted."""
    shown = list(words[:limit])
    if len(words) > limit:
        return ", ".join(shown) + f" and {len(words) - limit} more"
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1] if shown else "none"


FAULT_STATES = {
    "injecting": "going in",
    "in": "in",
    "undoing": "being undone",
    "out": "out",
    "failed": "failed",
}
PROBE_STATES: dict[str, str] = {
    Reading.HOLDS: "holds",
    Reading.BROKEN: "broken",
    Reading.NO_DATA: "no data",
    Reading.PARTIAL: "only in part",
    Reading.UNREACHABLE: "could not ask",
    Reading.NO_BASELINE: "no baseline yet",
}

ABORT_STATES = {**PROBE_STATES, Reading.HOLDS: "is met", Reading.BROKEN: "is not met any more"}


def probe_line(event: ev.Probed) -> str:
    """A probe's state in words; who calls says when it changed."""
    if event.purpose == "abort":
        text = f"Abort condition {event.probe} {ABORT_STATES.get(event.state, event.state)}"
    else:
        text = f"Probe {event.probe} {PROBE_STATES.get(event.state, event.state)}"
    if event.counted == Reading.IGNORED:
        text += " (not judged)"
    if event.value is not None:
        text += f": {figure(event.value, unit_of(event.expected))}"
    if event.expected and (event.state == Reading.BROKEN) != (event.purpose == "abort"):
        text += (
            f", expected {event.expected}"
            if event.state == Reading.BROKEN
            else f", which is {event.expected}"
        )
    return text
