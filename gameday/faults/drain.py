"""Drain: nodes are cordoned and their pods evicted, as their budgets allow, all nodes at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gameday.experiment.model import Duration, EndingSpec, NodePick, Spec
from gameday.experiment.text import plural
from gameday.extend import Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.budgets import foresee
from gameday.faults.cordon import UNSCHEDULABLE
from gameday.faults.eviction import Policy, decide, evictable, refused
from gameday.faults.nodes import check_not_all, edit_nodes, node_victim, pick_nodes
from gameday.faults.pods import check_namespaces, is_ours, pod_victim
from gameday.platform.effect import Effect, NodeState, of_pod
from gameday.platform.objects import is_finished
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.objects import Object
    from gameday.platform.world import World


WHOLE_LIST_FROM = 20  # nodes: with more, one list of all pods is cheaper than one a node


class DrainSpec(EndingSpec):
    """Which nodes, and what may be lost on them."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    delete_empty_dir_data: bool = Field(False, description="Also evict pods whose emptyDir data is lost.")
    grace: int | None = Field(None, ge=0, description="Seconds a pod has to end; else its own grace period.")
    timeout: Duration = Field(300.0, description="How long the eviction of all pods may take.")

    @property
    def policy(self) -> Policy:
        return Policy(self.delete_empty_dir_data)


class Drain(Fault[DrainSpec]):
    """Nodes are cordoned and emptied as by `kubectl drain`; uncordoned again those that we cordoned."""

    Spec: ClassVar[type[Spec]] = DrainSpec
    ends_by_hand: ClassVar[bool] = True
    example: ClassVar[str] = "drain: {nodes: {selector: nvidia.com/gpu.present=true, pick: 2}}"

    async def plan(self, spec: DrainSpec, world: World) -> FaultPlan[DrainSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        names = [n["metadata"]["name"] for n in nodes]
        pods, _ = await pods_on(names, world)
        problems = refused(pods, spec.policy)
        if problems:
            raise PlanError("these pods stop the drain: " + "; ".join(problems))
        go = evictable(pods, spec.policy)
        check_namespaces({p["metadata"]["namespace"] for p in go}, world)
        stops, holds = await foresee(go, world.kube)
        if stops:
            raise PlanError("these pods stop the drain: " + "; ".join(stops))
        already = [n["metadata"]["name"] for n in nodes if n["spec"].get("unschedulable")]
        check_not_all(already, nodes, "cordon")
        stay = [(p, d) for p in pods if (d := decide(p, spec.policy)).action == "stay"]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=(
                *(f"cordon {n}" for n in names),
                f"evict {plural(len(go), 'pod')} of {plural(len(names), 'node')}",
            ),
            needs=(
                *(f"patch nodes - {n}" for n in names),
                *("list pods", "watch pods"),  # those of the nodes, until they are gone
                *(
                    f"{verb} {n}"
                    for n in sorted({p["metadata"]["namespace"] for p in go})
                    for verb in (
                        "create pods/eviction",
                        "list poddisruptionbudgets.policy",
                        "watch poddisruptionbudgets.policy",
                    )
                ),
            ),
            effects=_evictions(go),  # of a large cluster's pods once is enough
            ends_pods=True,
            warnings=(*(f"{n} is cordoned already, and will be left so" for n in already), *holds),
            data={
                "already": already,
                "evicted": [f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in go],
                "stay": len(stay),
            },
        )

    async def effects(self, plan: FaultPlan[DrainSpec], world: World) -> tuple[Effect, ...]:
        """The pods that the drain evicts; those that are over are deleted as well, but hold nothing."""
        pods, _ = await pods_on([v.ref.name for v in plan.victims], world)
        return _evictions(evictable(pods, plan.spec.policy))

    def leaves(self, plan: FaultPlan[DrainSpec]) -> frozenset[NodeState]:
        return frozenset({NodeState.EMPTY})

    async def inject(self, plan: FaultPlan[DrainSpec], step: Step) -> None:
        from gameday.faults.evictor import Evictor  # late: not loaded to validate a file

        world = step.world
        await edit_nodes(plan.victims, UNSCHEDULABLE, step)
        names = [v.ref.name for v in plan.victims]
        pods, version = await pods_on(names, world)
        # Re-check on what is there now: pods came and went since the plan.
        if problems := refused(pods, plan.spec.policy):
            raise PlanError("these pods stop the drain: " + "; ".join(problems))
        go = evictable(pods, plan.spec.policy)
        await world.admit([pod_victim(p) for p in go])
        await Evictor(step, go, plan.spec.grace, plan.spec.timeout).run(version)

    async def settled(self, plan: FaultPlan[DrainSpec], injected: Injected, world: World) -> Evidence:
        """In when every node is cordoned and holds no pod that a drain evicts; out when all take pods.

        A pod that is over holds nothing, even where a finalizer keeps its object.
        """
        found = [n for n in await asyncio.gather(*(world.kube.find(v.ref) for v in plan.victims)) if n]
        names = [n["metadata"]["name"] for n in found]
        cordoned = [n["metadata"]["name"] for n in found if n["spec"].get("unschedulable")]
        if set(cordoned) <= set(plan.data["already"]):
            return Evidence("out", tuple(f"{n} takes pods" for n in names if n not in cordoned))
        pods, _ = await pods_on(cordoned, world)
        left = [p for p in evictable(pods, plan.spec.policy) if not is_finished(p)]
        if len(cordoned) == len(found) and not left:
            return Evidence("in", tuple(f"{n} is cordoned and holds no evictable pod" for n in cordoned))
        return Evidence(
            "partial", (f"{len(cordoned)} of {len(found)} nodes cordoned, {len(left)} pods left",)
        )


def _evictions(go: list[Object]) -> tuple[Effect, ...]:
    gone = [(p, of_pod(p, "evicted", ends=not is_finished(p), comes=True)) for p in go]
    return tuple(replace(e, gpus=0) if is_finished(p) else e for p, e in gone)


async def pods_on(nodes: list[str], world: World) -> tuple[list[Object], str]:
    """The pods of these nodes, and the resourceVersion from which to watch what happens to them.

    The run's own programs are left out: what happens to them belongs to their faults.
    """
    return await world.once(("pods on", frozenset(nodes)), lambda: _read_pods_on(nodes, world))


async def _read_pods_on(nodes: list[str], world: World) -> tuple[list[Object], str]:
    async def of(fields: dict[str, str] | None) -> tuple[list[Object], str]:
        pods: list[Object] = []
        version = ""
        async for page in world.kube.pages(PODS, fields=fields):
            version = page["metadata"]["resourceVersion"]
            here = (p for p in page["items"] if p["spec"].get("nodeName") in wanted)
            pods += [p for p in here if not is_ours(p, world)]
        return pods, version

    wanted = set(nodes)
    if len(nodes) >= WHOLE_LIST_FROM:
        return await of(None)
    parts = await asyncio.gather(*(of({"spec.nodeName": n}) for n in nodes))
    oldest = min((v for _, v in parts), key=int, default="")
    return [p for pods, _ in parts for p in pods], oldest
