"""PodDisruptionBudgets: how many pods may go now, for the eviction API and for the disruption controller.

The arithmetic is that of pkg/controller/disruption/disruption.go (Kubernetes 1.36), but for the pods of a
Job: upstream finds no scale of theirs and lets none go, and here a Job's parallelism is its scale.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gameday.sandbox.apiserver.rules import now
from gameday.sandbox.apiserver.selectors import from_label_selector, labels_match
from gameday.sandbox.apiserver.store import Store, Stored

Json = dict[str, Any]
ControllerOf = Callable[[Json], Json | None]  # the object that controls another one, where it is there
COLLECTION = ("policy", "poddisruptionbudgets")
PODS = ("", "pods")
EVICTION_TIME = timedelta(seconds=120)  # that a granted eviction may take until its pod counts again


def is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def selects(budget: Json, pod: Json) -> bool:
    """Whether a budget is for a pod of its namespace. No selector: for none; an empty one: for all."""
    requirements = from_label_selector(budget["spec"].get("selector"))
    return requirements is not None and labels_match(requirements, pod["metadata"].get("labels") or {})


def matching(store: Store, pod: Json) -> list[Stored]:
    """The budgets that select a pod."""
    found = store.collection(COLLECTION).each(pod["metadata"]["namespace"])
    return [budget for budget in found if selects(budget.object, pod)]


def stored_status(store: Store, budget: Json) -> Json:
    """The status that the disruption controller would write now."""
    pods = [s.object for s in store.collection(PODS).each(budget["metadata"]["namespace"])]
    return status(budget, pods, lambda obj: _controller(store, obj))


def status(budget: Json, pods: list[Json], controller_of: ControllerOf) -> Json:
    """A budget's status by the pods of its namespace. `disruptedPods` is left out where there are none."""
    chosen = [p for p in pods if selects(budget, p)]
    before = budget.get("status") or {}
    going = _going(before.get("disruptedPods") or {}, chosen)
    healthy = sum(
        is_ready(p) and "deletionTimestamp" not in p["metadata"] and p["metadata"]["name"] not in going
        for p in chosen
    )
    expected, desired = _wanted(budget["spec"], chosen, controller_of)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    generation = budget["metadata"].get("generation", 1)
    result: Json = {
        "conditions": _conditions(before.get("conditions") or [], allowed, generation),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": generation,
    }
    return result | ({"disruptedPods": going} if going else {})


def _going(disrupted: dict[str, str], pods: list[Json]) -> dict[str, str]:
    """The pods whose eviction was granted and whose deletion is not seen yet."""
    present = {p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]}
    oldest = datetime.now(UTC) - EVICTION_TIME
    return {n: t for n, t in disrupted.items() if n in present and datetime.fromisoformat(t) > oldest}


def _wanted(spec: Json, pods: list[Json], controller_of: ControllerOf) -> tuple[int, int]:
    """(pods expected, pods that must stay healthy)."""
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is not None:
        expected = _scale(pods, controller_of)
        return expected, max(0, expected - _share(most, expected))
    if isinstance(least, int):
        return len(pods), least
    if least is None:
        return 0, 0
    expected = _scale(pods, controller_of)
    return expected, _share(least, expected)


def _share(value: int | str, total: int) -> int:
    """A count, or a percentage of the total rounded up, as the disruption controller does."""
    return value if isinstance(value, int) else -(-int(value.rstrip("%")) * total // 100)


def _scale(pods: list[Json], controller_of: ControllerOf) -> int:
    """The replicas that the pods' workloads want: a missing pod counts, and a pod of no workload does not."""
    scales: dict[str, int] = {}
    for pod in pods:
        workload = controller_of(pod)
        above = controller_of(workload) if workload and workload["kind"] == "ReplicaSet" else None
        if above and above["kind"] == "Deployment":
            workload = above
        if workload:
            spec = workload.get("spec") or {}
            scales[workload["metadata"]["uid"]] = int(spec.get("replicas", spec.get("parallelism", 1)))
    return sum(scales.values())


def _controller(store: Store, obj: Json) -> Json | None:
    for owner in obj["metadata"].get("ownerReferences") or ():
        where = store.by_uid.get(owner["uid"]) if owner.get("controller") else None
        found = store.get(*where) if where else None
        if found:
            return found.object
    return None


def _conditions(before: list[Json], allowed: int, generation: int) -> list[Json]:
    value = "True" if allowed > 0 else "False"
    old = next((c for c in before if c["type"] == "DisruptionAllowed"), None)
    since = old["lastTransitionTime"] if old and old["status"] == value else now()
    return [
        *(c for c in before if c["type"] != "DisruptionAllowed"),
        {
            "type": "DisruptionAllowed",
            "status": value,
            "observedGeneration": generation,
            "lastTransitionTime": since,
            "reason": "SufficientPods" if allowed > 0 else "InsufficientPods",
            "message": "",
        },
    ]
