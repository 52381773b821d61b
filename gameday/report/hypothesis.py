"""The hypothesis table: each steady-state probe before, at its worst during, and after the faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from gameday import events as ev
from gameday import states
from gameday.experiment.expect import margin
from gameday.experiment.model import Probe
from gameday.masking import mask_text
from gameday.report import wording
from gameday.report.measures import seconds
from gameday.report.model import FaultWindow, Hypothesis, Limit, Query, Reading
from gameday.report.reading import Story
from gameday.report.tracks import in_force

_AGAINST = (states.Reading.BROKEN, states.Reading.NO_DATA, states.Reading.PARTIAL)  # counts as not held
_BADNESS = {states.Reading.BROKEN: 2, states.Reading.IGNORED: 1.5}  # 1 for what holds, 3 for what is not seen
Intervals = tuple[tuple[float, float], ...]
# The keys of every probe, as in the file or in Python; the one besides them names its kind.
_OF_PROBE = {key for name, field in Probe.model_fields.items() for key in (name, field.alias)}


def table(
    story: Story, faults: tuple[FaultWindow, ...], queries: tuple[Query, ...]
) -> tuple[Hypothesis, ...]:
    """One row per steady-state probe of the experiment, and of the log where the experiment is missing."""
    asked: dict[str, list[ev.Probed]] = {}
    for probed in story.all(ev.Probed):
        if probed.purpose == "steady-state":
            asked.setdefault(probed.probe, []).append(probed)
    stated = {str(p.get("name", "")): p for p in story.listed("steadyState")}
    windows = in_force(faults, story.end)
    curves = {q.name: q for q in queries if q.purpose == "steady-state"}
    return tuple(
        _row(name, stated.get(name, {}), asked.get(name, []), curves.get(name), windows)
        for name in dict.fromkeys([*stated, *asked])
    )


def _row(
    name: str,
    stated: Mapping[str, Any],
    asked: list[ev.Probed],
    curve: Query | None,
    windows: Intervals,
) -> Hypothesis:
    """Judged as the engine judges: while a fault is in, and at either end of the run.

    What is broken while the system recovers is told by the recovery; a probe that could not be asked says
    nothing about the system.
    """
    first, last = (windows[0][0], windows[-1][1]) if windows else (float("inf"), float("inf"))
    before = [p for p in asked if p.at <= first and not p.during]
    during = [p for p in asked if p.during]
    measured = max((p.measured for p in asked), default=0)
    after = [p for p in asked if p.at >= last and not p.during]
    judged = [p for p in asked if not p.ignored]
    ends = [p for p in (*before[-1:], *after[-1:]) if p.state != states.Reading.HOLDS]
    broken = [p for p in judged if p.counted in _AGAINST and (p.during or p in ends)]
    within = seconds(stated.get("within")) or 0.0
    unseen = bool(windows and stated) and stated.get("during") != "ignore" and not (measured or during)
    expected = str(stated.get("is", "")) or next((p.expected for p in asked if not p.during), "")
    return Hypothesis(
        probe=name,
        kind=next((k for k in stated if k not in _OF_PROBE), ""),
        expected=expected,
        during=str(stated.get("during") or ""),
        within=within,
        mended_after=_mended_after(asked) if within else None,
        limits=_limits(asked, expected),
        unit=wording.unit_of(expected),
        before=_reading(before[-1]) if before else None,
        worst=_worst([_reading(p) for p in during] + list(_sampled(stated, curve, windows, during))),
        after=_reading(after[-1]) if after else None,
        holds=None if not judged or (unseen and not broken) else not broken,
        measured=max(measured, len(during)),
        broken_for=_broken_for(asked, broken),
        broke=_worst([_reading(p) for p in broken]),
        seqs=tuple(p.seq for p in broken),
    )


def inside(at: float, windows: Intervals) -> bool:
    """Whether a moment falls into one of the intervals."""
    return any(start <= at <= end for start, end in windows)


def _reading(p: ev.Probed) -> Reading:
    return Reading(p.value, p.counted, p.at, p.seq, p.margin, mask_text(p.series), p.expected)


def _worst(readings: list[Reading]) -> Reading | None:
    """Broken before holding; among the same the smallest margin, and the first of equals."""

    def badness(r: Reading) -> tuple[float, float]:
        rank = _BADNESS.get(r.state, 1) if r.state.seen else 3
        return -rank, r.margin if r.margin is not None else 1e9

    return min(readings, key=badness, default=None)


def _limits(asked: list[ev.Probed], expected: str) -> str:
    """The value that a bound relative to the baseline came to."""
    found = next((p for p in reversed(asked) if p.baseline is not None and not p.during), None)
    if found is None or "baseline" not in expected:
        return ""
    sides = [("≥ ", found.low), ("≤ ", found.high)]
    return " and ".join(sign + wording.figure(side) for sign, side in sides if side is not None)


def _broken_for(asked: list[ev.Probed], broken: list[ev.Probed]) -> float:
    return sum(b.at - a.at for a, b in pairwise(asked) if a in broken)


def _mended_after(asked: list[ev.Probed]) -> float | None:
    """The longest time that it was broken, within what it may be, until it held again with the fault in."""
    spells, since = [], None
    for p in asked:
        if since is not None and p.state == states.Reading.HOLDS:
            spells.append(p.at - since)
        broken = p.during and p.ignored and p.state != states.Reading.HOLDS
        since = (since or p.at) if broken else None
    return max(spells, default=None)


def _sampled(
    stated: Mapping[str, Any], curve: Query | None, windows: Intervals, during: list[ev.Probed]
) -> Iterator[Reading]:
    """The worst sample of each series under the fault: probes are asked more rarely than the curve is drawn.

    Only where the bound is numeric and must hold for every series, all the time.
    """
    bounds = next((p for p in reversed(during) if p.low is not None or p.high is not None), None)
    if (
        curve is None
        or bounds is None
        or bounds.ignored
        or stated.get("within")
        or stated.get("match", "all") != "all"
    ):
        return
    for series in curve.series:
        found = [
            (m, value, at)
            for at, value in zip(series.times, series.values, strict=True)
            if value == value
            and inside(at, windows)
            and (m := margin(value, bounds.low, bounds.high)) is not None
        ]
        if found:
            m, value, at = min(found)
            yield Reading(
                value,
                states.Reading.HOLDS,
                at,
                bounds.seq,
                m,
                wording.labels(series.labels),
                bounds.expected,
                True,
            )


def limits_over_time(name: str, story: Story, faults: tuple[FaultWindow, ...]) -> tuple[Limit, ...]:
    """The bounds of a probe as drawn: the looser one exactly while a fault was in force."""
    asked = [p for p in story.all(ev.Probed) if p.probe == name and p.purpose == "steady-state"]
    calm = next((p for p in reversed(asked) if not p.during), None)
    loose = next((p for p in reversed(asked) if p.during), calm)
    marks = [story.start]
    for start, end in in_force(faults, story.end):
        marks += [start, end]
    found: list[Limit] = []
    for i, (start, end) in enumerate(zip(marks, [*marks[1:], story.end], strict=True)):
        p = loose if i % 2 else calm
        if not p or end <= start or p.ignored or (p.low is None and p.high is None):
            continue
        if found and found[-1].end == start and (found[-1].low, found[-1].high) == (p.low, p.high):
            found[-1] = replace(found[-1], end=end)
        else:
            found.append(Limit(start, end, p.low, p.high))
    return tuple(found)
