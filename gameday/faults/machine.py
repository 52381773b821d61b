"""Machine: Cluster API Machines are deleted, and their MachineSets must make others.

Labels, conditions and what deletion does are Cluster API's: https://cluster-api.sigs.k8s.io/
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import NodePick, PositiveDuration, Spec
from gameday.experiment.quantity import format_duration
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.nodes import node_ref, node_victim, pick_nodes
from gameday.ledger.operations import Delete
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref, Resource, condition, controller, is_ready
from gameday.platform.world import World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger

CONTROL_PLANE = "cluster.x-k8s.io/control-plane"
PAUSED = "cluster.x-k8s.io/paused"


class MachineSpec(Spec):
    """Whose machines, and how long a replacement may take."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    replaced_within: PositiveDuration = Field(
        "15m",
        validate_default=True,
        description="How long a machine may take to go, and its replacement to be Ready.",
    )

    @property
    def settle_within(self) -> float:
        return self.replaced_within


class Machine:
    """Cluster API drains and removes the nodes' machines. Not undone: their MachineSets make others."""

    Spec: ClassVar[type[Spec]] = MachineSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = (
        "machine: {nodes: {selector: node.cluster.x-k8s.io/pool=elastic, pick: 1}, replacedWithin: 10m}"
    )

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        nodes = await pick_nodes(spec.nodes, world)
        machines = await _machines(world)
        by_node = {((m.get("status") or {}).get("nodeRef") or {}).get("name"): m for m in machines}
        chosen = [_replaceable(n["metadata"]["name"], by_node) for n in nodes]
        pairs = [(n["metadata"]["name"], Ref.of(m)) for n, m in zip(nodes, chosen, strict=True)]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"delete {m}: node {n} is drained and removed" for n, m in pairs),
            irreversible=tuple(f"{m} and node {n} are replaced under other names" for n, m in pairs),
            needs=tuple(sorted({f"delete machines.cluster.x-k8s.io {m.namespace}" for _, m in pairs})),
            warnings=(
                "a budget that forbids an eviction holds Cluster API's drain, and so the deletion, up",
            ),
            ends_pods=True,
            data={
                "machines": [m.to_data() for _, m in pairs],
                "owners": [(controller(m) or {})["uid"] for m in chosen],
                "nodes": [node_ref(n["metadata"]["name"], n["metadata"]["uid"]).to_data() for n in nodes],
            },
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        plan.data["known"] = [m["metadata"]["uid"] for m in await _machines(world)]
        plan.data["since"] = time.time()
        await ledger.perform(Delete(Ref.from_data(m)) for m in plan.data["machines"])

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In when machines and nodes are gone; out when as many new machines have a node that is Ready."""
        refs = [Ref.from_data(r) for r in (*plan.data["machines"], *plan.data["nodes"])]
        left = [obj for obj in await asyncio.gather(*(world.kube.find(r) for r in refs)) if obj]
        if left:
            _by_the_servers_clock(plan, left)
            return Evidence("partial", tuple(f"{Ref.of(o)} is still there{_why(o)}" for o in left))
        if "gone" not in plan.data:
            took = plan.data["gone"] = time.time() - plan.data["since"]
            return Evidence("in", tuple(f"{r} is gone after {format_duration(round(took))}" for r in refs))
        new = await self._replacements(plan, world)
        facts = tuple(
            f"{name} is Ready, {format_duration(round(took))} after the deletion" for name, took in new
        )
        return Evidence("out" if len(new) >= len(plan.data["machines"]) else "in", facts)

    async def _replacements(self, plan: FaultPlan, world: World) -> list[tuple[str, float]]:
        """New machines of the same owners whose node is Ready, and after how many seconds it was."""
        found = []
        for machine in await _machines(world):
            owner, ref = controller(machine) or {}, (machine.get("status") or {}).get("nodeRef")
            if (
                machine["metadata"]["uid"] in plan.data["known"]
                or owner.get("uid") not in plan.data["owners"]
            ):
                continue
            node = await world.kube.find(node_ref(ref["name"])) if ref else None
            if node is not None and is_ready(node):
                at = _unix(condition(node, "Ready")["lastTransitionTime"])
                name = f"{Ref.of(machine)} with node {node['metadata']['name']}"
                found.append((name, max(0.0, at - plan.data["since"])))
        return found


async def _machines(world: World) -> list[Object]:
    from gameday.platform.kinds import find_resource

    try:
        resource: Resource = await find_resource(world.kube, "machines.cluster.x-k8s.io")
    except PlatformError as error:
        raise PlanError(
            f"{world.kube.context}: {error} Machines may be objects of a management cluster of their own; "
            "gameday deletes them where they are in the same cluster as their nodes"
        ) from error
    return await world.kube.list(resource)


def _replaceable(node: str, by_node: dict[str | None, Object]) -> Object:
    """The node's machine. Raises PlanError when there is none, or nobody would replace it."""
    machine = by_node.get(node)
    if machine is None:
        raise PlanError(f"no Machine says that node {node} is its own (status.nodeRef)")
    ref, meta = Ref.of(machine), machine["metadata"]
    if CONTROL_PLANE in (meta.get("labels") or {}):
        raise PlanError(f"{ref} is one of the control plane's: gameday does not delete those")
    if controller(machine) is None:
        raise PlanError(f"{ref} has no MachineSet: nobody would replace it")
    if PAUSED in (meta.get("annotations") or {}):
        raise PlanError(f"{ref} is paused ({PAUSED}): Cluster API would not remove it")
    return machine


def _by_the_servers_clock(plan: FaultPlan, left: list[Object]) -> None:
    """Count from the deletion as the server dates it, so that its times can be told apart by subtraction."""
    for obj in left:
        if obj["kind"] == "Machine" and "deletionTimestamp" in obj["metadata"]:
            plan.data["since"] = _unix(obj["metadata"]["deletionTimestamp"])


def _unix(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _why(obj: Object) -> str:
    told = condition(obj, "Deleting")
    said = " ".join(t for t in (told.get("reason"), told.get("message")) if t)
    return f" ({said})" if said else ""
