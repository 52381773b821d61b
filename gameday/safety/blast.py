"""The blast radius: how much a plan touches, how much it may, and the gate that holds a run to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gameday.experiment.model import BlastRadius, Bound, Target
from gameday.faults.base import FaultError
from gameday.platform.kube import Kube
from gameday.platform.objects import Resource, gpus
from gameday.platform.resources import NODES, PODS
from gameday.platform.world import Victim
from gameday.safety.plan import Plan


@dataclass(frozen=True)
class Usage:
    """One kind of thing: how many a plan touches, how many it may (None: not bounded), out of how many."""

    what: str
    used: int
    limit: int | None
    total: int | None

    @property
    def exceeded(self) -> bool:
        return self.limit is not None and self.used > self.limit

    def __str__(self) -> str:
        limit = "not bounded" if self.limit is None else f"at most {self.limit}"
        total = "" if self.total is None else f", of {self.total}"
        return f"{self.used} {self.what} ({limit}{total})"


def count(plan: Plan) -> dict[str, int]:
    """Nodes, pods and GPUs that a plan touches over the whole run.

    A node's own pods come with it. Pods that a repeated step ends are others each time; what a fault
    only holds is counted once, however often.
    """
    nodes: dict[str, int] = {}
    pods: dict[str, tuple[str, int]] = {}
    workload_pods = workload_gpus = 0
    again = 0
    for step in plan.steps.values():
        for victim in step.fault.victims:
            if victim.role == "node":
                nodes[victim.ref.name] = victim.gpus
            elif victim.role == "pod":
                pods[victim.ref.uid or str(victim.ref)] = (victim.node, victim.gpus)
                again += step.times - 1 if step.fault.ends_pods else 0
            workload_pods += victim.pods
            workload_gpus += victim.gpus if victim.role == "workload" else 0
    return {
        "nodes": len(nodes),
        "pods": len(pods) + workload_pods + again,
        "gpus": sum(nodes.values()) + sum(g for n, g in pods.values() if n not in nodes) + workload_gpus,
    }


async def measure(plan: Plan, radius: BlastRadius, target: Target, kube: Kube) -> list[Usage]:
    """What the plan touches against what may be touched. Totals are read only where a share needs them."""
    used = count(plan)
    totals = await _totals(radius, target, kube)
    bounds: dict[str, Bound | None] = {"nodes": radius.nodes, "pods": radius.pods, "gpus": radius.gpus}
    usages = []
    for what, bound in bounds.items():
        total = totals.get(what)
        limit = bound.limit(total or 0) if bound else (None if what == "gpus" else 0)
        usages.append(Usage(what, used[what], limit, total))
    return usages


async def _totals(radius: BlastRadius, target: Target, kube: Kube) -> dict[str, int]:
    totals: dict[str, int] = {}
    if _is_share(radius.nodes) or _is_share(radius.gpus):
        labels = target.nodes.selector if target.nodes else None
        found = [gpus(n) async for n in kube.each(NODES, labels=labels)]
        totals |= {"nodes": len(found), "gpus": sum(found)}
    if _is_share(radius.pods):
        totals["pods"] = sum([await total(kube, PODS, n) for n in target.namespaces])
    return totals


def _is_share(bound: Bound | None) -> bool:
    return bound is not None and bound.number is None


async def total(kube: Kube, resource: Resource, namespace: str | None = None) -> int:
    """How many objects there are, from one page: the server says how many it left out."""
    page = await kube.page(resource, namespace, limit=1)
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)


def gate(plan: Plan, path: str) -> Callable[[Iterable[Victim]], None]:
    """Admission of pods at the time a step comes: never more, and no more GPUs, than were approved for it."""
    planned = [v for v in plan.steps[path].fault.victims if v.role == "pod"]

    def admit(victims: Iterable[Victim]) -> None:
        pods = [v for v in victims if v.role == "pod"]
        if len(pods) > len(planned):
            raise FaultError(f"{len(pods)} pods match now, but {len(planned)} were approved: plan again")
        if sum(v.gpus for v in pods) > sum(v.gpus for v in planned):
            raise FaultError("the pods that match now hold more GPUs than were approved: plan again")

    return admit
