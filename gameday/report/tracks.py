"""States that lasted, from the log: phases, faults, the states of probes, firing alerts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gameday import events as ev
from gameday.masking import mask_text
from gameday.report.model import FaultWindow, Span, Track
from gameday.report.reading import Story


def phases(story: Story) -> tuple[Span, ...]:
    """The phases of the run, each to the start of the next."""
    return _chain(((p.at, p.phase, p.seq) for p in story.all(ev.Phase) if p.phase != "done"), story.end)


def _chain(changes: Iterable[tuple[float, str, int]], end: float) -> tuple[Span, ...]:
    """States that each last until the next; equal neighbours are one."""
    found: list[Span] = []
    for at, state, seq in changes:
        if found and found[-1].state == state:
            continue
        if found:
            found[-1] = replace(found[-1], end=at)
        found.append(Span(at, max(at, end), state, seq))
    return tuple(found)


def faults(story: Story) -> tuple[FaultWindow, ...]:
    """Every fault, once for each time it went in (a repeated step goes in several times)."""
    found: list[FaultWindow] = []
    current: dict[tuple[str, str], int] = {}
    for event in story.all(ev.Fault):
        key = (event.step, event.kind)
        known = current.get(key)
        if known is None or (event.state == "injecting" and found[known].state in ("out", "failed")):
            known = current[key] = len(found)
            found.append(FaultWindow(event.step, event.name, event.kind, event.state))
        found[known] = _advance(found[known], event)
    return tuple(found)


def _advance(window: FaultWindow, event: ev.Fault) -> FaultWindow:
    moment = {"injecting": "injecting", "in": "in_", "undoing": "undoing", "out": "out"}.get(event.state)
    if moment and getattr(window, moment) is None:
        window = replace(window, **{moment: event.at})  # type: ignore[arg-type]
    return replace(
        window,
        state=event.state,
        targets=tuple(event.targets) or window.targets,
        evidence=window.evidence + tuple(mask_text(str(e)) for e in event.evidence),
        message=mask_text(event.message) or window.message,
        by=mask_text(event.by) or window.by,
        failed=window.failed or event.state == "failed",
        seqs=(*window.seqs, event.seq),
    )


def in_force(windows: Iterable[FaultWindow], end: float) -> tuple[tuple[float, float], ...]:
    """When at least one fault was in force, as joined intervals; one that never came out lasts to `end`."""
    raw = sorted((w.start, w.out if w.out is not None else end) for w in windows if w.start is not None)
    joined: list[tuple[float, float]] = []
    for start, stop in raw:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


def probes(story: Story) -> tuple[Track, ...]:
    """The states of every probe and abort condition; what did not count is `ignored`."""
    seen: dict[tuple[str, str], list[tuple[float, str, int]]] = {}
    for p in story.all(ev.Probed):
        seen.setdefault((p.probe, p.purpose), []).append((p.at, p.counted, p.seq))
    return tuple(Track(name, _chain(c, story.end), {}, purpose) for (name, purpose), c in seen.items())


def alerts(story: Story) -> tuple[Track, ...]:
    """Each alert, by its labels, with the spans in which it was pending or firing."""
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, str, int]]] = {}
    for a in story.all(ev.Alert):
        seen.setdefault((a.alert, tuple(sorted(a.labels.items()))), []).append((a.at, a.state, a.seq))
    return tuple(
        Track(name, tuple(s for s in _chain(c, story.end) if s.state != "resolved"), dict(pairs), "alert")
        for (name, pairs), c in seen.items()
    )
