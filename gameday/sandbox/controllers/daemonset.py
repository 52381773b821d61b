"""DaemonSets: one pod on every node that takes it."""

from __future__ import annotations

from typing import Any

from gameday.platform.objects import Object, is_finished, is_ready
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.controllers.pods import Pods, active
from gameday.sandbox.controllers.scheduler import node_fits
from gameday.sandbox.facts import deleting, digest, labels_of
from gameday.sandbox.recorder import Recorder

HASH = "controller-revision-hash"
_TOLERATED = (  # what upstream's controller adds to every daemon pod
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class DaemonSets(Controller):
    kind = "DaemonSet"
    component = "daemonset-controller"

    def __init__(self, cache: Cache, recorder: Recorder, pods: Pods) -> None:
        super().__init__(cache, recorder)
        self._pods = pods
        cache.listen("Pod", self.owner_changed)
        cache.listen("Node", self._node_changed)

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        if new and old and labels_of(new) == labels_of(old) and new.get("spec") == old.get("spec"):
            return  # a heartbeat
        for each in self.cache.all(self.kind):
            self.work.add(key_of(each))

    async def reconcile(self, key: Key) -> float | None:
        daemons = self.cache.get(self.kind, key)
        if daemons is None or deleting(daemons):
            return None
        template = daemons["spec"]["template"]
        hashed = digest(template)
        eligible = {n["metadata"]["name"] for n in self.cache.all("Node") if _should_run(daemons, n)}
        pods = self.cache.owned(daemons, "Pod")
        placed = {node_of(p) for p in pods if not is_finished(p)}
        missing = sorted(eligible - placed)
        for name in missing:
            await self._pods.create(daemons, self.component, _for_node(template, name, hashed))
        await self._pods.delete(daemons, self.component, self._unwanted(daemons, pods, eligible, hashed))
        await self._status(daemons, eligible, hashed)
        return None

    def _unwanted(self, daemons: Object, pods: list[Object], eligible: set[str], hashed: str) -> list[Object]:
        """Misplaced and failed pods, and of outdated ones as many as may be away at once."""
        live = [p for p in pods if not deleting(p)]
        unwanted = [p for p in live if not self._may_stay(daemons, p, eligible) or is_finished(p)]
        strategy = daemons["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") == "RollingUpdate" and len(live) == len(pods) == len(
            eligible
        ):
            outdated = [p for p in live if labels_of(p).get(HASH) != hashed]
            if outdated and all(is_ready(p) for p in live if p not in outdated):
                unwanted += outdated[:1]
        return unwanted

    def _may_stay(self, daemons: Object, pod: Object, eligible: set[str]) -> bool:
        """A pod that is there stays, as upstream, when a new one would only be kept off by NoSchedule."""
        node = self.cache.get("Node", ("", node_of(pod)))
        if node is None or node_of(pod) in eligible:
            return node is not None
        taints = [t for t in node["spec"].get("taints") or () if t["effect"] == "NoExecute"]
        return _should_run(
            daemons, node | {"spec": node["spec"] | {"taints": taints, "unschedulable": False}}
        )

    async def _status(self, daemons: Object, eligible: set[str], hashed: str) -> None:
        pods = [p for p in active(self.cache.owned(daemons, "Pod")) if node_of(p) in eligible]
        ready = sum(is_ready(p) for p in pods)
        await self.write_status(
            daemons,
            {
                "currentNumberScheduled": len(pods),
                "desiredNumberScheduled": len(eligible),
                "numberMisscheduled": 0,
                "numberReady": ready,
                "numberAvailable": ready or None,
                "numberUnavailable": len(eligible) - ready or None,
                "updatedNumberScheduled": sum(labels_of(p).get(HASH) == hashed for p in pods) or None,
                "observedGeneration": daemons["metadata"].get("generation", 1),
            },
        )


def node_of(pod: Object) -> str:
    """The node a daemon pod is on, or is meant for while it waits."""
    bound = pod["spec"].get("nodeName")
    if bound:
        return str(bound)
    affinity: Any = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def _for_node(template: Object, node: str, hashed: str) -> Object:
    spec = dict(template["spec"])
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    spec["tolerations"] = [
        *(spec.get("tolerations") or ()),
        *({"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": e} for k, e in _TOLERATED),
    ]
    labels = {**(template["metadata"].get("labels") or {}), HASH: hashed}
    return {"metadata": {**template["metadata"], "labels": labels}, "spec": spec}


def _should_run(daemons: Object, node: Object) -> bool:
    template = daemons["spec"]["template"]
    pod = _for_node(template, node["metadata"]["name"], "")
    pod["spec"]["affinity"] = template["spec"].get("affinity")  # the workload's own, not the one node's
    return not deleting(node) and node_fits(pod, node) is None
