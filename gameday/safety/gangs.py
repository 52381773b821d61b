"""Gangs and queues: which groups of pods lose members, how many, and what their controllers do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from gameday.events import Preflight
from gameday.experiment.text import plural
from gameday.faults.drain import pods_on
from gameday.platform.effect import Kind
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref, is_finished
from gameday.platform.resources import PODS
from gameday.platform.world import World
from gameday.safety.case import Case
from gameday.safety.gang_kinds import MARKS, Mark, is_gang, said
from gameday.safety.plan import Plan

CHECK = "gangs"


@dataclass
class Hit:
    """One group, and pods of it that are ended, or only touched, by UID."""

    mark: Mark
    ref: Ref
    pods: dict[str, Object] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """The gangs of it that these pods are of, where one object is several."""
        return sorted({said(p, self.mark.part) for p in self.pods.values()}) if self.mark.part else [""]

    def text(self, group: Object | None, *, ended: bool) -> str:
        of = f" of {self.mark.system}" if self.mark.system else ""
        where = f" in its groups {', '.join(self.parts)}" if self.mark.part else ""
        follows = self.mark.follows({"kind": self.ref.kind} | group if group else {}, [*self.pods.values()])
        if ended:
            return f"{self.ref}{of} loses {len(self.pods)} of its pods{where}: {follows}"
        touched = f"{self.ref}{of} has {len(self.pods)} of its pods{where} touched"
        return f"{touched}, and the plan ends none of them; if they end: {follows}"


async def gangs(case: Case) -> list[Preflight]:
    """A finding for each group that loses members, or could, with what follows.

    Slurm's jobs are effects already. A cordon, or a taint that ends nothing, costs no gang a member.
    """
    world, effects = case.world, [e for s in case.plan.steps.values() for e in s.fault.effects]
    ending = {e.ref.uid for e in effects if e.ends}
    pods = await _touched(case.plan, world)
    losing = groups(p for p in pods if p["metadata"]["uid"] in ending)
    lost = {one.ref for one in losing}
    hit = [*losing, *(one for one in groups(pods) if one.ref not in lost)]
    unread: list[Preflight] = []
    found = await asyncio.gather(*(_read(one.ref, world, unread) for one in hit))
    real = [(one, group) for one, group in zip(hit, found, strict=True) if is_gang(group)]
    texts = [one.text(group, ended=one.ref in lost) for one, group in real]
    if losing := [one for one, _ in real if one.ref in lost]:
        number, lost_pods = _gangs(losing), plural(len({u for one in losing for u in one.pods}), "pod")
        texts.insert(0, f"{plural(number, 'gang')} {'loses' if number == 1 else 'lose'} {lost_pods}")
    texts += [f"{e.ref} {e.text}" for e in dict.fromkeys(effects) if e.kind is Kind.JOB]
    return [*(Preflight(check=CHECK, level="ok", message=text) for text in texts), *unread]


async def _read(ref: Ref, world: World, unread: list[Preflight]) -> Object | None:
    """A group, for what can be said of it. One that may not or can't be read counts as a gang all the same.

    Its own controllers may be away, and with them the webhook that converts it.
    """
    try:
        return await world.kube.find_readable(ref, [])
    except PlatformError as error:
        text = f"{ref} could not be read, so what follows is said of its kind in general: {error}"
        unread.append(Preflight(check=CHECK, level="warning", message=text))
        return None


def groups(pods: Iterable[Object]) -> list[Hit]:
    """The groups of these pods, by what the pods say."""
    found: dict[tuple[str, Ref], Hit] = {}
    for pod in pods:
        for mark in MARKS:
            if ref := mark.group(pod):
                found.setdefault((mark.system, ref), Hit(mark, ref)).pods[pod["metadata"]["uid"]] = pod
    return list(found.values())


def _gangs(hit: Iterable[Hit]) -> int:
    """How many gangs these groups are: those that share a pod are one, as a JobSet and Kueue's Workload."""
    sets: list[set[str]] = []
    for one in hit:
        for part in one.parts:
            members = {u for u, p in one.pods.items() if not part or said(p, one.mark.part) == part}
            sets = [s for s in sets if not s & members] + [members.union(*(s for s in sets if s & members))]
    return len(sets)


async def _touched(plan: Plan, world: World) -> list[Object]:
    """The pods that the plan touches by themselves, or on a node that it touches; not those that are over."""
    effects = [e for s in plan.steps.values() for e in s.fault.effects]
    nodes = {e.ref.name for e in effects if e.kind is Kind.NODE}
    alone = [e for e in effects if e.kind is Kind.POD and e.node not in nodes]
    uids = {e.ref.uid for e in alone}
    spaces = sorted({e.ref.namespace or "" for e in alone})
    lists = await asyncio.gather(*(world.kube.list(PODS, space) for space in spaces))
    on_nodes, _ = await pods_on(sorted(nodes), world) if nodes else ([], "")
    theirs = [p for part in lists for p in part if p["metadata"]["uid"] in uids]
    return [p for p in (*on_nodes, *theirs) if not is_finished(p)]
