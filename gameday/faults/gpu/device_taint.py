"""`deviceTaint`: single devices of nodes repel claims, or lose the pods that hold them, by DeviceTaintRules.

Facts from Kubernetes 1.36 (pkg/controller/devicetainteviction/device_taint_eviction.go): a pod ends when one
of its claims has an allocated device with a NoExecute taint, unless a toleration in the allocation matches;
that toleration's effect must be NoExecute, while an empty one satisfies the scheduler only. The pod stays for
the shortest `tolerationSeconds` of those that match, and for good where one of them has none. For the effect
None the controller says once in the rule's status what NoExecute would do. The rule's condition appears for
every effect, so that a rule without the condition has not been seen. The condition lags behind evictions: the
pods themselves show who is still there.

A rule is made for each device by its driver, pool and name: devices that are published later are not touched.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gameday.experiment.model import EndingSpec, ObjectName
from gameday.experiment.values import LabelValue, QualifiedName
from gameday.extend import Evidence, FaultPlan, Injected, PlanError, Step
from gameday.faults.gpu.way import GpuFault
from gameday.faults.losing import SLACK
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.ledger.operations import Create
from gameday.platform.claims import GROUP, newest, served
from gameday.platform.effect import Effect, Kind, of_pod
from gameday.platform.objects import Object, Ref, Resource, is_finished

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gameday.faults.gpu import GpuSpec
    from gameday.platform.kube import Kube
    from gameday.platform.world import Approved, World

SEEN = "EvictionInProgress"  # the condition of a rule that the controller has looked at

Device = tuple[str, str, str]  # driver, pool, name: what tells one device from all others


class DeviceTaintSpec(EndingSpec):
    """Which devices of the nodes, and the taint."""

    driver: ObjectName = Field(description="The devices' DRA driver, as `gpu.nvidia.com`.")
    devices: list[ObjectName] | None = Field(
        None, min_length=1, description="Devices of each node, by name; all of the driver's when left out."
    )
    key: QualifiedName = Field("gameday.dev/broken", description="The taint's key.")
    value: LabelValue = Field("", description="The taint's value.")
    effect: Literal["None", "NoSchedule", "NoExecute"] = Field(
        description="None: the cluster says what NoExecute would do. NoSchedule: no claim gets the devices. "
        "NoExecute: the pods that hold them end as well."
    )


class DeviceTaint(GpuFault):
    """DeviceTaintRules, deleted on the way back."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        wanted = _wanted(spec)
        rules = await _served(world.kube, "DeviceTaintRule")
        nodes = await pick_nodes(spec.nodes, world)
        found = await _devices(wanted.driver, world.kube)
        chosen: dict[str, list[Device]] = {}
        victims = []
        for node in nodes:
            name = node["metadata"]["name"]
            fit = _chosen(wanted, name, found.get(name, []))
            chosen[name] = world.choose(fit, len(fit), _was_meant, f"devices of {wanted.driver} on {name}")
            victim = node_victim(node)
            # What is published later is no part of what was approved.
            lost = chosen[name] if world.approved else found[name]
            victims.append(replace(victim, gpus=max(victim.gpus, len(lost))))
        taint = f"{wanted.key}{f'={wanted.value}' if wanted.value else ''}:{wanted.effect}"
        made = {_name(world, d): d for devices in chosen.values() for d in devices}
        return FaultPlan(
            spec,
            tuple(victims),
            changes=tuple(
                f"device taint {taint} on {node}: {', '.join(d for _, _, d in devices)} of {wanted.driver}"
                for node, devices in chosen.items()
            ),
            needs=(
                "list pods",
                *(f"list {kind}.{GROUP}" for kind in ("resourceslices", "resourceclaims")),
                f"create {rules.plural}.{GROUP}",
                *(f"delete {rules.plural}.{GROUP} - {name}" for name in made),
            ),
            data={"version": rules.api_version, "devices": chosen},
        )

    async def effects(self, plan: FaultPlan[GpuSpec], world: World) -> tuple[Effect, ...]:
        """The rules, and the pods that end: those that hold the devices and do not tolerate the taint."""
        spec = _wanted(plan.spec)
        rules = tuple(
            Effect(Kind.CREATED, _ref(plan, world, device), f"taints {device[2]}")
            for device in _planned(plan)
        )
        if spec.effect != "NoExecute":
            return rules
        stands = (world.hold or 0.0) + SLACK
        losing = await _losing(spec, _planned(plan), stands, world)
        text = "ends: a claim of it does not tolerate the device's taint"
        return (*rules, *(of_pod(pod, text, ends=True, comes=True) for pod in losing))

    def may_lose(self, spec: GpuSpec) -> bool:
        return _wanted(spec).force

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        spec = _wanted(plan.spec)
        taint = {"key": spec.key, "value": spec.value, "effect": spec.effect}
        await step.ledger.perform(
            [
                Create.of(
                    {
                        "apiVersion": plan.data["version"],
                        "kind": "DeviceTaintRule",
                        "metadata": {"name": _name(step.world, device)},
                        "spec": {
                            "deviceSelector": dict(zip(("driver", "pool", "device"), device, strict=True)),
                            "taint": {k: v for k, v in taint.items() if v},
                        },
                    },
                    step.world.run,
                )
                for device in _planned(plan)
            ]
        )

    async def settled(self, plan: FaultPlan[GpuSpec], injected: Injected, world: World) -> Evidence:
        """In when the controller has seen each rule and whom it ends is gone; out when none is there."""
        made = injected.of(Create.kind)
        found = [r for r in await asyncio.gather(*(world.kube.find(m.ref) for m in made)) if r]
        if not found:
            return Evidence("out", (f"{len(made)} DeviceTaintRules are gone",))
        facts = tuple(f"{r['metadata']['name']}: {_said(r) or 'not seen by its controller'}" for r in found)
        if len(found) < len(made) or not all(map(_said, found)):
            return Evidence("partial", facts)
        spec = _wanted(plan.spec)
        if spec.effect == "NoExecute" and (left := await _losing(spec, _planned(plan), 0.0, world)):
            names = (f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in left)
            return Evidence("partial", (*facts, f"still there: {', '.join(names)}"))
        return Evidence("in", facts)


