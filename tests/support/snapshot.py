"""Compares the world before and after, object by object: the proof that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object

Snapshot = dict[str, Object]  # "Kind namespace/name" -> what of the object must not change

# Pods, ReplicaSets, Events, Leases and EndpointSlices are left out: controllers make new ones all the time.
KINDS = {
    "v1": [
        *("Node", "Namespace", "ConfigMap", "Secret", "Service", "ServiceAccount"),
        *("PersistentVolumeClaim", "ResourceQuota"),
    ],
    "apps/v1": ["Deployment", "StatefulSet", "DaemonSet"],
    "batch/v1": ["Job", "CronJob"],
    "policy/v1": ["PodDisruptionBudget"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    "apiextensions.k8s.io/v1": ["CustomResourceDefinition"],
    "argoproj.io/v1alpha1": ["Application", "Rollout"],
    "networking.istio.io/v1": ["VirtualService"],
    "sriovnetwork.openshift.io/v1": ["SriovNetworkNodePolicy", "SriovNetworkNodeState"],
    "k8s.cni.cncf.io/v1": ["NetworkAttachmentDefinition"],
    "cluster.x-k8s.io/v1beta2": ["MachineSet"],
}
CHAOS = "chaos-mesh.org/v1alpha1"
# Chaos Mesh's own bookkeeping, one per pod that was ever hit; it stays there upstream too.
CHAOS_BOOKKEEPING = {"PodHttpChaos", "PodIOChaos", "PodNetworkChaos"}
OWN_NAMESPACE = "gameday"  # the ledger's records are meant to stay
# Count on, also when an old template comes back.
REVISIONS = {"deployment.kubernetes.io/revision", "rollout.argoproj.io/revision"}
VOLATILE = ("resourceVersion", "managedFields", "generation")


async def take(kube: Kube) -> Snapshot:
    """Every object that a fault could have changed, without what changes by itself."""
    kinds = [(version, kind) for version, names in KINDS.items() for kind in names]
    kinds += [(CHAOS, kind) for kind in await _chaos_kinds(kube)]
    listed = await asyncio.gather(*(_list(kube, version, kind) for version, kind in kinds))
    return {_name(obj): _lasting(obj) for objects in listed for obj in objects}


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each field that is not as it was; empty when the world is unchanged."""
    lines = [f"{name}: gone" for name in before.keys() - after.keys()]
    lines += [f"{name}: left behind" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        lines += [f"{name}: {change}" for change in _changes(before[name], after[name])]
    return sorted(lines)


@asynccontextmanager
async def unchanged(kube: Kube, within: float = 30.0) -> AsyncIterator[Snapshot]:
    """The block must leave the world as it was; controllers get `within` seconds to follow.

    Following means for instance that the taint of a cordoned node goes a moment after the cordon. What is
    on its way out at the beginning, a namespace of the test before perhaps, may be gone or not.
    """
    before = await take(kube)
    going = _going(before)
    before = {name: obj for name, obj in before.items() if name not in going}
    yield before
    deadline = time.monotonic() + within
    while left := differences(before, await _all_but(kube, going)):
        if time.monotonic() > deadline:
            raise AssertionError("the world is not as it was:\n  " + "\n  ".join(left))
        await asyncio.sleep(0.2)


async def _all_but(kube: Kube, going: set[str]) -> Snapshot:
    return {name: obj for name, obj in (await take(kube)).items() if name not in going}


def _going(snapshot: Snapshot) -> set[str]:
    """What is being deleted, and all that goes with its namespace."""
    ending = {name for name, obj in snapshot.items() if "deletionTimestamp" in obj["metadata"]}
    namespaces = {snapshot[name]["metadata"]["name"] for name in ending if name.startswith("Namespace ")}
    inside = {name for name, obj in snapshot.items() if obj["metadata"].get("namespace") in namespaces}
    return ending | inside


async def _chaos_kinds(kube: Kube) -> list[str]:
    try:
        listed = json.loads(await kube.request("GET", f"/apis/{CHAOS}"))
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    kinds = {r["kind"] for r in listed["resources"] if "/" not in r["name"]}
    return sorted(kinds - CHAOS_BOOKKEEPING)


async def _list(kube: Kube, version: str, kind: str) -> list[Object]:
    """The kind's objects outside gameday's own namespace; none where the cluster does not know the kind."""
    try:
        objects = await kube.list(await kube.resource(version, kind))
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    return [obj for obj in objects if obj["metadata"].get("namespace") != OWN_NAMESPACE]


OWNER = "cluster.x-k8s.io/owner-name"  # on a node that a MachineSet replaces by another when it is lost
NODES_OWN = (
    "name",
    "uid",
    "creationTimestamp",
    "providerID",
    "kubernetes.io/hostname",
    "cluster.x-k8s.io/machine",
)


def _name(obj: Object) -> str:
    meta = obj["metadata"]
    if owner := (meta.get("annotations") or {}).get(OWNER):
        return f"{obj['kind']} of MachineSet {owner}"
    return f"{obj['kind']} {meta['namespace'] + '/' if 'namespace' in meta else ''}{meta['name']}"


def _lasting(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key not in VOLATILE}
    if obj["kind"] == "CustomResourceDefinition":
        return {"metadata": meta}
    if REVISIONS & meta.get("annotations", {}).keys():
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k not in REVISIONS}
    lasting = {key: value for key, value in obj.items() if key not in ("status", "metadata")}
    if obj["kind"] == "Node":
        conditions = obj.get("status", {}).get("conditions", [])
        lasting["conditions"] = {condition["type"]: condition["status"] for condition in conditions}
    if obj["kind"] == "SriovNetworkNodeState":
        lasting["status"] = obj.get("status")  # the node's links as its operator sees them
    lasting |= {"metadata": meta}
    return _without(lasting, NODES_OWN) if OWNER in (meta.get("annotations") or {}) else lasting


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without(v, keys) for k, v in value.items() if k not in keys}


def _changes(before: Any, after: Any, at: str = "") -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(before.get(key), after.get(key), f"{at}.{key}" if at else key)
    else:
        yield f"{at} was {_short(before)}, is {_short(after)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"
