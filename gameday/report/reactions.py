"""Who reacted to a fault of nodes, and when: alerts, conditions, GPUd, taints, cordons, drains, Slurm.

What the run did to the node itself, as a cordon, is no reaction. What was watched and did not move is told
as well: that nobody noticed is what most game days are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gameday import events as ev
from gameday.masking import mask_text
from gameday.report.model import FaultWindow, Finding, Reaction, Retrospective, Track
from gameday.report.reading import Story

MOST = 6  # of one sort that are told for a fault
SLURM_OUT = ("drain", "down", "fail", "error")
_OWN_ROWS = ("Unschedulable", "GPUd", "Slurm")

HARDWARE = ("gpu", "nic", "vf")  # kinds of faults that somebody on the platform should notice by himself

Found = tuple[float, str, int]  # when, what, line


def reactions(story: Story, faults: Iterable[FaultWindow], alerts: Iterable[Track]) -> tuple[Reaction, ...]:
    """For each fault with nodes among its targets, what followed until it was out."""
    tracks = list(alerts)
    return tuple(r for f in faults if f.start is not None for r in _of_fault(story, f, tracks))


def nobody_reacted(r: Retrospective, _: Story) -> Iterator[Finding]:
    """The rule that finds hardware faults which nobody on the platform noticed."""
    for fault in r.faults:
        mine = [x for x in r.reactions if x.fault == fault.label]
        if fault.kind in HARDWARE and fault.in_ is not None and mine and all(x.took is None for x in mine):
            yield Finding(
                "nobody-reacted",
                "warning",
                f"Nobody reacted to {fault.label}",
                (f"watched: {', '.join(x.who.lower() for x in mine)}",),
                fault.seqs[:2],
                f"Decide who has to notice {fault.name}, and within which time",
            )


def _of_fault(story: Story, fault: FaultWindow, alerts: list[Track]) -> Iterator[Reaction]:
    nodes = _nodes(story, fault)
    start, end = fault.start or 0.0, fault.out if fault.out is not None else story.end
    if not nodes:
        return
    during = [e for e in story.all(ev.ConditionChanged) if start <= e.at <= end]
    on_nodes = [e for e in during if e.object.removeprefix("Node ") in nodes]
    watched = {e.condition for e in story.all(ev.ConditionChanged) if e.object.removeprefix("Node ") in nodes}
    ours = _ours(story, fault)
    sorts: list[tuple[str, list[Found]]] = [
        ("Alert", list(_alerts(alerts, nodes, start, end))),
        ("Node condition", list(_conditions(on_nodes))),
    ]
    if "GPUd" in watched:
        ill = [e for e in on_nodes if e.condition == "GPUd" and e.status != "Healthy"]
        sorts.append(("GPUd", [(e.at, f"{e.reason} {e.status}".strip(), e.seq) for e in ill]))
    if "spec.taints" not in ours:
        taints = [e for e in on_nodes if e.condition.startswith("Taint ") and e.status == "True"]
        told = [(e.at, f"{e.condition.removeprefix('Taint ')}={e.reason}", e.seq) for e in taints]
        sorts.append(("Taint", told))
    if "spec.unschedulable" not in ours:
        cordons = [e for e in on_nodes if e.condition == "Unschedulable" and e.status == "True"]
        sorts.append(("Cordon", [(e.at, e.object.removeprefix("Node "), e.seq) for e in cordons]))
        sorts.append(("Drain", list(_drained(during, nodes, start))))
    if "Slurm" in watched:
        out = [e for e in on_nodes if e.condition == "Slurm" and e.status.startswith(SLURM_OUT)]
        sorts.append(
            ("Slurm", [(e.at, f"{e.status} ({e.reason})" if e.reason else e.status, e.seq) for e in out])
        )
    for who, found in sorts:
        yield from _told(fault, who, found, start)


def _nodes(story: Story, fault: FaultWindow) -> set[str]:
    """The nodes that a fault was meant for; hardware named by the pod that uses it is on a node too."""
    nodes = {t.removeprefix("Node ") for t in fault.targets if t.startswith("Node ")}
    planned = story.last(ev.Planned)
    steps = planned.plan.get("steps") or () if planned and fault.kind in HARDWARE else ()
    victims = [v for s in steps if s.get("path") == fault.step for v in s.get("victims") or ()]
    return nodes | {str(v["node"]) for v in victims if v.get("node")}


def _told(fault: FaultWindow, who: str, found: list[Found], start: float) -> Iterator[Reaction]:
    if not found:
        yield Reaction(fault.label, who)
        return
    first: dict[str, Found] = {}
    for at, what, seq in sorted(found):
        first.setdefault(what, (at, what, seq))
    for at, what, seq in list(first.values())[:MOST]:
        yield Reaction(fault.label, who, mask_text(what), max(0.0, at - start), (seq,))


def _ours(story: Story, fault: FaultWindow) -> set[str]:
    """By which fields the fault itself has taken nodes out of service."""
    changes = [c for c in story.all(ev.Change) if c.step == fault.step]
    return set().union(*(c.takes_out_of_service() for c in changes))


def _alerts(alerts: list[Track], nodes: set[str], start: float, end: float) -> Iterator[Found]:
    for track in alerts:
        if nodes & set(track.labels.values()):
            for span in track.spans:
                if span.state == "firing" and start <= span.start <= end:
                    yield span.start, track.name, span.seq


def _conditions(events: Iterable[ev.ConditionChanged]) -> Iterator[Found]:
    for e in events:
        if e.condition in _OWN_ROWS or e.condition.startswith("Taint "):
            continue
        if (e.status == "True") != (e.condition == "Ready"):
            yield e.at, f"{e.condition} is {e.status}", e.seq


def _drained(events: Iterable[ev.ConditionChanged], nodes: set[str], start: float) -> Iterator[Found]:
    """One reaction for all pods that had to go."""
    gone = [e for e in events if e.node in nodes and e.condition == "Terminating" and e.status == "True"]
    if gone:
        pods = len({e.object for e in gone})
        what = "1 pod had to go" if pods == 1 else f"{pods} pods had to go, the last after "
        yield gone[0].at, what + (f"{gone[-1].at - start:.0f} s" if pods > 1 else ""), gone[0].seq
