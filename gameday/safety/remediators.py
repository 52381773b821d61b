"""Who else acts on a node that a fault takes: machine health checks, autoscalers, rebooters, XID remediation.

A fault says in which state it leaves nodes (`Fault.leaves`). Each remediator that is there, and that this
state triggers within the step's hold, is an effect of the step: it can destroy a node, so that the file must
allow it by name in `blastRadius.others`. One that would act later, or cannot be seen, is a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from gameday.extend import Fault, FaultPlan
from gameday.faults.losing import SLACK
from gameday.platform.effect import Effect, Kind, NodeState, named
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object
from gameday.platform.world import World
from gameday.safety.protection import found_by_name
from gameday.safety.remediator_kinds import REMEDIATORS, Reaction, Remediator

REMEDIATOR = "Remediator"


async def foresee(
    fault: Fault[Any], plan: FaultPlan[Any], effects: Sequence[Effect], world: World
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """What others may do to the nodes of these effects: effects where they can destroy one, else warnings."""
    states = fault.leaves(plan)
    names = sorted({e.ref.name for e in effects if e.kind is Kind.NODE and e.ref.kind == "Node"})
    if not states or not names:
        return (), ()
    nodes = await found_by_name("Node", set(names), world)
    parts = await asyncio.gather(*(_asked(r, nodes, states, world) for r in REMEDIATORS))
    found = [reaction for part in parts for reaction in part]
    acts = [r for r in found if _acts(r, world.hold)]
    return tuple(_effects(acts)), tuple(f"{r.who} {r.says}" for r in found if r not in acts)


def _acts(reaction: Reaction, hold: float | None) -> bool:
    """Whether a reaction can come while the fault is in force, or until it is seen out."""
    if not reaction.destroys:
        return False
    return reaction.after is None or hold is None or hold + SLACK >= reaction.after


def _effects(reactions: Iterable[Reaction]) -> Iterable[Effect]:
    by_name: dict[str, list[str]] = {}
    for reaction in reactions:
        by_name.setdefault(reaction.who, []).append(reaction.says)
    for who, texts in by_name.items():
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        yield named(Kind.OTHER, who, texts[0] + more, what=REMEDIATOR)


async def _asked(
    remediator: Remediator, nodes: Sequence[Object], states: frozenset[NodeState], world: World
) -> list[Reaction]:
    try:
        return await remediator(nodes, states, world.kube)
    except ApiError as error:
        if error.status != 403:
            raise
        return [Reaction("somebody", f"may act on these nodes, which can't be seen: {error}", destroys=False)]
