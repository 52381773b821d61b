"""StatefulSets: pods by their ordinals, one after the other unless podManagementPolicy is Parallel.

As upstream's stateful_set_control.go, but for what nothing here asks for: no volume claims are made, and no
ControllerRevisions are kept, so that a pod below a `partition` that goes comes back with the new template.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gameday.platform.objects import Object, is_finished, is_ready
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.controllers.pods import Pods, available, waited
from gameday.sandbox.facts import deleting, digest, labels_of
from gameday.sandbox.recorder import Recorder

REVISION = "controller-revision-hash"
INDEX = "apps.kubernetes.io/pod-index"
NAME = "statefulset.kubernetes.io/pod-name"


class StatefulSets(Controller):
    kind = "StatefulSet"
    component = "statefulset-controller"

    def __init__(self, cache: Cache, recorder: Recorder, pods: Pods) -> None:
        super().__init__(cache, recorder)
        self._pods = pods
        cache.listen("Pod", self.owner_changed)

    async def reconcile(self, key: Key) -> float | None:
        workload = self.cache.get(self.kind, key)
        if workload is None or deleting(workload):
            return None
        steps = (self._fill, self._shrink, self._update)
        for step in steps:
            if not await step(workload, self._by_ordinal(workload)):
                break
        return await self._status(workload)

    def _by_ordinal(self, workload: Object) -> dict[int, Object]:
        pods = self.cache.owned(workload, "Pod")
        return {int(index): p for p in pods if (index := labels_of(p).get(INDEX))}

    async def _fill(self, workload: Object, pods: Mapping[int, Object]) -> bool:
        """Make what is missing; whether to go on: in order, each pod waits for the one before it."""
        for ordinal in _ordinals(workload):
            pod = pods.get(ordinal)
            if pod is None:
                name = f"{workload['metadata']['name']}-{ordinal}"
                await self._pods.create(workload, self.component, _numbered(workload, name, ordinal), name)
            elif is_finished(pod) and not deleting(pod):
                await self._pods.delete(workload, self.component, [pod])
            if _in_order(workload) and not (pod and _well(workload, pod)):
                return False
        return True

    async def _shrink(self, workload: Object, pods: Mapping[int, Object]) -> bool:
        """Delete what is too many, the last one first; a sick one waits for those before it that are sick."""
        surplus = sorted(pods.keys() - set(_ordinals(workload)), reverse=True)
        sick = [n for n in surplus if not _well(workload, pods[n])]
        for ordinal in surplus:
            if not deleting(pods[ordinal]):
                if _in_order(workload) and ordinal in sick[:-1]:
                    return False
                await self._pods.delete(workload, self.component, [pods[ordinal]])
            if _in_order(workload):
                return False
        return True

    async def _update(self, workload: Object, pods: Mapping[int, Object]) -> bool:
        """Delete the last pod of an older template, once all behind it are well."""
        strategy = workload["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return True
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for ordinal in reversed(_ordinals(workload)[partition:]):
            pod = pods.get(ordinal)
            if pod and labels_of(pod).get(REVISION) != _revision(workload) and not deleting(pod):
                await self._pods.delete(workload, self.component, [pod])
                return False
            if pod is None or not _well(workload, pod):
                return False
        return True

    async def _status(self, workload: Object) -> float | None:
        pods = list(self._by_ordinal(workload).values())
        ready = [p for p in pods if is_ready(p)]
        good = [p for p in ready if available(p, _min_ready(workload))]
        new = _revision(workload)
        old = (workload.get("status") or {}).get("currentRevision") or new
        live = [labels_of(p).get(REVISION) for p in pods if not deleting(p)]
        if live.count(new) == len(ready) == len(pods):
            old = new
        status: dict[str, Any] = {
            "observedGeneration": workload["metadata"].get("generation", 1),
            "replicas": len(pods),
            "readyReplicas": len(ready) or None,
            "availableReplicas": len(good),
            "currentReplicas": live.count(old) or None,
            "updatedReplicas": live.count(new) or None,
            "currentRevision": old,
            "updateRevision": new,
            "collisionCount": 0,
        }
        await self.write_status(workload, status)
        return min((_min_ready(workload) - waited(p) for p in ready if p not in good), default=None)


def _ordinals(workload: Object) -> range:
    start = (workload["spec"].get("ordinals") or {}).get("start", 0)
    return range(start, start + workload["spec"].get("replicas", 1))


def _in_order(workload: Object) -> bool:
    return bool(workload["spec"].get("podManagementPolicy") != "Parallel")


def _min_ready(workload: Object) -> float:
    return float(workload["spec"].get("minReadySeconds") or 0)


def _well(workload: Object, pod: Object) -> bool:
    return not deleting(pod) and not is_finished(pod) and available(pod, _min_ready(workload))


def _revision(workload: Object) -> str:
    return f"{workload['metadata']['name']}-{digest(workload['spec']['template'])}"


def _numbered(workload: Object, name: str, ordinal: int) -> Object:
    template = workload["spec"]["template"]
    meta = template.get("metadata") or {}
    labels = {NAME: name, INDEX: str(ordinal), REVISION: _revision(workload)}
    identity = {"hostname": name, "subdomain": workload["spec"].get("serviceName") or ""}
    return {
        "metadata": {**meta, "labels": {**(meta.get("labels") or {}), **labels}},
        "spec": {**template["spec"], **{k: v for k, v in identity.items() if v}},
    }
