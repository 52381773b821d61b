"""PodDisruptionBudgets: how many pods may go now, from the pods as they are at this moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gameday.sandbox.apiserver.rules import now
from gameday.sandbox.apiserver.selectors import from_label_selector, labels_match
from gameday.sandbox.apiserver.store import Store, Stored

Json = dict[str, Any]
COLLECTION = ("policy", "poddisruptionbudgets")
PODS = ("", "pods")
_EVICTION_SECONDS = 120  # that a granted eviction may take until its pod counts again


def is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def matching(store: Store, pod: Json) -> list[Stored]:
    """The budgets that select a pod."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    found = []
    for budget in store.collection(COLLECTION).each(metadata["namespace"]):
        requirements = from_label_selector(budget.object["spec"].get("selector"))
        if requirements is not None and labels_match(requirements, labels):
            found.append(budget)
    return found


def status(store: Store, budget: Json) -> Json:
    """The status that the disruption controller would write now."""
    metadata, spec = budget["metadata"], budget["spec"]
    requirements = from_label_selector(spec.get("selector"))
    pods = [
        s.object
        for s in store.collection(PODS).each(metadata["namespace"])
        if requirements is not None and labels_match(requirements, s.object["metadata"].get("labels") or {})
    ]
    before = budget.get("status") or {}
    going = _going(before.get("disruptedPods") or {}, pods)
    healthy = sum(
        is_ready(p) and "deletionTimestamp" not in p["metadata"] and p["metadata"]["name"] not in going
        for p in pods
    )
    expected, desired = _wanted(store, spec, pods)
    allowed = max(0, healthy - desired)
    if expected <= 0:
        allowed = 0
    result: Json = {
        "conditions": _conditions(before.get("conditions") or [], allowed, metadata.get("generation", 1)),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": metadata.get("generation", 1),
    }
    return result | ({"disruptedPods": going} if going else {})


def _going(disrupted: dict[str, str], pods: list[Json]) -> dict[str, str]:
    """The pods whose eviction was granted and whose deletion is not seen yet."""
    present = {p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]}
    oldest = datetime.now(UTC) - timedelta(seconds=_EVICTION_SECONDS)
    return {n: t for n, t in disrupted.items() if n in present and datetime.fromisoformat(t) > oldest}


def _wanted(store: Store, spec: Json, pods: list[Json]) -> tuple[int, int]:
    """(pods expected, pods that must stay healthy)."""
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if isinstance(least, int):
        return len(pods), least
    expected = _scale(store, pods)
    if least is not None:
        return expected, _share(least, expected)
    return expected, max(0, expected - _share(most if most is not None else 0, expected))


def _share(value: int | str, total: int) -> int:
    """A count, or a percentage of the total rounded up, as the disruption controller does."""
    return value if isinstance(value, int) else -(-int(value.rstrip("%")) * total // 100)


def _scale(store: Store, pods: list[Json]) -> int:
    """The replicas that the pods' workloads want: a pod that is missing still counts."""
    scales: dict[str, int] = {}
    for pod in pods:
        workload = _controller(store, pod)
        above = _controller(store, workload) if workload else None  # a ReplicaSet's Deployment
        workload = above or workload
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
