"""The GPU Operator's part that nodes show: how many GPUs are allocatable, and the MIG manager's work.

As with the kubelet, a node keeps its GPUs while its device plugin's pod runs, and has none to give from the
moment that pod goes; capacity stays. The MIG manager sends the plugin away while it works.
"""

from __future__ import annotations

from gameday.platform.objects import Object, Ref, is_finished, is_ready
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import GPU, gpus, labels_of
from gameday.sandbox.fleet.gpu_health import healthy
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.nodes import GPUS, is_simulated
from gameday.sandbox.work import Work

PLUGIN = "nvidia.com/gpu.deploy.device-plugin"  # the GPU Operator's labels, as its own code spells them
MIG, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
SOCKETS = "/var/lib/kubelet/device-plugins"  # where a plugin registers with its kubelet
PAUSED = "paused-for-mig-change"
TAKES = 1.0  # seconds that the MIG manager needs; minutes in reality
# Devices of one GPU, under the operator's "single" strategy: each is a nvidia.com/gpu.
DEVICES = {
    "all-disabled": 1,
    "all-1g.10gb": 7,
    "all-1g.20gb": 4,
    "all-2g.20gb": 3,
    "all-3g.40gb": 2,
    "all-7g.80gb": 1,
}


class GpuOperator:
    """Writes the allocatable GPUs of the simulated nodes, and the labels of their MIG configuration."""

    def __init__(self, cache: Cache, cards: Gpus) -> None:
        self._cache = cache
        self._gpus = cards
        self._work: Work[str] = Work("gpu-operator", self._reconcile)
        self._registered: set[str] = set()  # nodes whose plugin ran at least once
        self._config: dict[str, str] = {}  # nodes' MIG configuration as it is
        cards.listeners.append(self._work.add)

    async def run(self) -> None:
        self._cache.listen("Pod", self._pod_changed)
        self._cache.listen("Node", self._node_changed)
        for node in self._cache.all("Node"):
            self._work.add(node["metadata"]["name"])
        await self._work.run()

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        pod = new or old
        if pod and _registers(pod) and (node := pod["spec"].get("nodeName")):
            self._work.add(node)

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None and (old is None or labels_of(new) != labels_of(old)):
            self._work.add(new["metadata"]["name"])

    async def _reconcile(self, name: str) -> float | None:
        node = self._cache.get("Node", ("", name))
        if node is None or not is_simulated(node):
            return None
        again = await self._partition(name, node) if MIG in labels_of(node) else None
        await self._write_allocatable(name)
        return again

    async def _write_allocatable(self, name: str) -> None:
        node = self._cache.get("Node", ("", name))
        if any(_registers(p) and is_ready(p) for p in self._cache.pods_on(name)):
            self._registered.add(name)
            each = DEVICES.get(self._config.get(name, ""), 1)
            count = each * (GPUS - len(self._gpus.broken(name)))
        elif name in self._registered:
            count = 0
        else:
            return
        if node and (node.get("status") or {}).get("allocatable", {}).get(GPU) != str(count):
            body = {"status": {"allocatable": {GPU: str(count)}}}
            self._cache.put(await self._cache.kube.patch(Ref.of(node), body, "merge", subresource="status"))

    async def _partition(self, name: str, node: Object) -> float | None:
        """One step of the MIG manager's work; seconds until the next one."""
        labels = labels_of(node)
        wanted = labels[MIG]
        done = {STATE: "success", **({PLUGIN: "true"} if labels.get(PLUGIN) == PAUSED else {})}
        if wanted == self._config.setdefault(name, wanted):
            if done.items() - labels.items():
                await self._label(node, done)
            return None
        if labels.get(STATE) != "pending":
            pause = {PLUGIN: PAUSED} if labels.get(PLUGIN) == "true" else {}
            await self._label(node, {STATE: "pending", **pause})
            return TAKES
        if any(_registers(p) for p in self._cache.pods_on(name)):
            return 0.1
        held = any(gpus(p) and not is_finished(p) for p in self._cache.pods_on(name))
        if wanted not in DEVICES or held:
            await self._label(node, {**done, STATE: "failed"})
            return 5.0
        self._config[name] = wanted
        await self._label(node, done)
        return None

    async def _label(self, node: Object, labels: dict[str, str]) -> None:
        body = {"metadata": {"labels": labels}}
        self._cache.put(await self._cache.kube.patch(Ref.of(node), body, "merge"))


def with_gpus(node: Object) -> Object:
    """A GPU node with what the operator and a Node Problem Detector say on it."""
    if not gpus(node):
        return node
    meta, status = node["metadata"], node["status"]
    meta["labels"] |= {PLUGIN: "true", MIG: "all-disabled", STATE: "success"}
    return {**node, "status": {**status, "conditions": [*status["conditions"], healthy(node)]}}


def _registers(pod: Object) -> bool:
    """Whether a pod can register devices with its kubelet, whatever it is called."""
    volumes = pod["spec"].get("volumes") or ()
    return any((v.get("hostPath") or {}).get("path") == SOCKETS for v in volumes)
