"""Machine: Cluster API Machines are deleted, and their MachineSets must make others.

Labels, conditions and what deletion does are Cluster API's: https://cluster-api.sigs.k8s.io/
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import ClassVar

from pydantic import Field

from gameday.experiment.model import EndingSpec, NodePick, PositiveDuration, Spec
from gameday.experiment.quantity import format_duration
from gameday.extend import Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.nodes import node_ref, node_victim, pick_nodes
from gameday.ledger.operations import Delete
from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import PlatformError
from gameday.platform.objects import (
    Object,
    Ref,
    Resource,
    annotations_of,
    condition,
    controller,
    is_ready,
    labels_of,
)
from gameday.platform.world import World
from gameday.states import Change

MACHINE = "cluster.x-k8s.io/machine"
CLUSTER_NAMESPACE = "cluster.x-k8s.io/cluster-namespace"
CONTROL_PLANE = "cluster.x-k8s.io/control-plane"
PAUSED = "cluster.x-k8s.io/paused"


class MachineSpec(EndingSpec):
    """Whose machines, and how long a replacement may take."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    replaced_within: PositiveDuration = Field(
        "15m",
        validate_default=True,
        description="How long a machine may take to go, and its replacement to be Ready.",
    )


class Machine(Fault[MachineSpec]):
    """Cluster API drains and removes the nodes' machines. Not undone: their MachineSets make others."""

    Spec: ClassVar[type[Spec]] = MachineSpec
    example: ClassVar[str] = (
        "machine: {nodes: {selector: node.cluster.x-k8s.io/pool=elastic, pick: 1}, replacedWithin: 10m}"
    )

    async def plan(self, spec: MachineSpec, world: World) -> FaultPlan[MachineSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        machines = await _machines(world)
        chosen = [_replaceable(n, machines) for n in nodes]
        await asyncio.gather(*(_check_keepers(m, world) for m in chosen))
        pairs = [(n["metadata"]["name"], Ref.of(m)) for n, m in zip(nodes, chosen, strict=True)]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"delete {m}: node {n} is drained and removed" for n, m in pairs),
            irreversible=tuple(f"{m} and node {n} are replaced under other names" for n, m in pairs),
            needs=(
                *sorted(
                    f"{what}.cluster.x-k8s.io {space}"
                    for space in {m.namespace for _, m in pairs}
                    for what in ("delete machines", "get machinesets", "get clusters")
                ),
                "get nodes",  # those that take their places
            ),
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

    async def effects(self, plan: FaultPlan[MachineSpec], world: World) -> tuple[Effect, ...]:
        """The machines, and the pods that Cluster API drains from their nodes."""
        from gameday.faults.losing import by_removal

        machines = [Ref.from_data(m) for m in plan.data["machines"]]
        gone = [
            Effect(Kind.OBJECT, m, "deleted, and replaced under another name", ends=True) for m in machines
        ]
        names = [v.ref.name for v in plan.victims]
        return (*gone, *await by_removal(names, "ends: its machine is deleted", world))

    async def inject(self, plan: FaultPlan[MachineSpec], step: Step) -> None:
        known = [m["metadata"]["uid"] for m in await _machines(step.world)]
        step.record(known=known, since=time.time())
        await step.ledger.perform(Delete(Ref.from_data(m)) for m in plan.data["machines"])

    def settle_within(self, spec: MachineSpec) -> float:
        return spec.replaced_within

    async def settled(self, plan: FaultPlan[MachineSpec], injected: Injected, world: World) -> Evidence:
        """In when machines and nodes are gone; over when as many new machines have a node that is Ready."""
        deletions = injected.of(Delete.kind)
        deleted = {made.ref for made in deletions if made.state != Change.UNDONE}
        pairs = zip(plan.data["machines"], plan.data["nodes"], strict=True)
        ours = [(m, n) for m, n in ((Ref.from_data(m), Ref.from_data(n)) for m, n in pairs) if m in deleted]
        if not ours:
            return Evidence("out", ("no machine was deleted",))
        refs = [*(m for m, _ in ours), *(n for _, n in ours)]
        left = [obj for obj in await asyncio.gather(*(world.kube.find(r) for r in refs)) if obj]
        since = injected.data["since"]
        if left:
            facts = tuple(f"{Ref.of(o)} is still there{_why(o)}" for o in left)
            return Evidence("partial", facts, {"since": _by_the_servers_clock(left) or since})
        if not injected.data.get("gone"):
            took = format_duration(round(time.time() - since))
            return Evidence("in", tuple(f"{r} is gone after {took}" for r in refs), {"gone": True})
        new = await self._replacements(plan, injected, world)
        facts = tuple(
            f"{name} is Ready, {format_duration(round(took))} after the deletion" for name, took in new
        )
        return Evidence("over" if len(new) >= len(ours) else "in", facts)

    async def _replacements(
        self, plan: FaultPlan[MachineSpec], injected: Injected, world: World
    ) -> list[tuple[str, float]]:
        """New machines of the same owners whose node is Ready, and after how many seconds it was."""
        found = []
        for machine in await _machines(world):
            owner, ref = controller(machine) or {}, (machine.get("status") or {}).get("nodeRef")
            if (
                machine["metadata"]["uid"] in injected.data["known"]
                or owner.get("uid") not in plan.data["owners"]
            ):
                continue
            node = await world.kube.find(node_ref(ref["name"])) if ref else None
            if node is not None and is_ready(node):
                at = _unix(condition(node, "Ready")["lastTransitionTime"])
                name = f"{Ref.of(machine)} with node {node['metadata']['name']}"
                found.append((name, max(0.0, at - injected.data["since"])))
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


