"""The scene of the drain comparison: 10 full and 10 spare nodes, 200 pods, a budget, a real control plane."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.kubelet import ready_status
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from gameday.platform.resources import NODES, PODS
from tests.controlplane.launch import ControlPlane, control_plane
from tests.support.children import Child
from tests.support.polling import eventually

NODE_COUNT = 10
POD_COUNT = 200
MAX_UNAVAILABLE = 30
NAMESPACE = "bench"
FULL = "bench.gameday.dev/drained=yes"  # the label of the nodes to drain


@dataclass
class Scene:
    """A cluster ready to be drained, again and again."""

    plane: ControlPlane
    kube: Kube

    async def arrange(self) -> None:
        """All pods ready on the nodes to drain, all nodes open, the budget untouched."""
        await self._cordon(spare=True, full=False)
        for pod in await self.kube.list(PODS, NAMESPACE):
            if not self._is_full(pod["spec"].get("nodeName") or ""):
                await self.kube.delete(Ref.of(pod), grace=0)
        await eventually(self._pods, self._all_ready_on_full_nodes, within=120, every=0.5)
        await eventually(self._disruptions_allowed, MAX_UNAVAILABLE.__eq__, within=60, every=0.5)
        await self._cordon(spare=False, full=False)

    async def check_drained(self) -> None:
        """Every node to drain is cordoned and empty: the tool under test did its work."""
        nodes = await self.kube.list(NODES, labels=FULL)
        assert all(node["spec"].get("unschedulable") for node in nodes), "a node is not cordoned"
        left = [p for p in await self._pods() if self._is_full(p["spec"].get("nodeName") or "")]
        assert not left, f"{len(left)} pods were left on the drained nodes"

    @staticmethod
    def _is_full(node: str) -> bool:
        return node.startswith("full-")

    async def _pods(self) -> list[Object]:
        return await self.kube.list(PODS, NAMESPACE)

    def _all_ready_on_full_nodes(self, pods: list[Object]) -> bool:
        ready = [p for p in pods if is_true(p, "Ready") and self._is_full(p["spec"]["nodeName"])]
        return len(ready) == len(pods) == POD_COUNT

    async def _disruptions_allowed(self) -> int:
        budget = await self.kube.get(Ref("policy/v1", "PodDisruptionBudget", "pods", NAMESPACE))
        return int(budget.get("status", {}).get("disruptionsAllowed", 0))

    async def _cordon(self, *, spare: bool, full: bool) -> None:
        for node in await self.kube.list(NODES):
            closed = full if self._is_full(node["metadata"]["name"]) else spare
            body = {"spec": {"unschedulable": True if closed else None}}
            await self.kube.patch(Ref.of(node), body, "merge")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="gameday-bench-") as folder:
        async with control_plane(Path(folder)) as plane, await Kube.connect(plane.kubeconfig) as kube:
            for obj in _objects():
                await kube.create(obj)
            for node in await kube.list(NODES):
                await kube.patch(Ref.of(node), {"status": ready_status()}, "merge", subresource="status")
            command = [sys.executable, "-m", "bench.kubelet", str(plane.kubeconfig)]
            kubelets = Child("the simulated kubelets", command, Path(folder) / "kubelets.log")
            try:
                yield Scene(plane, kube)
                kubelets.check()
            finally:
                kubelets.kill()


def _objects() -> list[Object]:
    key, _, value = FULL.partition("=")
    full = [_node(f"full-{i}", {key: value}) for i in range(NODE_COUNT)]
    spare = [_node(f"spare-{i}", {}) for i in range(NODE_COUNT)]
    selector = {"matchLabels": {"app": "pods"}}
    template = {
        "metadata": {"labels": selector["matchLabels"]},
        "spec": {"containers": [{"name": "main", "image": "none"}], "terminationGracePeriodSeconds": 30},
    }
    meta = {"name": "pods", "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gameday"}},  # for the ledger
        *full,
        *spare,
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {"maxUnavailable": MAX_UNAVAILABLE, "selector": selector},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": POD_COUNT, "selector": selector, "template": template},
        },
    ]


def _node(name: str, labels: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
