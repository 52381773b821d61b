"""The first lines for whoever approves a plan: whose the things are, and whether there is a way back."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from gameday.events import Preflight
from gameday.experiment.text import plural
from gameday.platform.effect import Kind
from gameday.platform.objects import Object, Ref, marks_of
from gameday.platform.owners import owners
from gameday.platform.world import World
from gameday.safety.case import Case
from gameday.safety.plan import Plan

MOST = 20  # owners that are looked up; a plan that touches more is read as a list of them anyway
NAMES = ("owner", "team", "app.kubernetes.io/part-of")  # labels and annotations that say whose a workload is


@dataclass(frozen=True)
class Workload:
    """An owner that loses pods: its owners from the nearest to the topmost, and how many pods."""

    ref: Ref
    chain: tuple[Object, ...]
    pods: int
    blind: tuple[Ref, ...] = ()  # what of it may not be read

    @property
    def top(self) -> Ref:
        return Ref.of(self.chain[-1]) if self.chain else self.ref


async def workloads(plan: Plan, world: World) -> list[Workload]:
    """The workloads whose pods a plan touches, those with most pods first, at most MOST."""
    effects = {e.ref: e for s in plan.steps.values() for e in s.fault.effects}
    pods = Counter(e.owner for e in effects.values() if e.kind is Kind.POD and e.owner is not None)
    for effect in effects.values():
        if effect.kind is Kind.WORKLOAD and effect.ref.api_version.count("/"):
            pods[effect.ref] += effect.pods
    asked = pods.most_common(MOST)
    chains = await asyncio.gather(*(_chain(ref, world) for ref, _ in asked))
    return [Workload(ref, chain, n, blind) for (ref, n), (chain, blind) in zip(asked, chains, strict=True)]


async def owners_of(case: Case) -> list[Preflight]:
    """Whose the workloads are that lose pods: the topmost owner, and who answers for it by its labels."""
    counted: Counter[str] = Counter()
    for workload in await workloads(case.plan, case.world):
        whose = next((w for o in reversed(workload.chain) if (w := _whose(o))), "")
        counted[f"{workload.top}{whose}"] += workload.pods
    if not counted:
        return []
    text = "; ".join(f"{name}: {plural(number, 'pod')}" for name, number in counted.most_common())
    return [Preflight(check="owners", level="ok", message=text)]


async def _chain(ref: Ref, world: World) -> tuple[tuple[Object, ...], tuple[Ref, ...]]:
    blind: list[Ref] = []
    obj = await world.kube.find_readable(ref.named, blind)
    chain = (obj, *await owners(world.kube, obj, blind)) if obj is not None else ()
    return chain, tuple(blind)


def _whose(obj: Object) -> str:
    said = marks_of(obj)
    return next((f" ({name} {said[name]})" for name in NAMES if said.get(name)), "")


async def way_back(case: Case) -> list[Preflight]:
    """How each step is taken back, and what is not."""
    steps = case.plan.steps.values()
    if not steps:
        return []
    lost = [
        f"step {s.path} is not undone in full: {s.fault.irreversible[0]}"
        for s in steps
        if s.fault.irreversible
    ]
    back = [s.path for s in steps if not s.fault.irreversible]
    undone = f"step {', '.join(back)}: undone by the ledger, also if gameday dies" if back else ""
    text = "; ".join([*([undone] if undone else []), *lost])
    return [Preflight(check="way back", level="ok", message=text)]
