"""ReplicaSets: as many pods as asked for."""

from __future__ import annotations

from gameday.platform.objects import Object, is_ready
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.controllers.pods import Pods, active, available, expendable, waited
from gameday.sandbox.facts import deleting
from gameday.sandbox.recorder import Recorder


class ReplicaSets(Controller):
    kind = "ReplicaSet"
    component = "replicaset-controller"

    def __init__(self, cache: Cache, recorder: Recorder, pods: Pods) -> None:
        super().__init__(cache, recorder)
        self._pods = pods
        cache.listen("Pod", self.owner_changed)

    async def reconcile(self, key: Key) -> float | None:
        rs = self.cache.get(self.kind, key)
        if rs is None or deleting(rs):
            return None
        wanted = rs["spec"].get("replicas", 1)
        pods = active(self.cache.owned(rs, "Pod"))
        if len(pods) < wanted:
            await self._pods.create_many(rs, self.component, rs["spec"]["template"], wanted - len(pods))
        elif len(pods) > wanted:
            surplus = sorted(pods, key=expendable)[: len(pods) - wanted]
            await self._pods.delete(rs, self.component, surplus)
        return await self._status(rs)

    async def _status(self, rs: Object) -> float | None:
        pods = active(self.cache.owned(rs, "Pod"))
        ready = [p for p in pods if is_ready(p)]
        min_ready = rs["spec"].get("minReadySeconds") or 0
        good = sum(available(p, min_ready) for p in ready)
        await self.write_status(
            rs,
            {
                "replicas": len(pods),
                "fullyLabeledReplicas": len(pods),
                "readyReplicas": len(ready) or None,
                "availableReplicas": good or None,
                "observedGeneration": rs["metadata"].get("generation", 1),
            },
        )
        return None if good == len(ready) else min(min_ready - waited(p) for p in ready)
