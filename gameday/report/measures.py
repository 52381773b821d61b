"""The figures a game day is held for: time to detect, time to recover, and what was put back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from gameday import events as ev
from gameday import states
from gameday.detection import Expected, Spell, outcome
from gameday.experiment.quantity import parse_duration
from gameday.masking import mask_text
from gameday.report.model import Detection, FaultWindow, Recovery, Touched, Track
from gameday.report.reading import Story
from gameday.report.wording import join


def seconds(value: Any, default: float | None = None) -> float | None:
    """A duration of the experiment's document (`2m` or a number) in seconds; `default` when it is none.

    The document comes from a log, which somebody may have written by hand.
    """
    try:
        return parse_duration(value)
    except ValueError:
        return default


def detection(
    story: Story, faults: tuple[FaultWindow, ...], alerts: tuple[Track, ...]
) -> tuple[Detection, ...]:
    """One line per expected alert, counted from the first fault's injection as the verdict counts it."""
    return tuple(_detected(story, e, faults, alerts) for e in story.listed("expectAlerts"))


def _detected(
    story: Story, expected: dict[str, Any], faults: tuple[FaultWindow, ...], alerts: tuple[Track, ...]
) -> Detection:
    wanted = Expected(
        str(expected.get("alert", "")), _labels(expected.get("labels")), seconds(expected.get("within"))
    )
    told = partial(Detection, wanted.alert, wanted.labels, wanted.within)
    injected = min((f for f in faults if f.start is not None), key=lambda f: f.start or 0.0, default=None)
    if injected is None:
        return told(states.Detection.UNKNOWN)
    began, seqs = injected.start or 0.0, injected.seqs[:1]
    spells = [
        Spell(s.start, s.end, s.seq)
        for track in alerts
        if wanted.means(track.name, track.labels)
        for s in track.spans
        if s.state == "firing"
    ]
    found, spell = outcome(wanted, began, spells)
    if spell is not None and found == states.Detection.ALREADY_FIRING:
        return told(found, None, injected.label, (spell.seq,))
    if spell is not None:
        return told(found, spell.start - began, injected.label, (*seqs, spell.seq))
    undecided = story.last(ev.Verdict) is None and story.end - began < (wanted.within or 0.0)
    return told(states.Detection.UNKNOWN if undecided else found, seqs=seqs)


