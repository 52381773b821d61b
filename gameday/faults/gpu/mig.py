"""`mig`: the MIG manager partitions a node's GPUs in another way, and back.

The operator's mig-manager follows a node's label `nvidia.com/mig.config`, and says how far it is in
`nvidia.com/mig.config.state`: pending, rebooting, success, failed. It stops the operands that use the GPUs
meanwhile, and gives up when somebody else holds them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gameday.experiment.model import Spec, Text
from gameday.experiment.problems import did_you_mean
from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.faults.nodes import check_not_all, node_victim, pick_nodes
from gameday.ledger.operations import Edit, Patch
from gameday.platform.devices import gpu_resources, pods_on
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref, gpus

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.world import World

LABEL, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
LEAST_PATIENCE = 600.0  # seconds: with a reboot it takes minutes


class MigSpec(Spec):
    """Which partitioning."""

    config: Text = Field(description="Its name in the MIG manager's configuration, as `all-1g.10gb`.")
    allow_in_use: bool = Field(
        False, description="Whether pods may hold the nodes' GPUs; most likely the MIG manager then fails."
    )


class Mig:
    """The label is set, its state waited for, and both again on the way back."""

    def __init__(self) -> None:
        self._worked: set[tuple[str, str]] = set()  # node and config that the MIG manager was seen at work on

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        nodes = await pick_nodes(spec.nodes, world)
        before = {n["metadata"]["name"]: _label(n, LABEL) for n in nodes}
        wanted = spec.mig.config
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
            needs=("patch nodes", "list pods"),
            data={"before": before, "resources": {n["metadata"]["name"]: gpu_resources(n) for n in nodes}},
        )

    async def _in_use(self, node: Object, spec: Any, world: World) -> str:
        """A warning about pods that hold the node's GPUs. Raises PlanError where they may not."""
        name = node["metadata"]["name"]
        holders = [p for p in await pods_on(world.kube, name) if gpus(p)]
        if not holders:
            return ""
        meta = holders[0]["metadata"]
        text = f"{name}: {len(holders)} pods hold GPUs (such as {meta['namespace']}/{meta['name']})"
        if not spec.mig.allow_in_use:
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

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        edit = Edit(("metadata", "labels", LABEL), plan.spec.mig.config)
        await ledger.perform(await asyncio.gather(*(Patch.of(world.kube, v.ref, edit) for v in plan.victims)))

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In or out when the MIG manager is done with the label as it is, and the device plugin is back."""
        found = [n for v in plan.victims if (n := await world.kube.find(v.ref))]
        states = {self._seen(n, plan) for n in found}
        return Evidence(states.pop() if len(states) == 1 else "partial", tuple(map(_fact, found)))

    def _seen(self, node: Object, plan: FaultPlan) -> str:
        """The state is the last change's until the MIG manager has seen ours: its work must show, too."""
        name, config, now = node["metadata"]["name"], _label(node, LABEL), gpu_resources(node)
        before = plan.data["resources"][name]
        if (state := _label(node, STATE)) != "success":
            if state == "failed" and config == plan.spec.mig.config:
                raise FaultError(f"the MIG manager failed to make {config} of {name}: see its log there")
            self._worked.add((name, config))
            return "partial"
        if config == plan.spec.mig.config:
            return (
                "in" if any(now.values()) and (now != before or (name, config) in self._worked) else "partial"
            )
        return "out" if now == before or config != plan.data["before"][name] else "partial"


def _fact(node: Object) -> str:
    now = ", ".join(f"{count} {name}" for name, count in gpu_resources(node).items() if count)
    done = f"{_label(node, LABEL)}, state {_label(node, STATE)}"
    return f"{node['metadata']['name']}: {done}, {now or 'none'} allocatable"


def _label(node: Object, label: str) -> str:
    return str((node["metadata"].get("labels") or {}).get(label) or "")


async def _configs(node: Object, world: World) -> list[str]:
    """The names in the configuration that the node's MIG manager mounts; none where it can't be read."""
    import yaml

    for pod in await pods_on(world.kube, node["metadata"]["name"]):
        if (pod["metadata"].get("labels") or {}).get("app") != "nvidia-mig-manager":
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
