"""ResourceQuotas: their limits in force, and what is used of them."""

from __future__ import annotations

from gameday.platform.objects import Object, is_finished
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.quotas import usage
from gameday.sandbox.recorder import Recorder


class Quotas(Controller):
    kind = "ResourceQuota"
    component = "resourcequota-controller"

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        super().__init__(cache, recorder)
        cache.listen("Pod", self._pod_changed)

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        if new and old and is_finished(new) == is_finished(old) and new["spec"] == old["spec"]:
            return
        for quota in self.cache.all(self.kind, (new or old or {})["metadata"]["namespace"]):
            self.work.add(key_of(quota))

    async def reconcile(self, key: Key) -> float | None:
        quota = self.cache.get(self.kind, key)
        if quota is not None:
            hard = quota["spec"].get("hard") or {}
            used = usage(self.cache.all("Pod", key[0]), hard)
            await self.write_status(quota, {"hard": hard, "used": used})
        return None