def _wanted(spec: GpuSpec) -> DeviceTaintSpec:
    assert spec.device_taint is not None
    return spec.device_taint


async def _served(kube: Kube, kind: str) -> Resource:
    """How the cluster serves a kind of dynamic resource allocation. Raises PlanError where it does not."""
    if found := await served(kube, kind):
        return found
    raise PlanError(
        f"{kube.context} serves no {kind} of {GROUP}: device taints need Kubernetes 1.35 or later with the "
        "feature gate DRADeviceTaintRules on API server, scheduler and controller manager, and the API "
        f"server's --runtime-config={GROUP}/v1beta2=true (1.35: DRADeviceTaints as well, and v1alpha3)"
    )


async def _devices(driver: str, kube: Kube) -> dict[str, list[Device]]:
    """A driver's devices of single nodes, by node; of each pool its newest generation."""
    slices = await kube.list(await _served(kube, "ResourceSlice"))
    found: dict[str, list[Device]] = {}
    for part in newest(s["spec"] for s in slices if s["spec"]["driver"] == driver):
        if node := part.get("nodeName"):
            devices = ((driver, part["pool"]["name"], d["name"]) for d in part.get("devices") or ())
            found.setdefault(node, []).extend(devices)
    return found


def _chosen(spec: DeviceTaintSpec, node: str, found: list[Device]) -> list[Device]:
    """Raises PlanError where the node has not what is meant."""
    if not found:
        raise PlanError(f"{node}: {spec.driver} publishes no device there (see `kubectl get resourceslices`)")
    names = {name for _, _, name in found}
    if missing := sorted(set(spec.devices or ()) - names):
        raise PlanError(
            f"{node}: {spec.driver} publishes no {', '.join(missing)}, but {', '.join(sorted(names))}"
        )
    return sorted(d for d in found if spec.devices is None or d[2] in spec.devices)


def _was_meant(device: Device, approved: Approved) -> bool:
    return device in {(d[0], d[1], d[2]) for devices in approved.data["devices"].values() for d in devices}


def _planned(plan: FaultPlan[GpuSpec]) -> list[Device]:
    """The devices of the nodes that are there still."""
    devices: Mapping[str, Iterable[Any]] = plan.data["devices"]
    return [(d[0], d[1], d[2]) for v in plan.victims for d in devices[v.ref.name]]


def _name(world: World, device: Device) -> str:
    """The same when it is planned and when it is made, so that the run may touch this rule and no other."""
    text = "/".join((str(world.seed), world.step, *device))
    return f"gameday-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _ref(plan: FaultPlan[GpuSpec], world: World, device: Device) -> Ref:
    return Ref(plan.data["version"], "DeviceTaintRule", _name(world, device))


async def _losing(
    spec: DeviceTaintSpec, devices: Iterable[Device], stands: float, world: World
) -> list[Object]:
    """The pods that a NoExecute taint of these devices ends within `stands` seconds. Raises PlanError."""
    tainted = set(devices)
    refs: dict[str, Ref] = {}
    for claim in await world.kube.list(await _served(world.kube, "ResourceClaim")):
        status, meta = claim.get("status") or {}, claim["metadata"]
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        hit = [r for r in results if (r["driver"], r["pool"], r["device"]) in tainted]
        times = [_tolerated(r.get("tolerations") or (), spec) for r in hit]
        if not any(t is not None and t <= stands for t in times):
            continue
        for consumer in status.get("reservedFor") or ():
            if consumer.get("apiGroup") or consumer["resource"] != "pods":
                raise PlanError(
                    f"ResourceClaim {meta['namespace']}/{meta['name']} is reserved for "
                    f"{consumer['resource']} {consumer['name']}: its pods can't be counted"
                )
            ref = Ref("v1", "Pod", consumer["name"], meta["namespace"], consumer["uid"])
            refs[consumer["uid"]] = ref
    pods = await asyncio.gather(*map(world.kube.find, refs.values()))
    return [p for p in pods if p and not is_finished(p)]


def _tolerated(tolerations: Iterable[Object], spec: DeviceTaintSpec) -> float | None:
    """Seconds for which a claim keeps a device with the NoExecute taint; None: as long as it wants."""
    matching = [t for t in tolerations if t.get("effect") == "NoExecute" and _matches(t, spec)]
    if not matching:
        return 0.0
    if any(t.get("tolerationSeconds") is None for t in matching):
        return None
    return min(max(0.0, float(t["tolerationSeconds"])) for t in matching)


def _matches(toleration: Object, spec: DeviceTaintSpec) -> bool:
    """As ToleratesTaint of k8s.io/dynamic-resource-allocation: Equal is the default; no key matches any."""
    key = toleration.get("key") or ""
    if key and key != spec.key:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return (toleration.get("value") or "") == spec.value


def _said(rule: Object) -> str:
    """The controller's words on a rule as it is now; "" before the controller has seen the rule."""
    for condition in (rule.get("status") or {}).get("conditions") or ():
        seen = condition.get("observedGeneration", 0) >= rule["metadata"].get("generation", 0)
        if condition["type"] == SEEN and seen:
            return f"{condition['reason']}: {condition.get('message', '')}".rstrip(": ")
    return ""
