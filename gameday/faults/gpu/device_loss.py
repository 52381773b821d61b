"""`deviceLoss`: a node's device plugin goes, and with it the node's GPUs, as far as the scheduler knows.

When a plugin's socket closes, the kubelet counts its devices as unhealthy: allocatable falls to 0, capacity
follows after five minutes; containers that hold a GPU keep it (kubelet's devicemanager). The GPU Operator
puts an operand on nodes whose `nvidia.com/gpu.deploy.OPERAND` label is "true", and leaves any other value of
that label as it is (its addGPUStateLabels). Where the plugin's DaemonSet asks for no such label, its template
is told to pass the node over; with the update strategy OnDelete, so that no other node's plugin restarts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from copy import deepcopy
from typing import TYPE_CHECKING

from gameday.experiment.model import Spec
from gameday.experiment.text import plain
from gameday.extend import Already, Evidence, FaultPlan, Injected, PlanError, Step
from gameday.faults.gpu.way import GpuFault
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.devices import allocatable_gpus, pods_on
from gameday.platform.effect import Effect, Kind
from gameday.platform.objects import Object, Ref, controller, labels_of

if TYPE_CHECKING:
    from gameday.faults.gpu import GpuSpec
    from gameday.platform.world import World

LABEL = "nvidia.com/gpu.deploy.device-plugin"
_PLUGIN = re.compile(r"(nvidia|gpu)[\w.-]*device-plugin|^k8s-device-plugin")  # a pod's or an image's name


class DeviceLossSpec(Spec):
    """Nothing to say: all GPUs of the nodes are lost."""


class DeviceLoss(GpuFault):
    """All GPUs of the nodes leave allocatable; back when the device plugin is."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        before = {n["metadata"]["name"]: allocatable_gpus(n) for n in nodes}
        if none := sorted(n for n, count in before.items() if not count):
            raise Already(f"{', '.join(none)}: no allocatable GPU, there is nothing to lose")
        ways = [await self._way(n, world) for n in nodes]
        excluded: dict[str, list[str]] = defaultdict(list)
        for name, daemons in zip(before, ways, strict=True):
            if daemons is not None:
                excluded[f"{daemons.namespace}/{daemons.name}"].append(name)
        how = {
            name: f"{daemons} passes it over" if daemons else f"label {LABEL}: true → false"
            for name, daemons in zip(before, ways, strict=True)
        }
        needs = ["list pods"]
        needs += [f"patch nodes - {n}" for n, way in zip(before, ways, strict=True) if way is None]
        needs += [f"{v} daemonsets.apps {' '.join(d.split('/'))}" for d in excluded for v in ("get", "patch")]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{count} GPUs leave {n} ({how[n]})" for n, count in before.items()),
            warnings=tuple(
                f"DaemonSet {d} is edited: what manages it (Helm, Argo CD, an addon manager) may put it back"
                for d in excluded
            ),
            needs=tuple(dict.fromkeys(needs)),
            data={"before": before, "excluded": dict(excluded)},
        )

    async def _way(self, node: Object, world: World) -> Ref | None:
        """The DaemonSet to edit, or None where the node's label is enough. Raises PlanError."""
        name = node["metadata"]["name"]
        pod = next((p for p in await pods_on(world.kube, name) if is_plugin(p)), None)
        owner = controller(pod) if pod else None
        if pod is None or owner is None or owner["kind"] != "DaemonSet":
            raise PlanError(
                f"{name}: no NVIDIA device plugin of a DaemonSet runs there (looked for pods and images that "
                "are named like k8s-device-plugin), so there is no way to take its GPUs back out"
            )
        if LABEL not in (pod["spec"].get("nodeSelector") or {}):
            return Ref("apps/v1", "DaemonSet", owner["name"], pod["metadata"]["namespace"], owner["uid"])
        value = labels_of(node).get(LABEL)
        if value != "true":
            raise PlanError(
                f"{name}: its label {LABEL} is {plain(value)}: the GPU Operator is busy there, wait"
            )
        return None

    async def effects(self, plan: FaultPlan[GpuSpec], world: World) -> tuple[Effect, ...]:
        """The DaemonSets that are edited, where the nodes' label is not enough."""
        return tuple(
            Effect(Kind.OBJECT, Ref("apps/v1", "DaemonSet", name, namespace), "passes nodes over")
            for namespace, _, name in (d.partition("/") for d in plan.data["excluded"])
        )

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        names = [v.ref.name for v in plan.victims]  # without those that vanished since the plan
        excluded = {d: [n for n in nodes if n in names] for d, nodes in plan.data["excluded"].items()}
        labelled = set(names).difference(*excluded.values())
        label = Edit(("metadata", "labels", LABEL), "false")
        patches = [await Patch.of(step.kube, v.ref, label) for v in plan.victims if v.ref.name in labelled]
        for daemons, nodes in excluded.items():
            if nodes:
                namespace, _, name = daemons.partition("/")
                ref = Ref("apps/v1", "DaemonSet", name, namespace)
                edits = passing_over(await step.kube.get(ref), nodes)
                patches.append(await Patch.of(step.kube, ref, *edits))
        await step.ledger.perform(patches)

    async def settled(self, plan: FaultPlan[GpuSpec], injected: Injected, world: World) -> Evidence:
        """In when every node's allocatable says 0, out when it says at least what it did before."""
        found = [n for v in plan.victims if (n := await world.kube.find(v.ref))]
        now = {n["metadata"]["name"]: allocatable_gpus(n) for n in found}
        before = plan.data["before"]
        facts = tuple(f"{name}: {count} of {before[name]} GPUs allocatable" for name, count in now.items())
        if now and not any(now.values()):
            return Evidence("in", facts)
        return Evidence("out" if all(c >= before[n] for n, c in now.items()) else "partial", facts)


def is_plugin(pod: Object) -> bool:
    """Whether a pod is an NVIDIA device plugin, by its name or its image's."""
    images = (c["image"].rpartition("/")[2] for c in pod["spec"]["containers"])
    return any(_PLUGIN.search(name) for name in (pod["metadata"]["name"], *images))


def passing_over(daemons: Object, nodes: list[str]) -> tuple[Edit, Edit]:
    """The edits of a DaemonSet after which it has no pod on these nodes, and the same ones elsewhere."""
    affinity: Object = deepcopy(daemons["spec"]["template"]["spec"].get("affinity") or {})
    required = affinity.setdefault("nodeAffinity", {}).setdefault(
        "requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": [{}]}
    )
    for term in required["nodeSelectorTerms"]:  # a node may match any of them, so none may take ours
        without = ({"key": "metadata.name", "operator": "NotIn", "values": [n]} for n in nodes)
        term["matchFields"] = [*(term.get("matchFields") or ()), *without]
    return (
        Edit(("spec", "updateStrategy"), {"type": "OnDelete"}),
        Edit(("spec", "template", "spec", "affinity"), affinity),
    )
