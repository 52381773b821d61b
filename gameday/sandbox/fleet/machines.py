"""Stand-ins for Cluster API's controllers: a MachineSet has its machines, and each machine becomes a node.

Names, labels, conditions and the order of a deletion (cordon, drain, node, machine) are Cluster API's.
"""

from __future__ import annotations

import time

from gameday.platform.objects import Object, Ref, controller, is_ready
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import (
    deleting,
    labels_of,
    new_condition,
    owner_reference,
    seconds_of,
    suffix,
    with_conditions,
)
from gameday.sandbox.fleet.nodes import extra_node
from gameday.sandbox.recorder import Recorder

API = "cluster.x-k8s.io/v1beta2"
FINALIZER = "machine.cluster.x-k8s.io"
PROVISIONING = 4.0  # seconds from a machine to its node
COPIED = "node.cluster.x-k8s.io/"  # labels of this domain go from the machine to its node
POLL = 0.2


class MachineSets(Controller):
    kind = "MachineSet"
    component = "machineset-controller"

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        super().__init__(cache, recorder)
        cache.listen("Machine", self.owner_changed)

    async def reconcile(self, key: Key) -> float | None:
        owner = self.cache.get(self.kind, key)
        if owner is None or deleting(owner):
            return None
        machines = [m for m in self.cache.owned(owner, "Machine") if not deleting(m)]
        for _ in range(owner["spec"].get("replicas", 1) - len(machines)):
            created = await self.kube.create(_machine(owner))
            self.cache.put(created)
            self.say(owner, "SuccessfulCreate", f'Created machine "{created["metadata"]["name"]}"')
            machines.append(created)
        ready = sum(is_ready(m) for m in machines)
        counts = {"replicas": len(machines), "readyReplicas": ready, "availableReplicas": ready}
        await self.write_status(owner, counts)
        return None


class Machines(Controller):
    kind = "Machine"
    component = "machine-controller"

    def __init__(self, cache: Cache, recorder: Recorder, heartbeat: float, kubelet_port: int) -> None:
        super().__init__(cache, recorder)
        self._heartbeat, self._port = heartbeat, kubelet_port
        cache.listen("Node", self._node_changed)

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        for machine in self.cache.all(self.kind):
            if machine["metadata"]["name"] == name:
                self._changed(machine, None)

    async def reconcile(self, key: Key) -> float | None:
        machine = self.cache.get(self.kind, key)
        if machine is None:
            return None
        if deleting(machine):
            return await self._delete(machine)
        node = self.cache.get("Node", ("", key[1]))
        if node is None and not (machine.get("status") or {}).get("nodeRef"):
            left = seconds_of(machine["metadata"]["creationTimestamp"]) + PROVISIONING - time.time()
            if left > 0:
                await self._tell(machine, "Provisioning", False, "NodeDoesNotExist")
                return left
            labels, annotations = _labels(machine), _annotations(machine)
            made, lease = extra_node(key[1], labels, annotations, self._heartbeat, self._port)
            await self.kube.create(lease)
            node = await self.kube.create(made)
            self.cache.put(node)
        ready = node is not None and is_ready(node)
        await self._tell(machine, "Running", ready, "NodeReady" if ready else "NodeNotReady")
        return None

    async def _tell(self, machine: Object, phase: str, ready: bool, reason: str) -> None:
        entries = [
            new_condition(machine, kind, ready, reason) | {"message": ""}
            for kind in ("Ready", "Available", "NodeReady")
        ]
        status: Object = {"phase": phase, "conditions": with_conditions(machine, entries)}
        if phase == "Running":
            status["nodeRef"] = {"name": machine["metadata"]["name"]}
        await self.write_status(machine, status)

    async def _delete(self, machine: Object) -> float | None:
        name = machine["metadata"]["name"]
        await self._tell(machine, "Deleting", False, "Deleting")
        node = self.cache.get("Node", ("", name))
        if node is not None:
            if not node["spec"].get("unschedulable"):
                body = {"spec": {"unschedulable": True}}
                self.cache.put(await self.kube.patch(Ref.of(node), body, "merge"))
            leaving = [p for p in self.cache.pods_on(name) if _is_drained(p)]
            for pod in leaving:
                if not deleting(pod):
                    await self.cache.delete(pod)
            if leaving:
                return POLL
            await self.cache.delete(node)
        for pod in self.cache.pods_on(name):  # nobody would end them any more
            await self.cache.delete(pod, grace=0)
        await self.kube.patch(Ref.of(machine), {"metadata": {"finalizers": None}}, "merge")
        return None


def _machine(owner: Object) -> Object:
    template = owner["spec"]["template"]
    meta = owner["metadata"]
    return {
        "apiVersion": API,
        "kind": "Machine",
        "metadata": {
            "name": f"{meta['name']}-{suffix()}",
            "namespace": meta["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "finalizers": [FINALIZER],
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": template["spec"],
    }


def _labels(machine: Object) -> dict[str, str]:
    return {k: v for k, v in labels_of(machine).items() if k.startswith(COPIED)}


def _annotations(machine: Object) -> dict[str, str]:
    owner = controller(machine) or {}
    return {
        "cluster.x-k8s.io/cluster-name": machine["spec"]["clusterName"],
        "cluster.x-k8s.io/cluster-namespace": machine["metadata"]["namespace"],
        "cluster.x-k8s.io/machine": machine["metadata"]["name"],
        "cluster.x-k8s.io/owner-kind": owner.get("kind", ""),
        "cluster.x-k8s.io/owner-name": owner.get("name", ""),
    }


def _is_drained(pod: Object) -> bool:
    owner = controller(pod) or {}
    return owner.get("kind") not in ("DaemonSet", "Node")
