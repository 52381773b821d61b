"""Drain: nodes are cordoned and their pods evicted, as their budgets allow, all nodes at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import Duration, NodePick, Spec
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.cordon import UNSCHEDULABLE
from gameday.faults.eviction import Policy, decide, evictable, refused
from gameday.faults.nodes import check_not_all, edit_nodes, node_victim, pick_nodes
from gameday.faults.pods import check_namespaces
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.objects import Object
    from gameday.platform.world import World


WHOLE_LIST_FROM = 20  # nodes: with more, one list of all pods is cheaper than one a node


class DrainSpec(Spec):
    """Which nodes, and what may be lost on them."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    delete_empty_dir_data: bool = Field(False, description="Also evict pods whose emptyDir data is lost.")
    force: bool = Field(False, description="Also evict pods that no controller makes again.")
    grace: int | None = Field(None, ge=0, description="Seconds a pod has to end; else its own grace period.")
    timeout: Duration = Field(300.0, description="How long the eviction of all pods may take.")

    @property
    def policy(self) -> Policy:
        return Policy(self.delete_empty_dir_data, self.force)


class Drain:
    """Nodes are cordoned and emptied as by `kubectl drain`; uncordoned again those that we cordoned."""

    Spec: ClassVar[type[Spec]] = DrainSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "drain: {nodes: {selector: nvidia.com/gpu.present=true, pick: 2}}"

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        nodes = await pick_nodes(spec.nodes, world)
        names = [n["metadata"]["name"] for n in nodes]
        pods, _ = await pods_on(names, world)
        problems = refused(pods, spec.policy)
        if problems:
            raise PlanError("these pods stop the drain: " + "; ".join(problems))
        go = evictable(pods, spec.policy)
        check_namespaces({p["metadata"]["namespace"] for p in go}, world)
        already = [n["metadata"]["name"] for n in nodes if n["spec"].get("unschedulable")]
        check_not_all(already, nodes, "cordon")
        stay = [(p, d) for p in pods if (d := decide(p, spec.policy)).action == "stay"]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=(*(f"cordon {n}" for n in names), f"evict {len(go)} pods of {len(names)} nodes"),
            needs=(
                "patch nodes",
                *(f"create pods/eviction {n}" for n in sorted({p["metadata"]["namespace"] for p in go})),
            ),
            irreversible=(f"{len(go)} evicted pods are replaced by their controllers, not restored",)
            if go
            else (),
            ends_pods=True,
            warnings=tuple(f"{n} is cordoned already, and will be left so" for n in already),
            data={
                "already": already,
                "evicted": [f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in go],
                "stay": len(stay),
            },
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        from gameday.faults.evictor import Evictor  # late: not loaded to validate a file

        await edit_nodes(plan.victims, UNSCHEDULABLE, world, ledger)
        names = [v.ref.name for v in plan.victims]
        pods, version = await pods_on(names, world)
        # Re-check on what is there now: pods came and went since the plan.
        if problems := refused(pods, plan.spec.policy):
            raise PlanError("these pods stop the drain: " + "; ".join(problems))
        go = evictable(pods, plan.spec.policy)
        check_namespaces({p["metadata"]["namespace"] for p in go}, world)
        await Evictor(world, ledger, go, plan.spec.grace, plan.spec.timeout).run(version)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In when every node is cordoned and holds no pod that a drain evicts; out when all take pods."""
        found = [n for n in await asyncio.gather(*(world.kube.find(v.ref) for v in plan.victims)) if n]
        names = [n["metadata"]["name"] for n in found]
        cordoned = [n["metadata"]["name"] for n in found if n["spec"].get("unschedulable")]
        if set(cordoned) <= set(plan.data["already"]):
            return Evidence("out", tuple(f"{n} takes pods" for n in names if n not in cordoned))
        left = evictable((await pods_on(cordoned, world))[0], plan.spec.policy)
        if len(cordoned) == len(found) and not left:
            return Evidence("in", tuple(f"{n} is cordoned and holds no evictable pod" for n in cordoned))
        return Evidence(
            "partial", (f"{len(cordoned)} of {len(found)} nodes cordoned, {len(left)} pods left",)
        )


async def pods_on(nodes: list[str], world: World) -> tuple[list[Object], str]:
    """The pods of these nodes, and the resourceVersion from which to watch what happens to them."""

    async def of(fields: str | None) -> tuple[list[Object], str]:
        pods: list[Object] = []
        version = ""
        async for page in world.kube.pages(PODS, fields=fields):
            version = page["metadata"]["resourceVersion"]
            pods += [p for p in page["items"] if p["spec"].get("nodeName") in wanted]
        return pods, version

    wanted = set(nodes)
    if len(nodes) >= WHOLE_LIST_FROM:
        return await of(None)
    parts = await asyncio.gather(*(of(f"spec.nodeName={n}") for n in nodes))
    oldest = min((v for _, v in parts), key=int, default="")
    return [p for pods, _ in parts for p in pods], oldest
