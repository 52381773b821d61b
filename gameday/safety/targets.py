"""The locks that a plan needs: on everything that it touches, and on what is in force already."""

from __future__ import annotations

from gameday.events import Preflight
from gameday.experiment.text import some
from gameday.extend.check import refused, warning
from gameday.ledger.locks import Lock, held, lock_of, meeting, words
from gameday.ledger.survey import InForce, survey
from gameday.ledger.unreadable import Unreadable
from gameday.platform.effect import Kind
from gameday.safety.case import Case
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


async def other_runs(case: Case) -> list[Preflight]:
    """Runs that touch what this plan would: refused; others, and what only looks like a run: told.

    A step that could not be planned has no targets: then what other runs have changed may be why.
    """
    kube, plan = case.world.kube, case.plan
    mine, locked, found = locks_of(plan), await held(kube), await survey(kube)
    told: list[Preflight] = []
    for other in found.runs:
        if other.run == case.world.run:
            continue
        theirs = [*locked.get(other.run, ()), *(lock_of(e.operation.ref) for e in other.open)]
        unknown = any(isinstance(e.operation, Unreadable) for e in other.open)
        lock = meeting(mine, theirs)
        if lock or unknown or _may_be_why(other, plan):
            told.append(_refused(other, f"{words(lock)} is its target as well" if lock else "", unknown))
        else:
            told.append(_elsewhere(other))
    told += [Preflight(check=CHECK, level="warning", message=text) for text in found.strangers]
    return told or [Preflight(check=CHECK, level="ok", message="none in force")]


def _may_be_why(other: InForce, plan: Plan) -> bool:
    """Whether another run's changes may keep a step from being planned: one that died, or that is named."""
    named = any(e.operation.ref.name in text for _, text in plan.problems for e in other.open)
    return bool(plan.problems and other.open) and (named or not other.alive)


def _refused(other: InForce, meets: str, unknown: bool) -> Preflight:
    changed = some([f"{e.operation.ref} ({e.operation.summary})" for e in other.open])
    if other.alive:
        why = meets or ("nobody can tell what it touched" if unknown else f"has changed {changed}")
        text = f"run {other.run} is in force, and {why}"
        return refused(CHECK, text, f"{_wait(other)}; should it have died: {_recover(other)}")
    if changed and not unknown:
        text = f"run {other.run} died and left {changed}"
    else:
        text = f"run {other.run} died and was not restored, and {meets or 'nobody can tell what it touched'}"
    return refused(CHECK, text, f"restore it first: {_recover(other)}")


def _elsewhere(other: InForce) -> Preflight:
    if other.alive:
        hint = f"{_wait(other)}; should it have died: {_recover(other)}"
        return Preflight(
            check=CHECK, level="ok", message=f"run {other.run} is in force, elsewhere", hint=hint
        )
    return warning(CHECK, f"run {other.run} died and was not restored, elsewhere", _recover(other))


def _wait(other: InForce) -> str:
    return f"wait, or: gameday abort {other.run}"


def _recover(other: InForce) -> str:
    return f"gameday recover --run {other.run}"
