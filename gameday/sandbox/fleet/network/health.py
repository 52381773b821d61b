"""A Node Problem Detector for the fabric: a condition on a node some of whose RDMA ports stay down."""

from __future__ import annotations

import time

from gameday.platform.objects import Object, condition
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import gpus, new_condition
from gameday.sandbox.fleet.network.hardware import Network, Networks
from gameday.sandbox.fleet.nodes import is_simulated, tell
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

CONDITION = "RDMAPortDown"
NOTICED = 5.0  # seconds that a port must be down: a flap is for the alerts, not for taking a node away


class FabricHealth:
    """One work queue over the nodes."""

    def __init__(self, cache: Cache, recorder: Recorder, networks: Networks) -> None:
        self._cache, self._recorder, self._networks = cache, recorder, networks
        self._work: Work[str] = Work("fabric-monitor", self._reconcile)
        self._since: dict[str, float] = {}  # node: since when a port is down
        networks.listen(self._work.add)

    async def run(self) -> None:
        await self._work.run()

    async def _reconcile(self, name: str) -> float | None:
        down = _down(self._networks.of(name))
        if not down:
            self._since.pop(name, None)
        elif (left := self._since.setdefault(name, time.monotonic()) + NOTICED - time.monotonic()) > 0:
            return left
        node = self._cache.get("Node", ("", name))
        if node is None or not is_simulated(node):
            return None
        if condition(node, CONDITION).get("status") == str(bool(down)):
            return None
        entry = (
            new_condition(node, CONDITION, True, "RDMAPortsDown", ", ".join(down)) if down else _healthy(node)
        )
        await tell(self._cache, node, entry)
        self._recorder.event(node, "fabric-monitor", entry["reason"], entry["message"], warning=bool(down))
        return None


def with_fabric(node: Object) -> Object:
    """A GPU node with what the detector says when all is well."""
    if not gpus(node):
        return node
    status = node["status"]
    return {**node, "status": {**status, "conditions": [*status["conditions"], _healthy(node)]}}


def _healthy(node: Object) -> Object:
    return new_condition(node, CONDITION, False, "RDMAPortsActive", "all RDMA ports are active")


def _down(network: Network) -> list[str]:
    return [f"{device} is down" for device, active, _ in network.rdma_ports() if not active]