def _replaceable(node: Object, machines: list[Object]) -> Object:
    """The node's machine. Raises PlanError when there is none, or nobody would replace it."""
    name = node["metadata"]["name"]
    named = [m for m in machines if ((m.get("status") or {}).get("nodeRef") or {}).get("name") == name]
    if not named:
        raise PlanError(f"no Machine says that node {name} is its own (status.nodeRef)")
    own = [m for m in named if not _elsewhere(m, node)]
    if len(own) != 1:
        told = ", ".join(f"{Ref.of(m)} ({_elsewhere(m, node) or 'nothing tells it apart'})" for m in named)
        raise PlanError(f"no Machine is surely that of node {name}: {told}")
    machine = own[0]
    ref = Ref.of(machine)
    if CONTROL_PLANE in labels_of(machine):
        raise PlanError(f"{ref} is one of the control plane's: gameday does not delete those")
    if controller(machine) is None:
        raise PlanError(f"{ref} has no MachineSet: nobody would replace it")
    return machine


async def _check_keepers(machine: Object, world: World) -> None:
    """Raises PlanError where a machine would not be removed or replaced: its keepers hold still, or go.

    Cluster API leaves alone what is paused by an annotation, or of a Cluster with `spec.paused` (upstream's
    util/annotations).
    """
    meta, owner = machine["metadata"], controller(machine) or {}
    cluster = str((machine.get("spec") or {}).get("clusterName") or "")
    refs = (
        Ref(str(owner.get("apiVersion")), str(owner.get("kind")), str(owner.get("name")), meta["namespace"]),
        Ref(machine["apiVersion"], "Cluster", cluster, meta["namespace"]),
    )
    for ref in refs:
        if (keeper := await world.kube.find(ref)) is None:
            raise PlanError(f"{Ref.of(machine)} is of {ref}, which is not there: nobody would replace it")
        if "deletionTimestamp" in keeper["metadata"]:
            raise PlanError(f"{ref} is being deleted: nobody would replace {Ref.of(machine)}")
        _check_paused(ref, keeper)
    _check_paused(Ref.of(machine), machine)


def _check_paused(ref: Ref, obj: Object) -> None:
    by = "spec.paused" if (obj.get("spec") or {}).get("paused") is True else PAUSED
    if by != PAUSED or PAUSED in annotations_of(obj):
        raise PlanError(f"{ref} is paused ({by}): Cluster API would neither remove nor replace its machines")


def _elsewhere(machine: Object, node: Object) -> str:
    """Why a Machine is that of a node of this name in another cluster, "" where it is not.

    A management cluster holds the Machines of many clusters, whose nodes may have equal names. Cluster API
    links the two by the provider's id, and writes the Machine's name and namespace onto its Node (annotations
    cluster.x-k8s.io/machine and cluster-namespace, api/core/v1beta1/common_types.go).
    """
    notes, meta = annotations_of(node), machine["metadata"]
    theirs, ours = (o.get("spec", {}).get("providerID") for o in (machine, node))
    if theirs and ours and theirs != ours:
        return f"its providerID is {theirs}, that of the node is {ours}"
    for key, value in ((MACHINE, meta["name"]), (CLUSTER_NAMESPACE, meta.get("namespace"))):
        if notes.get(key, value) != value:
            return f"the node says {key}: {notes[key]}"
    return ""


def _by_the_servers_clock(left: list[Object]) -> float | None:
    """The deletion as the server dates it, so that its times can be told apart by subtraction."""
    dates = [o["metadata"].get("deletionTimestamp") for o in left if o["kind"] == "Machine"]
    return next((_unix(d) for d in reversed(dates) if d), None)


def _unix(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _why(obj: Object) -> str:
    told = condition(obj, "Deleting")
    said = " ".join(t for t in (told.get("reason"), told.get("message")) if t)
    return f" ({said})" if said else ""
