"""The simulated nodes: their objects, and the signs of life that keep them Ready."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator

from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref, condition
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import labels_of, new_condition, now
from gameday.sandbox.recorder import Recorder

log = logging.getLogger("gameday.sandbox")
MARK = "sandbox.gameday.dev/simulated"  # the label that makes a node one of the fleet's
LEASES = "kube-node-lease"
ZONES = ("zone-a", "zone-b", "zone-c")
GPUS = 8
MODEL = "NVIDIA-H100-80GB-HBM3"
BEAT_TASKS = 20  # heartbeats under way at once
_HEALTHY = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
}


def node_objects(gpu_nodes: int, cpu_nodes: int, heartbeat: float, port: int) -> list[Object]:
    """The Node objects and their first Leases; their kubelets are served on `port` of this machine."""
    nodes = [_node(f"gpu-{i}", i, GPUS, port) for i in range(gpu_nodes)]
    nodes += [_node(f"cpu-{i}", gpu_nodes + i, 0, port) for i in range(cpu_nodes)]
    return [*nodes, *(_lease(n["metadata"]["name"], heartbeat) for n in nodes)]


def extra_node(
    name: str, labels: dict[str, str], annotations: dict[str, str], heartbeat: float, port: int
) -> tuple[Object, Object]:
    """A node without GPUs that joins later, and its first Lease; its kubelet is served on `port`."""
    node = _node(name, len(name), 0, port)
    node["metadata"]["labels"] |= labels
    node["metadata"]["annotations"] = annotations
    return node, _lease(name, heartbeat)


def is_simulated(node: Object) -> bool:
    return labels_of(node).get(MARK) == "true"


def address_of(node: str) -> str:
    """A stable address from the block that RFC 2544 sets aside for benchmarks."""
    number = int.from_bytes(node.encode()[-6:], "big") % 65000 + 1
    kind, _, index = node.rpartition("-")
    if index.isdigit():
        number = int(index) + 1 + (32768 if kind.endswith("cpu") else 0)
    return f"198.18.{number // 250 % 256}.{number % 250 + 1}"


def _node(name: str, number: int, gpus: int, port: int) -> Object:
    zone = ZONES[number % len(ZONES)]
    labels = {
        MARK: "true",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "sandbox",
        "topology.kubernetes.io/zone": zone,
        "node.kubernetes.io/instance-type": "gpu-h100-8x" if gpus else "cpu-64",
    }
    resources = {
        "cpu": "128",
        "memory": "2Ti" if gpus else "512Gi",
        "pods": "250",
        "ephemeral-storage": "2Ti",
    }
    if gpus:
        labels |= {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.product": MODEL,
            "nvidia.com/gpu.deploy.device-plugin": "true",
        }
        resources |= {"nvidia.com/gpu": str(gpus), "openshift.io/mlnx_rdma": str(gpus)}
    stamp = now()
    conditions = [
        {
            "type": k,
            "status": s,
            "reason": r,
            "message": m,
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
        }
        for k, (s, r, m) in _HEALTHY.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"sandbox://{zone}/{name}"},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": address_of(name)},
                {"type": "Hostname", "address": name},
                {"type": "InternalDNS", "address": "localhost"},  # where API servers reach the kubelet
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "osImage": "Sandbox Linux",
                "kernelVersion": "6.8.0-sandbox",
                "containerRuntimeVersion": "containerd://2.1.0",
                "kubeletVersion": "v1.36.0",
                "kubeProxyVersion": "",
                "machineID": name,
                "systemUUID": name,
                "bootID": name,
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }


async def tell(cache: Cache, node: Object, *conditions: Object) -> None:
    """Write these conditions of a node and no others: several detectors have a say on each."""
    entries = [c | {"lastHeartbeatTime": now()} for c in conditions]
    body = {"status": {"conditions": entries}}
    cache.put(await cache.kube.patch(Ref.of(node), body, "strategic", subresource="status"))


def _lease(name: str, heartbeat: float) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASES},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": max(1, math.ceil(heartbeat * 4)),
            "renewTime": now(micro=True),
        },
    }


class Heartbeats:
    """Renews the Lease of every simulated node whose kubelet lives, evenly over the interval."""

    def __init__(self, cache: Cache, recorder: Recorder, interval: float) -> None:
        self._cache = cache
        self._recorder = recorder
        self.interval = interval
        self.dead: set[str] = set()  # nodes whose kubelet was switched off
        self._extra: set[asyncio.Future[None]] = set()

    def switch(self, node: str, *, on: bool) -> None:
        """Let a node's signs of life stop, or begin again at once."""
        (self.dead.discard if on else self.dead.add)(node)
        found = self._cache.get("Node", ("", node))
        if on and found is not None:
            self._soon(found)

    def _soon(self, node: Object) -> None:
        task = asyncio.ensure_future(self._beat(node))
        self._extra.add(task)
        task.add_done_callback(self._extra.discard)

    async def run(self) -> None:
        limit = asyncio.Semaphore(BEAT_TASKS)
        self._cache.listen("Node", self._node_changed)
        async with asyncio.TaskGroup() as group:
            while True:
                alive = list(self._alive())
                for node in alive:
                    await limit.acquire()
                    task = group.create_task(self._beat(node))
                    task.add_done_callback(lambda _: limit.release())
                    await asyncio.sleep(self.interval / len(alive))
                if not alive:
                    await asyncio.sleep(self.interval)

    def _alive(self) -> Iterator[Object]:
        for node in self._cache.all("Node"):
            if is_simulated(node) and node["metadata"]["name"] not in self.dead:
                yield node

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        """A node that came without conditions (somebody else created it) gets them at once."""
        if new and old is None and is_simulated(new) and not condition(new, "Ready"):
            self._soon(new)

    async def _beat(self, node: Object) -> None:
        """One sign of life; a missed one is made up for by the next."""
        name = node["metadata"]["name"]
        kube = self._cache.kube
        lease = _lease(name, self.interval)
        try:
            try:
                await kube.patch(Ref.of(lease), {"spec": lease["spec"]}, "merge")
            except ApiError as error:
                if error.status != 404:
                    raise
                await kube.create(lease)
            if condition(node, "Ready").get("status") != "True":  # after the Lease, or it is taken back
                await self._revive(node)
        except PlatformError as error:
            log.debug("no sign of life from %s: %s", name, error)

    async def _revive(self, node: Object) -> None:
        await tell(self._cache, node, *(new_condition(node, k, s, r, m) for k, (s, r, m) in _HEALTHY.items()))
        name = node["metadata"]["name"]
        self._recorder.event(node, "kubelet", "NodeReady", f"Node {name} status is now: NodeReady")