def _labels(told: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def recovery(
    story: Story, faults: tuple[FaultWindow, ...], alerts: tuple[Track, ...], detections: Iterable[Detection]
) -> tuple[Recovery, ...]:
    """One line per fault that went in."""
    within = seconds((story.spec.get("recovery") or {}).get("within"), 300.0)
    expected = {d.alert for d in detections}
    found = [(f, _recovered(story, f, alerts, expected, within)) for f in faults if f.start is not None]
    return tuple(_overlapped(f, r, faults) for f, r in found)


def _overlapped(fault: FaultWindow, r: Recovery, faults: tuple[FaultWindow, ...]) -> Recovery:
    """Says when the time holds another fault too, so that nobody blames one for both."""
    if fault.out is None or not r.took:
        return r
    others = [f.label for f in faults if f is not fault and (f.start or 0) < fault.out + r.took]
    meanwhile = [f.label for f in faults if f.label in others and (f.out is None or f.out > fault.out)]
    return replace(r, note=f"{join(meanwhile)} was in force meanwhile") if meanwhile else r


def _recovered(
    story: Story, fault: FaultWindow, alerts: tuple[Track, ...], expected: set[str], within: float | None
) -> Recovery:
    seen, by, seq = _first_sign(story, fault, alerts, expected)
    seqs = tuple(s for s in (fault.seqs[-1], seq) if s)
    if fault.out is None:
        note = (
            "the log ends while it is in force"
            if fault.state != "failed"
            else "it never came out by evidence"
        )
        return Recovery(fault.label, seen, by, None, within, None, note, seqs)
    back, seq = _steady_again(story, fault.out)
    if back is None:
        late = within is not None and story.end - fault.out > within
        return Recovery(fault.label, seen, by, None, within, False if late else None, "not seen back", seqs)
    took = back - fault.out
    return Recovery(fault.label, seen, by, took, within, within is None or took <= within, "", (*seqs, seq))


def _first_sign(
    story: Story, fault: FaultWindow, alerts: tuple[Track, ...], expected: set[str]
) -> tuple[float | None, str, int]:
    """The first thing that could have told a person: a broken probe or an expected alert, while it was in."""
    start, end = fault.start or 0.0, fault.out if fault.out is not None else story.end
    signs = [
        (p.at, f"probe {p.probe}", p.seq)
        for p in story.all(ev.Probed)
        if p.purpose == "steady-state" and p.state == states.Reading.BROKEN and start <= p.at <= end
    ]
    signs += [
        (s.start, f"alert {t.name}", s.seq)
        for t in alerts
        if t.name in expected
        for s in t.spans
        if s.state == "firing" and start <= s.start <= end
    ]
    at, by, seq = min(signs, default=(None, "", 0))
    return (at - start if at is not None else None), by, seq


def _steady_again(story: Story, out: float) -> tuple[float | None, int]:
    """The first moment from `out` on at which every steady-state probe holds by its own bound."""
    probes = [p for p in story.all(ev.Probed) if p.purpose == "steady-state"]
    state: dict[str, str] = {}
    for p in probes:
        if p.at <= out:
            state[p.probe] = p.state
    later = [p for p in probes if p.at > out and not p.during]
    pending = set(state) | {p.probe for p in later}
    for p in later:  # what held under a looser bound has still to show that it holds under its own
        if p.probe in pending and p.state != states.Reading.HOLDS:
            state[p.probe] = p.state
        pending.discard(p.probe)
    if pending or not later:
        return None, 0
    if all(s == states.Reading.HOLDS for s in state.values()):
        return out, later[0].seq
    for p in later:
        state[p.probe] = p.state
        if all(s == states.Reading.HOLDS for s in state.values()):
            return p.at, p.seq
    return None, 0


def touched(story: Story) -> tuple[Touched, ...]:
    """Every object that was changed or audited, in the order of its first change."""
    changes: dict[str, dict[int, list[ev.Change]]] = {}
    for c in story.all(ev.Change):
        if c.state == "not-made":
            changes.get(c.object, {}).pop(c.entry, None)
            continue
        changes.setdefault(c.object, {}).setdefault(c.entry, []).append(c)
    audits = {a.object: a for a in story.all(ev.Audited)}
    found = (
        _touched(name, changes.get(name, {}), audits.get(name))
        for name in dict.fromkeys([*changes, *audits])
        if changes.get(name) or name in audits
    )
    ended = [_ended(e) for e in story.all(ev.Ended) if e.object not in changes and e.object not in audits]
    done = story.restoration
    if done is None or done.state != "restored":
        return (*found, *ended)
    return (*(_put_back(t, done) if t.state in ("left", "unknown") else t for t in found), *ended)


def _ended(e: ev.Ended) -> Touched:
    """What no change of ours names, and is gone all the same: a pod that Chaos Mesh killed, say."""
    what = f"{e.done} {e.count} times" if e.count > 1 else e.done
    return Touched(
        e.object, (), (what,) if what else (), "irreversible", True, mask_text(e.message), (e.seq,)
    )


def _put_back(t: Touched, done: ev.Restoration) -> Touched:
    """What the run left, by the word of who restored it: of that one's changes the log may hold nothing."""
    return replace(t, state="restored", message=f"put back by {mask_text(done.by)}", seqs=(*t.seqs, done.seq))


_ORDER = ("left", "accepted", "kept", "irreversible", "restored")


def _touched(name: str, entries: dict[int, list[ev.Change]], audit: ev.Audited | None) -> Touched:
    last = [history[-1] for history in entries.values()]
    words = {states.Change.recorded(c.state).audit for c in last}
    state = audit.state if audit else next((s for s in _ORDER if s in words), "unknown")
    message = (audit.message if audit else "") or "; ".join(
        dict.fromkeys(c.message for c in last if c.message)
    )
    every = [c for history in entries.values() for c in history]
    return Touched(
        object=name,
        steps=tuple(dict.fromkeys(c.step for c in every)),
        changes=tuple(dict.fromkeys(mask_text(c.summary) or c.operation for c in every)),
        state=state,
        audited=audit is not None,
        message=mask_text(message),
        seqs=tuple(c.seq for c in last) + ((audit.seq,) if audit else ()),
    )
