"""The locks that a plan needs: on everything that it touches, and on what is in force already."""

from __future__ import annotations

from gameday.events import Preflight
from gameday.ledger.locks import Lock, held, lock_of, meeting, words
from gameday.ledger.survey import InForce, survey
from gameday.ledger.unreadable import Unreadable
from gameday.platform.effect import Kind
from gameday.platform.kube import Kube
from gameday.safety.plan import Plan

CHECK = "other runs"


def locks_of(plan: Plan) -> list[Lock]:
    """A lock on every target and every effect of every step, nodes that run a step's programs included.

    What can't be counted has none: that an autoscaler may act on both of two runs' nodes, say, is no meeting.
    """
    faults = [s.fault for s in plan.steps.values()]
    refs = {v.ref for fault in faults for v in fault.victims}
    refs |= {e.ref for fault in faults for e in fault.effects if e.kind is not Kind.OTHER and e.ref.name}
    nodes = {v.node for fault in faults for v in fault.victims if v.node and v.role == "node"}
    return sorted({lock_of(ref) for ref in refs} | {("Node", name) for name in nodes})


async def other_runs(kube: Kube, run: str, plan: Plan) -> list[Preflight]:
    """Runs that touch what this plan would: refused; others, and what only looks like a run: told."""
    mine, locked, found = locks_of(plan), await held(kube), await survey(kube)
    told: list[Preflight] = []
    for other in found.runs:
        if other.run == run:
            continue
        theirs = [*locked.get(other.run, ()), *(lock_of(e.operation.ref) for e in other.open)]
        unknown = any(isinstance(e.operation, Unreadable) for e in other.open)
        lock = meeting(mine, theirs)
        level = "refused" if lock or unknown else "ok"
        where = f", and {words(lock)} is its target as well" if lock else ""
        where = where or (", and nobody can tell what it touched" if unknown else ", elsewhere")
        told.append(_finding(other, level, where))
    told += [Preflight(check=CHECK, level="warning", message=text) for text in found.strangers]
    return told or [Preflight(check=CHECK, level="ok", message="none in force")]


def _finding(other: InForce, level: str, where: str) -> Preflight:
    recover = f"gameday recover --run {other.run}"
    if other.alive:
        text, hint = f"run {other.run} is in force{where}", f"wait, or: gameday abort {other.run}"
        hint += f"; should it have died: {recover}"
    else:
        text, hint = f"run {other.run} died and was not restored{where}", f"restore it first: {recover}"
        level = "warning" if level == "ok" else level
    return Preflight(check=CHECK, level=level, message=text, hint=hint)
