"""Findings: each rule is one small function that reads the retrospective and states what it found.

Rules are deterministic; every finding carries its evidence and the lines of the log it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gameday import events as ev
from gameday import states
from gameday.masking import mask_text
from gameday.report import wording
from gameday.report.drift import drift_measured
from gameday.report.model import Finding, Retrospective
from gameday.report.reactions import nobody_reacted
from gameday.report.reading import Story
from gameday.report.wording import clock, duration, figure, join, percent, plural

Rule = Callable[[Retrospective, Story], Iterator[Finding]]
AROUND = 5.0  # seconds before the end of a fault in which Kubernetes may have said why
CLOSE = 0.10  # a margin below this is a close call
MOST_SEQS = 20  # lines of the log that a finding names
SEVERITIES = ("serious", "warning", "notice")


def findings(retro: Retrospective, story: Story) -> tuple[Finding, ...]:
    """Everything the rules found, the most serious first."""
    found = [finding for rule in RULES for finding in rule(retro, story)]
    return tuple(sorted(found, key=lambda f: SEVERITIES.index(f.severity)))


def not_restored(r: Retrospective, _: Story) -> Iterator[Finding]:
    for t in r.touched:
        if t.state == "left":
            title = f"{t.object} is not as it was before the run"
            evidence = (
                *t.changes,
                t.message or ("the audit found it changed" if t.audited else "its undo is not in the log"),
            )
            yield Finding(
                "not-restored",
                "serious",
                title,
                evidence,
                t.seqs,
                f"Run `gameday recover --run {r.run.id}`, then look at {t.object}",
            )


def refused(r: Retrospective, story: Story) -> Iterator[Finding]:
    """The checks that kept the run from beginning, each with its advice."""
    for check in story.all(ev.Preflight) if r.verdict == "refused" else ():
        if check.level == "refused":
            title, hint = mask_text(f"{check.check}: {check.message}"), mask_text(check.hint)
            yield Finding("refused", "warning", title, (hint,) if hint else (), (check.seq,), hint)


def taken_over(r: Retrospective, _: Story) -> Iterator[Finding]:
    for t in r.touched:
        if t.state == "accepted":
            yield Finding(
                "accepted",
                "warning",
                f"{t.object} was not put back: a person answers for it",
                (*t.changes, t.message),
                t.seqs,
                f"See that somebody brings {t.object} back",
            )


def kept_by_others(r: Retrospective, _: Story) -> Iterator[Finding]:
    for t in r.touched:
        if t.state == "kept":
            title = f"{t.object} was changed by someone else during the run, and was left so"
            yield Finding(
                "kept",
                "warning",
                title,
                (t.message or "see the ledger",),
                t.seqs,
                f"Find out who changed {t.object} during the run",
            )


def steady_state_broken(r: Retrospective, _: Story) -> Iterator[Finding]:
    for h in r.hypothesis:
        if h.broke is None:
            continue
        expected = h.broke.expected or h.expected or "a value"
        title = f"“{h.probe}” did not hold: {figure(h.broke.value, h.unit)} where {expected} was expected"
        if not h.broke.state.seen:
            title = f"“{h.probe}” could not be told: {wording.PROBE_STATES[h.broke.state]}"
        evidence = [f"outside its bound for {duration(h.broken_for)}"] if h.broken_for else []
        at = f"worst at {clock(h.broke.at - r.run.started)}"
        evidence += [at + (f", margin {percent(h.broke.margin)}" if h.broke.margin is not None else "")]
        evidence += [f"worst series {h.broke.series}"] if h.broke.series else []
        action = f"Decide whether “{h.probe}” must hold under this fault; mend the system or the bound"
        if not h.broke.state.seen:
            evidence = [f"for {duration(h.broken_for)}"] if h.broken_for else []
            action = f"Find out why “{h.probe}” could not be told"
        yield Finding("steady-state", "serious", title, tuple(evidence), h.seqs[:MOST_SEQS], action)


def alert_missing(r: Retrospective, _: Story) -> Iterator[Finding]:
    for d in r.detection:
        within = duration(d.within)
        if d.outcome == states.Detection.NEVER:
            yield Finding(
                "alert-missing",
                "serious",
                f"Expected alert {d.alert} never fired",
                (f"expected within {within} of the fault",),
                d.seqs,
                f"Mend the rule of {d.alert}: this fault would have gone unseen",
            )
        elif d.outcome == states.Detection.LATE:
            yield Finding(
                "alert-late",
                "warning",
                f"Alert {d.alert} fired {duration(d.took)} after the fault, later than {within}",
                (f"counted from {d.fault} going in",),
                d.seqs,
                f"Shorten the way to {d.alert}, or its objective is wrong",
            )
        elif d.outcome == states.Detection.ALREADY_FIRING:
            yield Finding(
                "alert-early",
                "warning",
                f"Alert {d.alert} was firing before the fault went in, so it proves nothing",
                (),
                d.seqs,
                f"Clear {d.alert} and run again",
            )


def alert_unexpected(r: Retrospective, _: Story) -> Iterator[Finding]:
    expected = {d.alert for d in r.detection}
    start = min((f.start for f in r.faults if f.start is not None), default=None)
    others: dict[str, list[tuple[float, int]]] = {}
    for track in r.alerts if start is not None else ():
        for s in track.spans:
            if track.name not in expected and s.state == "firing" and start is not None and s.start >= start:
                others.setdefault(track.name, []).append((s.start, s.seq))
    for name, fired in others.items():
        evidence = (f"first at {clock(fired[0][0] - r.run.started)}, {plural(len(fired), 'time')}",)
        yield Finding(
            "alert-unexpected",
            "notice",
            f"Alert {name} fired, which nobody expected",
            evidence,
            tuple(s for _, s in fired[:MOST_SEQS]),
            f"Add {name} to expectAlerts, or find out why it fired",
        )


def recovery_slow(r: Retrospective, _: Story) -> Iterator[Finding]:
    for x in r.recovery:
        if x.ok is False:
            took = f"took {duration(x.took)}" if x.took is not None else "did not come"
            note = (x.note,) if x.note else ()
            yield Finding(
                "recovery",
                "serious",
                f"Recovery after {x.fault} {took}; the objective is {duration(x.within)}",
                note,
                x.seqs,
                f"Find what held recovery up after {x.fault}",
            )


def probe_blind(r: Retrospective, _: Story) -> Iterator[Finding]:
    for t in r.probes:
        blind = [s for s in t.spans if not states.Reading.recorded(s.state).seen]
        if blind:
            total = sum(s.end - s.start for s in blind)
            how = join([wording.PROBE_STATES[s] for s in dict.fromkeys(s.state for s in blind)])
            yield Finding(
                "probe-blind",
                "warning",
                f"Probe “{t.name}” was blind for {duration(total)} ({how})",
                (),
                tuple(s.seq for s in blind[:MOST_SEQS]),
                f"See why “{t.name}” could not be asked",
            )


def budget_blocked(r: Retrospective, story: Story) -> Iterator[Finding]:
    """Drains that waited: the progress and fault messages name the budget (PodDisruptionBudget, 429)."""
    told = [(e.seq, e.message) for e in story.all(ev.Progress)]
    told += [(e.seq, e.message) for e in story.all(ev.Fault)]
    blocked = [(seq, m) for seq, m in told if "budget" in m.lower()]
    if blocked:
        messages = tuple(dict.fromkeys(mask_text(m) for _, m in blocked))
        yield Finding(
            "budget",
            "notice",
            "A PodDisruptionBudget held evictions back",
            messages[:8],
            tuple(s for s, _ in sorted(blocked)[:MOST_SEQS]),
            "Check that the budget leaves room for the loss of a node",
        )


def close_call(r: Retrospective, _: Story) -> Iterator[Finding]:
    for h in r.hypothesis:
        w = h.worst
        if h.holds and w and w.margin is not None and w.margin < CLOSE and w.state == states.Reading.HOLDS:
            crossed = w.margin < 0
            title = f"Close call: “{h.probe}” came to {figure(w.value, h.unit)}, margin {percent(w.margin)}"
            if crossed:
                title = f"“{h.probe}” crossed its bound between two probes: {figure(w.value, h.unit)}"
            where = (
                f"at {clock(w.at - r.run.started)}"
                + (f", {w.series}" if w.series else "")
                + (", from the sampled curve" if w.sampled else "")
            )
            yield Finding(
                "close-call",
                "warning" if crossed else "notice",
                title,
                (where,),
                (w.seq,),
                f"Decide how much margin “{h.probe}” should have",
            )


def samples_missing(r: Retrospective, _: Story) -> Iterator[Finding]:
    holes = [(h, q) for q in r.queries for h in q.holes]
    if holes:
        longest = max(h.end - h.start for h, _ in holes)
        names = list(dict.fromkeys(q.name or q.expression for _, q in holes))
        reasons = tuple(dict.fromkeys(h.reason for h, _ in holes if h.reason))[:6]
        title = (
            f"Samples are missing in {plural(len(names), 'query', 'queries')}, up to {duration(longest)} long"
        )
        yield Finding(
            "gap",
            "notice",
            title,
            (join(names, 5), *reasons),
            tuple(h.seq for h, _ in holes if h.seq)[:MOST_SEQS],
        )


def kubernetes_warnings(r: Retrospective, story: Story) -> Iterator[Finding]:
    seen: dict[str, list[ev.ObjectEvent]] = {}
    for e in story.all(ev.ObjectEvent):
        if e.level == "Warning":
            seen.setdefault(e.reason, []).append(e)
    for reason, found in seen.items():
        objects = list(dict.fromkeys(e.object for e in found))
        times = plural(sum(max(1, e.count) for e in found), "time")
        title = f"Kubernetes warned “{reason}” {times} about {join(objects, 2)}"
        yield Finding(
            "kubernetes-warning",
            "notice",
            title,
            (mask_text(found[0].message),),
            tuple(e.seq for e in found[:MOST_SEQS]),
        )


def fault_failed(r: Retrospective, _: Story) -> Iterator[Finding]:
    for f in r.faults:
        if f.failed:
            yield Finding(
                "fault-failed",
                "warning",
                f"Fault {f.label} failed",
                (f.message,) if f.message else (),
                f.seqs[-1:],
                f"Mend {f.label}; what it should have shown is not known",
            )


def ended_by_others(r: Retrospective, story: Story) -> Iterator[Finding]:
    """Faults that somebody else ended while the run held them, with what Kubernetes said just then."""
    for f in r.faults:
        if not f.by:
            continue
        start, end = (
            f.in_ if f.in_ is not None else f.injecting,
            f.undoing if f.undoing is not None else f.out,
        )
        after = f" {duration(end - start)} after it was in" if start is not None and end is not None else ""
        said = [e for e in story.all(ev.ObjectEvent) if end is not None and end - AROUND <= e.at <= end]
        told = [f"{e.object}: {e.reason}: {mask_text(e.message)}" for e in said if e.object in f.targets]
        own = f.by == ev.THE_PLATFORM
        yield Finding(
            "ended-by-others",
            "notice" if own else "warning",
            f"Fault {f.label} was ended by {f.by}{after}",
            tuple(filter(None, (f.message, *told[-3:]))),
            f.seqs[-2:],
            "" if own else f"Hold {f.by} off, or set `holdWhenEnded` in step {f.step} if that is to be shown",
        )


def things_to_know(r: Retrospective, story: Story) -> Iterator[Finding]:
    """Warnings of gameday itself, and lines of the log that could not be read."""
    seen: dict[str, list[ev.Warn]] = {}
    for w in story.all(ev.Warn):
        seen.setdefault(w.source, []).append(w)
    for source, found in seen.items():
        messages = tuple(dict.fromkeys(mask_text(w.message) for w in found))
        yield Finding(
            "warning",
            "notice",
            f"{source}: {plural(len(found), 'warning')}",
            messages[:5],
            tuple(w.seq for w in found[:MOST_SEQS]),
        )
    if r.run.unreadable:
        yield Finding(
            "log",
            "warning",
            f"{plural(r.run.unreadable, 'line')} of the log could not be read",
            ("events.jsonl holds lines that are no JSON",),
        )


RULES: list[Rule] = [
    refused,
    not_restored,
    taken_over,
    steady_state_broken,
    alert_missing,
    nobody_reacted,
    recovery_slow,
    kept_by_others,
    fault_failed,
    ended_by_others,
    probe_blind,
    alert_unexpected,
    close_call,
    budget_blocked,
    drift_measured,
    samples_missing,
    kubernetes_warnings,
    things_to_know,
]
