"""What acts on nodes by itself, how it is known to be there, what triggers it, and how it is held off.

Facts, by system:
- Cluster API's MachineHealthCheck (core/reconcilers/machinehealthcheck): a Machine of its selector whose Node
  has one of the conditions for longer than its timeout is deleted, or remediated by its template; not while
  the Machine carries `cluster.x-k8s.io/skip-remediation` or `cluster.x-k8s.io/paused`, nor where more are
  unhealthy than it allows. v1beta1 has `unhealthyConditions` with `timeout`, v1beta2
  `checks.unhealthyNodeConditions` with `timeoutSeconds`, and `checks.unhealthyMachineConditions`, of which
  NodeReady and NodeHealthy follow the Node; OpenShift's is the first, on Machines of its own.
- medik8s' NodeHealthCheck does the same to Nodes of its selector, by `duration`, until `pauseRequests` names
  a reason.
- cluster-autoscaler (its FAQ): removes a node that is unneeded for `--scale-down-unneeded-time` (10 min.), or
  not Ready for `--scale-down-unready-time` (20 min.), unless the node's annotation
  `cluster-autoscaler.kubernetes.io/scale-down-disabled` is "true". Its status is a ConfigMap in kube-system.
- Karpenter (pkg/controllers/disruption, node/health): a node of a NodePool that is empty for
  `consolidateAfter` goes, unless it carries `karpenter.sh/do-not-disrupt: "true"` or the pool's budget is 0.
  With NodeRepair an unhealthy node goes whatever it carries, after what the cloud's policy says.
- kured reboots nodes one at a time, by a lock in an annotation of its DaemonSet; whoever holds that lock
  keeps it from the next reboot.
- NVSentinel cordons, drains, and has a node with a fatal GPU error reset, rebooted or terminated, unless the
  node's label `nvsentinel.dgxc.nvidia.com/managed` or `k8saas.nvidia.com/ManagedByNVSentinel` is "false".
- Managed clouds repair nodes that are not Ready, and EKS (its user guide, "Automatically repair nodes") those
  of managed node groups and of Auto Mode whose accelerator is in error; only a node's labels say that it is
  of one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gameday.experiment.quantity import format_duration, parse_duration
from gameday.experiment.selector import Selector
from gameday.platform.effect import NodeState
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, annotations_of, labels_of, marks_of
from gameday.platform.resources import PODS

Nodes = Sequence[Object]
States = frozenset[NodeState]


@dataclass(frozen=True)
class Reaction:
    """What one remediator may do to a node.

    `who` is the name by which a file allows it; `after` how long the node must be as it is (seconds), None
    for at once; `destroys` whether a node, or what runs there, may be gone afterwards.
    """

    who: str
    says: str
    after: float | None = None
    destroys: bool = True


Remediator = Callable[[Nodes, States, Kube], Awaitable[list[Reaction]]]


# -- machine health checks ---------------------------------------------------------------------------

_CHECKS = (  # the version of a MachineHealthCheck and of its Machines, by which nodes are found
    "cluster.x-k8s.io/v1beta2",
    "cluster.x-k8s.io/v1beta1",
    "machine.openshift.io/v1beta1",
)
_MACHINE = "cluster.x-k8s.io/machine"  # what Cluster API writes on the nodes of its workload clusters
_UNTOUCHED = ("cluster.x-k8s.io/skip-remediation", "cluster.x-k8s.io/paused")
_OF_THE_NODE = {"NodeReady", "NodeHealthy"}  # conditions of a Machine that repeat those of its Node
_OWN = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}  # the kubelet's


async def machine_health_checks(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """Those whose conditions a lost node, or an error of its GPUs, meets."""
    if not states & {NodeState.NOT_READY, NodeState.GPU_ERROR}:
        return []
    found: list[Reaction] = []
    groups: set[str] = set()
    for version in _CHECKS:
        group = version.partition("/")[0]
        machines = None if group in groups else await _list(kube, version, "Machine")
        if machines is None:
            continue
        groups.add(group)
        for check in await _list(kube, version, "MachineHealthCheck") or ():
            found += _of_check(check, machines, nodes, states)
    if not groups and (theirs := [_name(n) for n in nodes if _said(n, _MACHINE)]):
        text = f"manages {', '.join(theirs)} from another cluster: its MachineHealthChecks can't be seen here"
        found.append(Reaction("Cluster API", text, destroys=False))
    return found


def _of_check(check: Object, machines: Sequence[Object], nodes: Nodes, states: States) -> list[Reaction]:
    spec, meta = check["spec"], check["metadata"]
    checks = spec.get("checks") or {}
    of_machines = checks.get("unhealthyMachineConditions") or ()
    conditions = [
        *(checks.get("unhealthyNodeConditions") or spec.get("unhealthyConditions") or ()),
        *(c | {"type": "Ready"} for c in of_machines if c["type"] in _OF_THE_NODE),
    ]
    within = _shortest(conditions, states)
    if within is None or _UNTOUCHED[1] in annotations_of(check):
        return []
    selector = _selector(spec)
    covered = {
        ((m.get("status") or {}).get("nodeRef") or {}).get("name"): m["metadata"]["name"]
        for m in machines
        if m["metadata"].get("namespace") == meta["namespace"]
        and selector.matches(labels_of(m))
        and not any(_said(m, key) or key in annotations_of(m) for key in _UNTOUCHED)
    }
    return [
        Reaction(
            f"MachineHealthCheck/{meta['name']}",
            f"may delete node {_name(n)} with its Machine {meta['namespace']}/{covered[_name(n)]} once it is "
            f"unhealthy for {format_duration(within)}: annotate the Machine with {_UNTOUCHED[0]}",
            within,
        )
        for n in nodes
        if _name(n) in covered
    ]


async def node_health_checks(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """Those of medik8s."""
    if not states & {NodeState.NOT_READY, NodeState.GPU_ERROR}:
        return []
    found = []
    for check in await _list(kube, "remediation.medik8s.io/v1alpha1", "NodeHealthCheck") or ():
        spec, name = check["spec"], check["metadata"]["name"]
        within = _shortest(spec.get("unhealthyConditions") or (), states)
        if within is None or spec.get("pauseRequests"):
            continue
        selector = _selector(spec)
        text = "may reboot or replace node {} once it is unhealthy for {}: name a reason in its pauseRequests"
        found += [
            Reaction(f"NodeHealthCheck/{name}", text.format(_name(n), format_duration(within)), within)
            for n in nodes
            if selector.matches(labels_of(n))
        ]
    return found


def _selector(spec: Object) -> Selector:
    """What a health check selects: everything, where its selector can't be read."""
    try:
        return Selector.from_object(spec.get("selector"))
    except ValueError:
        return Selector()


