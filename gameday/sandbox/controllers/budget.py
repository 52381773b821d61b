"""PodDisruptionBudgets: how many evictions are allowed at the moment, which the eviction API reads."""

from __future__ import annotations

import math
import time

from gameday.platform.objects import Object, controller, is_finished, is_ready
from gameday.sandbox.apiserver.selectors import from_label_selector, labels_match
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import deleting, labels_of, new_condition, now, seconds_of, with_conditions
from gameday.sandbox.recorder import Recorder

EVICTION_TIME = 120.0  # seconds that an eviction may take until its pod counts as healthy again; upstream's


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
            if _selects(budget, pod):
                self.work.add(key_of(budget))

    def _owner_scaled(self, new: Object | None, old: Object | None) -> None:
        if new and old and new["spec"].get("replicas") != old["spec"].get("replicas"):
            for budget in self.cache.all(self.kind, new["metadata"]["namespace"]):
                self.work.add(key_of(budget))

    async def reconcile(self, key: Key) -> float | None:
        budget = self.cache.get(self.kind, key)
        if budget is None or deleting(budget):
            return None
        pods = [p for p in self.cache.all("Pod", key[0]) if _selects(budget, p) and not is_finished(p)]
        evicting, wait = _evicting(budget, pods)
        expected, desired = self._expectation(budget, pods)
        healthy = sum(is_ready(p) and p["metadata"]["name"] not in evicting for p in pods)
        allowed = max(0, healthy - desired) if expected else 0
        reason = "SufficientPods" if allowed else "InsufficientPods"
        entry = new_condition(budget, "DisruptionAllowed", allowed > 0, reason)
        entry |= {"message": "", "observedGeneration": budget["metadata"].get("generation", 1)}
        gone = {n: None for n in (budget.get("status") or {}).get("disruptedPods") or {} if n not in evicting}
        await self.write_status(
            budget,
            {
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "disruptionsAllowed": allowed,
                "expectedPods": expected,
                "observedGeneration": budget["metadata"].get("generation", 1),
                "conditions": with_conditions(budget, [entry]),
                **({"disruptedPods": gone} if gone else {}),
            },
        )
        return wait

    def _expectation(self, budget: Object, pods: list[Object]) -> tuple[int, int]:
        """Expected pods and how many of them must be healthy. Percentages round up, of both bounds."""
        spec = budget["spec"]
        if "maxUnavailable" in spec:
            expected = self._scale(pods)
            return expected, max(0, expected - _amount(spec["maxUnavailable"], expected))
        least = spec.get("minAvailable", 1)
        expected = len(pods) if isinstance(least, int) else self._scale(pods)
        return expected, _amount(least, expected)

    def _scale(self, pods: list[Object]) -> int:
        """What the pods' owners were asked for: a pod that is missing still counts."""
        owners: dict[str, int] = {}
        for pod in pods:
            uid, count = self._owner(pod)
            owners[uid] = count if uid not in owners else max(owners[uid], count)
        return sum(owners.values())

    def _owner(self, pod: Object) -> tuple[str, int]:
        """The topmost workload's uid and its replicas; 1 for a pod of its own."""
        found: tuple[str, int] = (pod["metadata"]["uid"], 1)
        namespace, owner = pod["metadata"]["namespace"], controller(pod)
        while owner is not None:
            workload = self.cache.get(owner["kind"], (namespace, owner["name"]))
            if workload is None:
                break
            spec = workload["spec"]
            found = (owner["uid"], spec.get("replicas", spec.get("parallelism", 1)))
            owner = controller(workload)
        return found


def _evicting(budget: Object, pods: list[Object]) -> tuple[set[str], float | None]:
    """Pods whose eviction was granted and isn't seen yet, and when to look whether it ever came."""
    noted = (budget.get("status") or {}).get("disruptedPods") or {}
    present = {p["metadata"]["name"]: p for p in pods}
    evicting = {p for p in present if deleting(present[p])}
    wait: float | None = None
    for name, since in noted.items():
        left = seconds_of(since or now()) + EVICTION_TIME - time.time()
        if name in present and name not in evicting and left > 0:
            evicting.add(name)
            wait = min(left, wait or left)
    return evicting, wait


def _selects(budget: Object, pod: Object) -> bool:
    """Without a selector a budget is for no pod, with an empty one for all (policy/v1)."""
    requirements = from_label_selector(budget["spec"].get("selector"))
    return requirements is not None and labels_match(requirements, labels_of(pod))


def _amount(value: int | str, total: int) -> int:
    return value if isinstance(value, int) else math.ceil(total * float(value.rstrip("%")) / 100)
