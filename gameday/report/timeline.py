"""The timeline: what happened, in order, in words; repetitions are folded so that it stays readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gameday import events as ev
from gameday.masking import mask_text
from gameday.report import wording
from gameday.report.model import Moment
from gameday.report.reading import Story
from gameday.states import Reading

FOLD = 60.0  # the same thing again within this many seconds is told once, with a count


class Teller:
    """Tells events one by one, as they come or from a log; remembers only which state each probe was in."""

    def __init__(self) -> None:
        self._probes: dict[tuple[str, str], Reading] = {}

    def __call__(self, event: ev.Event) -> Moment | None:
        """A line for the event, secrets masked; None when it is not worth one."""
        moment = _probe(event, self._probes) if isinstance(event, ev.Probed) else _moment(event)
        if moment is None:
            return None
        return replace(moment, text=mask_text(moment.text), detail=mask_text(moment.detail))


def timeline(story: Story) -> tuple[Moment, ...]:
    """Every moment worth a line."""
    tell = Teller()
    found: list[Moment] = []
    latest: dict[tuple[str, str, str], int] = {}
    for moment in filter(None, map(tell, story.ordered)):
        place = latest.get(_likeness(moment)) if moment.kind in _FOLDED else None
        if place is not None and moment.at - (found[place].last or found[place].at) < FOLD:
            found[place] = _folded(found[place], moment)
            continue
        latest[_likeness(moment)] = len(found)
        found.append(moment)
    return tuple(found)


def _likeness(m: Moment) -> tuple[str, str, str]:
    """The key by which two moments are the same: what happened, and the sort of object, not which one."""
    return m.kind, m.text, m.objects[0].split(" ")[0] if m.objects else m.detail


def _folded(first: Moment, again: Moment) -> Moment:
    objects = first.objects + tuple(o for o in again.objects if o not in first.objects)
    tone = "warn" if "warn" in (first.tone, again.tone) else first.tone
    return replace(first, count=first.count + again.count, last=again.at, objects=objects, tone=tone)


_FOLDED = {"kubernetes", "condition", "warning", "gap"}


def _probe(event: ev.Probed, known: dict[tuple[str, str], Reading]) -> Moment | None:
    """A probe's change of state; what is asked again with the same answer is not told."""
    key, aborts = (event.probe, event.purpose), event.purpose == "abort"
    state = event.counted
    before, known[key] = known.get(key, Reading.BROKEN if aborts else Reading.HOLDS), state
    if before == state:
        return None
    detail = "; ".join(filter(None, (event.series, event.message if state != Reading.HOLDS else "")))
    tone = {Reading.HOLDS: "good", Reading.IGNORED: "plain", Reading.BROKEN: "bad"}.get(state, "warn")
    if aborts:
        tone = {"good": "bad", "bad": "good"}.get(tone, tone)
    return Moment(event.at, "probe", tone, wording.probe_line(event), detail, event.seq)


def _moment(event: ev.Event) -> Moment | None:
    for kind, tell in _TELLERS:
        if isinstance(event, kind):
            told = tell(event)
            if told is None:
                return None
            objects = (event.object,) if isinstance(event, ev.ObjectEvent | ev.ConditionChanged) else ()
            count = max(1, event.count) if isinstance(event, ev.ObjectEvent) else 1
            return Moment(event.at, *told, seq=event.seq, count=count, objects=objects)
    return None


Told = tuple[str, str, str, str] | None  # kind, tone, text, detail


def _fault(e: ev.Fault) -> Told:
    tone = {"in": "bad", "injecting": "bad", "failed": "warn", "out": "good"}.get(e.state, "plain")
    text = f"Fault {e.step} {e.name} {wording.FAULT_STATES.get(e.state, e.state)}"
    text += f", ended by {e.by}" if e.by else ""
    detail = [wording.join(e.targets, 8)] if e.targets and e.state in ("injecting", "in") else []
    return (
        "fault",
        tone,
        text,
        "; ".join([*detail, *map(str, e.evidence), *([e.message] if e.message else [])]),
    )


