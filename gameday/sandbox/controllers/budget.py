"""PodDisruptionBudgets: how many evictions are allowed at the moment, written where everybody reads it."""

from __future__ import annotations

import time

from gameday.platform.objects import Object, controller, is_ready
from gameday.sandbox.apiserver import budgets
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import deleting, seconds_of
from gameday.sandbox.recorder import Recorder


class Budgets(Controller):
    kind = "PodDisruptionBudget"
    component = "disruption-controller"

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        super().__init__(cache, recorder)
        cache.listen("Pod", self._pod_changed)
        for owner in ("Deployment", "ReplicaSet"):
            cache.listen(owner, self._owner_scaled)

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        pod = new or old
        if pod is None or (new and old and is_ready(new) == is_ready(old) and deleting(new) == deleting(old)):
            return
        for budget in self.cache.all(self.kind, pod["metadata"]["namespace"]):
            if budgets.selects(budget, pod):
                self.work.add(key_of(budget))

    def _owner_scaled(self, new: Object | None, old: Object | None) -> None:
        if new and old and new["spec"].get("replicas") != old["spec"].get("replicas"):
            for budget in self.cache.all(self.kind, new["metadata"]["namespace"]):
                self.work.add(key_of(budget))

    async def reconcile(self, key: Key) -> float | None:
        budget = self.cache.get(self.kind, key)
        if budget is None or deleting(budget):
            return None
        status = budgets.status(budget, self.cache.all("Pod", key[0]), self._controller_of)
        granted = status.pop("disruptedPods", {})
        before = (budget.get("status") or {}).get("disruptedPods") or {}
        if before:
            status["disruptedPods"] = {name: granted.get(name) for name in before}
        await self.write_status(budget, status)
        since = min(map(seconds_of, granted.values()), default=None)
        return None if since is None else since + budgets.EVICTION_TIME.total_seconds() - time.time()

    def _controller_of(self, obj: Object) -> Object | None:
        owner = controller(obj)
        return self.cache.get(owner["kind"], (obj["metadata"]["namespace"], owner["name"])) if owner else None
