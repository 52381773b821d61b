"""`mig`: the MIG manager partitions a node's GPUs in another way, and back.

The operator's mig-manager follows a node's label `nvidia.com/mig.config`, and says how far it is in
`nvidia.com/mig.config.state`: pending, rebooting, success, failed. It stops the operands that use the GPUs
meanwhile, and gives up when somebody else holds them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pydantic import Field

from gameday.experiment.model import Spec
from gameday.experiment.problems import did_you_mean
from gameday.experiment.text import plural, some
from gameday.experiment.values import LabelValue
from gameday.extend import Evidence, FaultError, FaultPlan, Injected, PlanError, Step
from gameday.faults.gpu.way import GpuFault
from gameday.faults.nodes import check_not_all, node_victim, pick_nodes
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.devices import gpu_resources, gpus, pods_on
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref, is_finished, labels_of
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.faults.gpu import GpuSpec
    from gameday.platform.world import World

LABEL, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
LEAST_PATIENCE = 600.0  # seconds: with a reboot it takes minutes


class MigSpec(Spec):
    """Which partitioning."""

    config: LabelValue = Field(description="Its name in the MIG manager's configuration, as `all-1g.10gb`.")
    allow_in_use: bool = Field(
        False, description="Whether pods may hold the nodes' GPUs; most likely the MIG manager then fails."
    )


class Mig(GpuFault):
    """The label is set, its state waited for, and both again on the way back."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        before = {n["metadata"]["name"]: _label(n, LABEL) for n in nodes}
        wanted = _wanted(spec)
        if unset := [name for name, config in before.items() if not config]:
            raise PlanError(
                f"{', '.join(unset)}: no label {LABEL}, so there is nothing to go back to: is the MIG "
                f"manager there, and the GPU capable of MIG? (`kubectl label node {unset[0]} {LABEL}=…`)"
            )
        if busy := [n["metadata"]["name"] for n in nodes if _label(n, STATE) != "success"]:
            state = next(_label(n, STATE) for n in nodes if n["metadata"]["name"] == busy[0])
            raise PlanError(f"{', '.join(busy)}: {STATE} is {state or 'unset'}, wait for success")
        check_not_all([n for n, config in before.items() if config == wanted], nodes, f"{LABEL}={wanted}")
        warnings = [await self._in_use(n, spec, world) for n in nodes]
        await self._check_known(wanted, nodes[0], world)
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{name}: {LABEL} {config} → {wanted}" for name, config in before.items()),
            warnings=tuple(w for w in warnings if w),
            needs=("list pods", *(f"patch nodes - {name}" for name in before)),
            data={"before": before, "resources": {n["metadata"]["name"]: gpu_resources(n) for n in nodes}},
            basis={f"Node {name}: label {LABEL}": config for name, config in before.items()},
        )

    async def _in_use(self, node: Object, spec: GpuSpec, world: World) -> str:
        """A warning about pods that hold the node's GPUs. Raises PlanError where they may not."""
        name = node["metadata"]["name"]
        holders = [p for p in await pods_on(world.kube, name) if gpus(p)]
        if not holders:
            return ""
        meta, many = holders[0]["metadata"], plural(len(holders), "pod")
        text = f"{name}: GPUs are held by {many} (such as {meta['namespace']}/{meta['name']})"
        if spec.mig is None or not spec.mig.allow_in_use:
            raise PlanError(f"{text}: drain the node first, in a step of its own, or say `allowInUse: true`")
        return text

    async def _check_known(self, wanted: str, node: Object, world: World) -> None:
        """Raises PlanError for a name that the MIG manager's configuration, where it can be read, has not."""
        known = await _configs(node, world)
        if known and wanted not in known:
            hint = did_you_mean(wanted, known)
            raise PlanError(
                f"the MIG manager knows no {wanted}" + (f" ({hint})" if hint else f": {', '.join(known)}")
            )

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        """Whoever emptied the node gives it back after the MIG manager: it gives up on GPUs that are held."""
        label, before = ("metadata", "labels", LABEL), plan.data["before"]
        edits = ((v.ref, Edit(label, _wanted(plan.spec), before[v.ref.name])) for v in plan.victims)
        patches = (Patch.of(step.kube, ref, edit, follows=_follows(ref, plan)) for ref, edit in edits)
        await step.ledger.perform(await asyncio.gather(*patches))

    async def settled(self, plan: FaultPlan[GpuSpec], injected: Injected, world: World) -> Evidence:
        """In or out when the MIG manager is done with the label as it is, and the device plugin is back."""
        found = [n for v in plan.victims if (n := await world.kube.find(v.ref))]
        wanted = _wanted(plan.spec)
        for node in found:
            if _label(node, LABEL) == wanted and _label(node, STATE) == "failed":
                raise FaultError(await _why(node, world))
        working = [n for n in found if _label(n, LABEL) == wanted and _label(n, STATE) != "success"]
        worked = {*injected.data.get("worked", ()), *(n["metadata"]["name"] for n in working)}
        states = {_seen(n, plan, worked) for n in found}
        state = states.pop() if len(states) == 1 else "partial"
        return Evidence(state, tuple(map(_fact, found)), {"worked": sorted(worked)})


