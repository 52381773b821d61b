"""Node lifecycle: taints for cordoned and silent nodes, eviction of what doesn't tolerate them, lost pods."""

from __future__ import annotations

import asyncio
import time

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.objects import Object, Ref, condition, is_finished, is_true
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import deleting, new_condition, now, seconds_of, tolerates, with_conditions
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
RECHECK = 1.0  # seconds until a node is looked at again for which nobody could be asked
LOST_AFTER = 2.0  # seconds from a node's end to the end of its pods (upstream waits 40)


class Nodes(Controller):
    kind = "Node"
    component = "node-controller"

    def __init__(self, cache: Cache, recorder: Recorder, grace: float) -> None:
        super().__init__(cache, recorder)
        self._grace = grace
        self._away_at = 0.0  # Unix time at which the API last did not answer
        self._evictions: Work[Key] = Work("taint-eviction-controller", self._evict)
        cache.listen("Lease", self._lease_changed)
        cache.listen("Pod", self._pod_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super().run())
            group.create_task(self._evictions.run())

    def _lease_changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None:
            self.work.add(("", new["metadata"]["name"]))

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None and new["spec"].get("nodeName"):
            self._evictions.add(key_of(new))

    def _changed(self, new: Object | None, old: Object | None) -> None:
        super()._changed(new, old)
        obj = new or old
        if obj and (new is None or old is None or _taints(new) != _taints(old)):
            for pod in self.cache.pods_on(obj["metadata"]["name"]):
                self._evictions.add(key_of(pod), after=LOST_AFTER if new is None else 0)

    async def reconcile(self, key: Key) -> float | None:
        """The Ready condition after the Lease, and the taints after spec.unschedulable and Ready."""
        node = self.cache.get(self.kind, key)
        if node is None or deleting(node):
            return None
        left = self._lease_left(node)
        if left is not None and left <= 0 and condition(node, "Ready").get("status") not in (None, "Unknown"):
            if not await self._is_lost(node):
                return RECHECK
            node = await self._mark_unknown(node)
        await self._taint(node)
        return left if left is not None and left > 0 else None

    def _lease_left(self, node: Object) -> float | None:
        """Seconds until the node counts as lost, from its Lease; None where it has none.

        The time in which the API was away is not held against the nodes: nobody could renew then.
        """
        lease = self.cache.get("Lease", ("kube-node-lease", node["metadata"]["name"]))
        if lease is None or not lease["spec"].get("renewTime"):
            return None
        listed = self.cache.listed_at.get("Lease", 0.0)
        seen = max(seconds_of(lease["spec"]["renewTime"]), listed, self._away_at)
        return seen + self._grace - time.time()

    async def _is_lost(self, node: Object) -> bool:
        """Whether the API itself, asked now, has no newer Lease."""
        lease = self.cache.get("Lease", ("kube-node-lease", node["metadata"]["name"]))
        try:
            if lease is not None:
                self.cache.put(await self.kube.get(Ref.of(lease)))
        except Unreachable:
            self._away_at = time.time()
            return False
        return (self._lease_left(node) or 0) <= 0

    async def _mark_unknown(self, node: Object) -> Object:
        text = "Kubelet stopped posting node status."
        kinds = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
        unknown = [new_condition(node, k, "Unknown", "NodeStatusUnknown", text) for k in kinds]
        body = {"status": {"conditions": with_conditions(node, unknown)}}
        node = await self.kube.patch(Ref.of(node), body, "merge", subresource="status")
        self.cache.put(node)
        name = node["metadata"]["name"]
        self.say(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self.cache.pods_on(name):
            if is_true(pod, "Ready"):
                await self._unready(pod)
        return node

    async def _unready(self, pod: Object) -> None:
        changed = with_conditions(pod, [new_condition(pod, "Ready", False)])
        body = {"status": {"conditions": changed}}
        try:
            self.cache.put(await self.kube.patch(Ref.of(pod), body, "merge", subresource="status"))
        except ApiError as error:
            if error.status != 404:
                raise
        self.say(pod, "NodeNotReady", "Node is not ready", warning=True)

    async def _taint(self, node: Object) -> None:
        ready = condition(node, "Ready").get("status")
        wanted = [t for t in _taints(node) if t["key"] not in (UNSCHEDULABLE, NOT_READY, UNREACHABLE)]
        if node["spec"].get("unschedulable"):
            wanted.append({"key": UNSCHEDULABLE, "effect": "NoSchedule"})
        for key, states in ((NOT_READY, ("False", None)), (UNREACHABLE, ("Unknown",))):
            if ready in states:
                wanted += [{"key": key, "effect": "NoSchedule"}, {"key": key, "effect": "NoExecute"}]
        have = {(t["key"], t["effect"]): t for t in _taints(node)}
        if {(t["key"], t["effect"]) for t in wanted} == set(have):
            return
        taints = [have.get((t["key"], t["effect"]), t | {"timeAdded": now()}) for t in wanted]
        body = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"taints": taints or None},
        }
        self.cache.put(await self.kube.patch(Ref.of(node), body, "merge"))

    async def _evict(self, key: Key) -> float | None:
        """Delete a pod that its node's NoExecute taints don't let stay, or whose node is gone."""
        pod = self.cache.get("Pod", key)
        name = pod["spec"].get("nodeName") if pod else None
        if pod is None or name is None:
            return None
        node = self.cache.get("Node", ("", name))
        if node is None:
            await self.cache.delete(pod, grace=0)  # its kubelet will never say that it ended
            return None
        if deleting(pod) or is_finished(pod):
            return None
        left = _may_stay(pod, node)
        if left is None or left > 0:
            return left
        where = f"{key[0]}/{key[1]}"
        self.recorder.event(
            pod, "taint-eviction-controller", "TaintManagerEviction", f"Marking for deletion Pod {where}"
        )
        await self._mark_disrupted(pod)
        await self.cache.delete(pod)
        return None

    async def _mark_disrupted(self, pod: Object) -> None:
        text = "Taint manager: deleting due to NoExecute taint"
        entry = new_condition(pod, "DisruptionTarget", True, "DeletionByTaintManager", text)
        body = {"status": {"conditions": with_conditions(pod, [entry])}}
        self.cache.put(await self.kube.patch(Ref.of(pod), body, "merge", subresource="status"))


def _may_stay(pod: Object, node: Object) -> float | None:
    """Seconds that the pod may stay on; None for ever."""
    shortest: float | None = None
    for taint in _taints(node):
        if taint["effect"] != "NoExecute":
            continue
        toleration = tolerates(pod, taint)
        if toleration is None:
            return 0.0
        if "tolerationSeconds" in toleration:
            since = seconds_of(taint["timeAdded"]) if "timeAdded" in taint else time.time()
            left = max(0.0, since + float(toleration["tolerationSeconds"]) - time.time())
            shortest = left if shortest is None else min(shortest, left)
    return shortest


def _taints(node: Object) -> list[dict[str, str]]:
    return node.get("spec", {}).get("taints") or []
