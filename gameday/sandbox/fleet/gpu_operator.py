"""The GPU Operator's part that nodes show: how many GPUs are allocatable, and the MIG manager.

As with the kubelet, a node keeps its GPUs while its device plugin's pod runs, and has none to give from the
moment that pod goes; capacity stays.
"""

from __future__ import annotations

from gameday.faults.gpu.device_loss import is_plugin
from gameday.platform.objects import Object, Ref, is_ready
from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet.nodes import GPUS, is_simulated
from gameday.sandbox.work import Work

RESOURCE = "nvidia.com/gpu"


class DevicePlugins:
    """Writes the allocatable GPUs of the simulated nodes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._work: Work[str] = Work("device plugins", self._reconcile)
        self._registered: set[str] = set()  # nodes whose plugin ran at least once
        cache.listen("Pod", self._pod_changed)

    async def run(self) -> None:
        for node in self._cache.all("Node"):
            self._work.add(node["metadata"]["name"])
        await self._work.run()

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        pod = new or old
        if pod and is_plugin(pod) and (node := pod["spec"].get("nodeName")):
            self._work.add(node)

    async def _reconcile(self, name: str) -> float | None:
        node = self._cache.get("Node", ("", name))
        if node is None or not is_simulated(node):
            return None
        if any(is_plugin(p) and is_ready(p) for p in self._cache.pods_on(name)):
            self._registered.add(name)
            count = GPUS
        elif name in self._registered:
            count = 0
        else:
            return None
        if (node.get("status") or {}).get("allocatable", {}).get(RESOURCE) != str(count):
            body = {"status": {"allocatable": {RESOURCE: str(count)}}}
            self._cache.put(await self._cache.kube.patch(Ref.of(node), body, "merge", subresource="status"))
        return None