def _seen(node: Object, plan: FaultPlan[GpuSpec], worked: set[str]) -> str:
    """The state is the last change's until the MIG manager has seen ours: its work must show, too.

    `worked` are the nodes on whose new label the MIG manager was seen at work.
    """
    name, config, now = node["metadata"]["name"], _label(node, LABEL), gpu_resources(node)
    before = plan.data["resources"][name]
    if _label(node, STATE) != "success":
        return "partial"
    if config == _wanted(plan.spec):
        return "in" if any(now.values()) and (now != before or name in worked) else "partial"
    return "out" if now == before or config != plan.data["before"][name] else "partial"


async def _why(node: Object, world: World) -> str:
    """The failure of a node's MIG manager: it gives no reason in the API, but the usual one can be seen."""
    name = node["metadata"]["name"]
    pods = await world.kube.list(PODS, fields={"spec.nodeName": name})  # those that still end hold theirs
    refs = [Ref.of(p) for p in pods if gpus(p) and not is_finished(p)]
    held = some([f"{r.namespace}/{r.name}" for r in refs])
    why = f"GPUs are held by {held}" if held else "no pod holds its GPUs now"
    return f"the MIG manager failed to make {_label(node, LABEL)} of {name}: {why}; see its log"


def _follows(node: Ref, plan: FaultPlan[GpuSpec]) -> list[tuple[str, ...]]:
    """What the MIG manager brings back of a node: its state, and what the scheduler can give out."""
    resources = [name for name, count in plan.data["resources"][node.name].items() if count]
    return [("metadata", "labels", STATE), *(("status", "allocatable", name) for name in resources)]


def _wanted(spec: GpuSpec) -> str:
    assert spec.mig is not None
    return spec.mig.config


def _fact(node: Object) -> str:
    now = ", ".join(f"{count} {name}" for name, count in gpu_resources(node).items() if count)
    done = f"{_label(node, LABEL)}, state {_label(node, STATE)}"
    return f"{node['metadata']['name']}: {done}, {now or 'none'} allocatable"


def _label(node: Object, label: str) -> str:
    return str(labels_of(node).get(label) or "")


async def _configs(node: Object, world: World) -> list[str]:
    """The names in the configuration that the node's MIG manager mounts; none where it can't be read."""
    import yaml

    for pod in await pods_on(world.kube, node["metadata"]["name"]):
        if labels_of(pod).get("app") != "nvidia-mig-manager":
            continue
        for volume in pod["spec"].get("volumes") or ():
            if volume["name"] == "mig-parted-config":
                ref = Ref("v1", "ConfigMap", volume["configMap"]["name"], pod["metadata"]["namespace"])
                try:
                    data = (await world.kube.get(ref)).get("data") or {}
                    return list(yaml.safe_load(data.get("config.yaml", ""))["mig-configs"])
                except (PlatformError, yaml.YAMLError, TypeError, KeyError):
                    return []
    return []