def _step(e: ev.StepStarted | ev.StepFinished) -> Told:
    if isinstance(e, ev.StepStarted):
        return "step", "plain", f"Step {e.step} {e.name} began", ""
    return (
        "step",
        "plain" if e.outcome == "done" else "warn",
        f"Step {e.step} {e.name} {e.outcome}",
        e.message,
    )


def _preflight(e: ev.Preflight) -> Told:
    if e.level == "ok":
        return None
    return "warning", "bad" if e.level == "refused" else "warn", f"Preflight {e.check}: {e.message}", e.hint


def _alert(e: ev.Alert) -> Told:
    tone = {"firing": "bad", "resolved": "good"}.get(e.state, "plain")
    return (
        "alert",
        tone,
        f"Alert {e.alert} {e.state}",
        wording.labels(e.labels, ("__name__", "alertname")) if e.labels else "",
    )


def _kubernetes(e: ev.ObjectEvent) -> Told:
    return "kubernetes", "warn" if e.level == "Warning" else "plain", e.reason, e.message


def _condition(e: ev.ConditionChanged) -> Told:
    healthy = (e.status == "True") == (
        e.condition in ("Ready", "Available", "Progressing", "PodScheduled", "Initialized")
    )
    tone = "plain" if healthy or e.status == "Unknown" else "warn"
    why = f" ({e.reason})" if e.reason else ""
    return "condition", tone, f"{e.condition} is {e.status}{why}", e.message


TOLD = ("kept", "failed", "accepted")  # states of a change that the timeline shows


def _change(e: ev.Change) -> Told:
    return ("change", "warn", f"{e.object} {e.state}", e.message) if e.state in TOLD else None


def _gap(e: ev.Gap) -> Told:
    what = "Samples only in part" if e.partial else "No samples"
    return "gap", "warn", f"{what} for {wording.duration(e.end - e.start)}", e.reason


_DONE = {"begun": "plain", "restored": "good"}

_TELLERS: list[tuple[type[ev.Event] | tuple[type[ev.Event], ...], Callable[..., Told]]] = [
    (ev.Fault, _fault),
    ((ev.StepStarted, ev.StepFinished), _step),
    (ev.Alert, _alert),
    (ev.ObjectEvent, _kubernetes),
    (ev.ConditionChanged, _condition),
    (ev.Change, _change),
    (ev.Gap, _gap),
    (ev.Preflight, _preflight),
    (
        ev.Restoration,
        lambda e: ("change", _DONE.get(e.state, "warn"), f"Restoration {e.state}, by {e.by}", e.message),
    ),
    (ev.Phase, lambda e: ("phase", "plain", f"Phase {e.phase}", "") if e.phase != "done" else None),
    (ev.Note, lambda e: ("note", "plain", f"{e.author}: {e.text}", "")),
    (ev.Abort, lambda e: ("abort", "bad", f"Abort by {e.by}", e.reason)),
    (ev.Warn, lambda e: ("warning", "warn", f"{e.source}: {e.message}", "")),
    (
        ev.Verdict,
        lambda e: ("phase", "good" if e.verdict == "passed" else "bad", f"Verdict: {e.verdict}", e.reason),
    ),
]


def shortened(moments: tuple[Moment, ...], most: int) -> Iterator[Moment | int]:
    """At most about `most` lines: what the cluster said is left out first, and counted where it stood."""
    chatty = ("kubernetes", "condition")
    room = max(0, most - sum(m.kind not in chatty for m in moments))
    left_out = 0
    for rank, moment in _ranked(moments, chatty):
        if rank >= room:
            left_out += 1
            continue
        if left_out:
            yield left_out
            left_out = 0
        yield moment
    if left_out:
        yield left_out


def _ranked(moments: tuple[Moment, ...], chatty: tuple[str, ...]) -> Iterator[tuple[int, Moment]]:
    """Each moment with its place in the queue for room: -1 always stays, warnings come before the rest."""
    queue = sorted((m for m in moments if m.kind in chatty), key=lambda m: m.tone != "warn")
    place = {id(m): i for i, m in enumerate(queue)}
    for m in moments:
        yield place.get(id(m), -1), m