def _shortest(conditions: Sequence[Object], states: States) -> float | None:
    """Seconds until the first of these conditions counts, of those that a node in these states has."""
    met = [
        c
        for c in conditions
        if (NodeState.NOT_READY in states and c.get("type") == "Ready" and c.get("status") != "True")
        or (NodeState.GPU_ERROR in states and c.get("type") not in _OWN)
    ]
    times = [c.get("timeoutSeconds", c.get("timeout", c.get("duration", 0))) for c in met]
    return min((parse_duration(t) for t in times), default=None)


# -- autoscalers -------------------------------------------------------------------------------------

_KEEPS = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
_STATUS = Ref("v1", "ConfigMap", "cluster-autoscaler-status", "kube-system")
_UNNEEDED, _UNREADY = ("--scale-down-unneeded-time", 600.0), ("--scale-down-unready-time", 1200.0)
_POOL, _UNDISTURBED = "karpenter.sh/nodepool", "karpenter.sh/do-not-disrupt"
_REPAIR = 600.0  # seconds: the shortest that a cloud's repair policy says, for accelerators


async def cluster_autoscaler(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """Where it is there: a node that is emptied or lost for its time is removed."""
    lost = states & {NodeState.EMPTY, NodeState.NOT_READY}
    theirs = [_name(n) for n in nodes if _said(n, _KEEPS) != "true"]
    if not states & {NodeState.UNSCHEDULABLE, *lost} or not theirs or await kube.find(_STATUS) is None:
        return []
    flags = await _flags(kube)
    options = [_UNREADY if state is NodeState.NOT_READY else _UNNEEDED for state in states]
    within = min(parse_duration(flags.get(name, default)) for name, default in options)
    what = "lost" if NodeState.NOT_READY in lost else "empty"
    when = "" if lost else ", after its pods have ended"
    state = f"once it is {what} for {format_duration(within)}{when}"
    text = f"may remove node {{}} {state}: annotate it {_KEEPS}=true"
    return [Reaction("cluster-autoscaler", text.format(n), within, destroys=bool(lost)) for n in theirs]


async def _flags(kube: Kube) -> dict[str, str]:
    """Its flags, where it runs in this cluster: a managed one does not."""
    said: dict[str, str] = {}
    for pod in await kube.list(PODS, "kube-system"):
        for container in pod["spec"].get("containers") or ():
            if "cluster-autoscaler" in container.get("image", ""):
                words = (*(container.get("command") or ()), *(container.get("args") or ()))
                said |= dict(w.split("=", 1) for w in words if w.startswith("--") and "=" in w)
    return said


async def karpenter(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """For the nodes of its pools, which carry their pool's name."""
    theirs = [(n, pool) for n in nodes if (pool := _said(n, _POOL))]
    found: list[Reaction] = []
    if states & {NodeState.EMPTY, NodeState.UNSCHEDULABLE}:
        names = sorted({pool for n, pool in theirs if _said(n, _UNDISTURBED) != "true"})
        refs = (Ref("karpenter.sh/v1", "NodePool", name) for name in names)
        pools = dict(zip(names, await asyncio.gather(*map(kube.find, refs)), strict=True))
        for node, pool in theirs:
            within = (
                _consolidates(pools[pool]) if pool in pools and _said(node, _UNDISTURBED) != "true" else None
            )
            if within is not None:
                text = f"may remove node {_name(node)} once it is empty for {format_duration(within)}"
                text += f": annotate it {_UNDISTURBED}=true"
                found.append(Reaction("Karpenter", text, within, destroys=NodeState.EMPTY in states))
    if states & {NodeState.NOT_READY, NodeState.GPU_ERROR}:
        text = "may replace node {} where NodeRepair is on, whatever the node carries"
        found += [Reaction("Karpenter", text.format(_name(n)), _REPAIR) for n, _ in theirs]
    return found


def _consolidates(pool: Object | None) -> float | None:
    """Seconds after which an empty node of a pool goes; None: never."""
    disruption = ((pool or {}).get("spec") or {}).get("disruption") or {}
    after = str(disruption.get("consolidateAfter") or "0s")
    closed = any(
        str(b.get("nodes")) in ("0", "0%")
        and not b.get("schedule")
        and "Empty" in (b.get("reasons") or ["Empty"])
        for b in disruption.get("budgets") or ()
    )
    return None if after == "Never" or closed else parse_duration(after)


# -- rebooters and XIDs ------------------------------------------------------------------------------

_LOCK = "weave.works/kured-node-lock"
_KURED = Ref("apps/v1", "DaemonSet", "kured", "kube-system")
_SENTINEL = ("nvsentinel.dgxc.nvidia.com/managed", "k8saas.nvidia.com/ManagedByNVSentinel")
_EKS = ("EKS' node auto-repair", {NodeState.NOT_READY: 1800.0, NodeState.GPU_ERROR: 600.0})
_CLOUDS = {  # a label of a managed cloud's nodes: whose repair, and after how many seconds of which state
    "cloud.google.com/gke-nodepool": ("GKE's node auto-repair", {NodeState.NOT_READY: 600.0}),
    "kubernetes.azure.com/agentpool": ("AKS' node auto-repair", {NodeState.NOT_READY: 300.0}),
    "eks.amazonaws.com/nodegroup": _EKS,
    "eks.amazonaws.com/compute-type": _EKS,
}
_TROUBLE = {NodeState.NOT_READY: "it is not Ready", NodeState.GPU_ERROR: "a GPU of it is in error"}


async def kured(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """It is triggered by no fault, but may take a further node, or uncordon one that is ours."""
    daemons = await kube.find(_KURED)
    if daemons is None:
        return []
    try:
        holder = str(json.loads(_said(daemons, _LOCK) or "{}").get("nodeID") or "")
    except (ValueError, AttributeError):
        holder = "somebody"
    if not holder:
        text = "may reboot a node beside those of this step, and uncordon it: hold its lock meanwhile"
        hint = f'(annotate DaemonSet {_KURED.namespace}/{_KURED.name} with {_LOCK}=\'{{"nodeID":"manual"}}\')'
        return [Reaction("kured", f"{text} {hint}", destroys=False)]
    if holder in {_name(n) for n in nodes}:
        return [
            Reaction("kured", f"holds its lock for node {holder}: it reboots and uncordons that node now")
        ]
    if holder != "manual":
        return [Reaction("kured", f"reboots node {holder} now: wait until its lock is free", destroys=False)]
    return []


async def nvsentinel(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """What reads an XID as an error that is real."""
    theirs = [_name(n) for n in nodes if not any(_said(n, label) == "false" for label in _SENTINEL)]
    if NodeState.GPU_ERROR not in states or not theirs:
        return []
    there = await kube.find(Ref("v1", "Namespace", "nvsentinel"))
    if there is None and await _list(kube, "janitor.dgxc.nvidia.com/v1alpha1", "RebootNode") is None:
        return []
    text = f"may cordon, drain, reset, reboot or terminate node {{}}: label it {_SENTINEL[0]}=false"
    return [Reaction("NVSentinel", text.format(name)) for name in theirs]


async def clouds(nodes: Nodes, states: States, kube: Kube) -> list[Reaction]:
    """Managed clouds' own repair, which no object of the cluster shows."""
    return [
        Reaction(
            who,
            f"may replace or reboot node {_name(n)} once {_TROUBLE[state]} for {format_duration(after)}, "
            "where it is on",
            after,
        )
        for n in nodes
        for label, (who, patience) in _CLOUDS.items()
        if _said(n, label)
        for state, after in patience.items()
        if state in states
    ]


REMEDIATORS: tuple[Remediator, ...] = (
    machine_health_checks,
    node_health_checks,
    cluster_autoscaler,
    karpenter,
    kured,
    nvsentinel,
    clouds,
)


async def _list(kube: Kube, api_version: str, kind: str) -> list[Object] | None:
    """All objects of a kind; None where the cluster does not serve the kind."""
    try:
        return await kube.list(await kube.resource(api_version, kind))
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _name(node: Object) -> str:
    return str(node["metadata"]["name"])


def _said(obj: Object, key: str) -> str:
    return str(marks_of(obj).get(key) or "")
