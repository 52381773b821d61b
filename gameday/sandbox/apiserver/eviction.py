"""The eviction subresource of pods: a deletion that PodDisruptionBudgets may refuse.

The checks, their order and their sentences are those of the upstream API server (1.36), but for one thing:
the budget's status is computed at the moment of the request, so it is right however late the controllers are.
"""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver import budgets
from gameday.sandbox.apiserver.objects import Deletion, Objects
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.rules import now
from gameday.sandbox.apiserver.status import Refused, bad_request, conflict, too_many_requests
from gameday.sandbox.apiserver.store import Stored, Where

Json = dict[str, Any]
_REFUSAL = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def evict(objects: Objects, pods: Resource, namespace: str, name: str, body: Json, how: Deletion) -> None:
    """Evict a pod, or raise why not: 429 by budget, 404, 409 by precondition, 500 for several budgets."""
    if body.get("metadata", {}).get("name", name) != name:
        raise bad_request("name in URL does not match name in Eviction object")
    pod = objects.get(pods, namespace, name).object
    if not _without_budget(pod):
        found = budgets.matching(objects.store, pod)
        if len(found) > 1:
            raise Refused(500, "", _SEVERAL)
        if found:
            _spend(objects, found[0], pod, how)
    _delete(objects, pods, pod, how)


def _without_budget(pod: Json) -> bool:
    """Whether a pod that goes is no disruption: it does not run, or is going already."""
    phase = pod.get("status", {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]


def _spend(objects: Objects, budget: Stored, pod: Json, how: Deletion) -> None:
    """Take one disruption from a budget, or raise 429."""
    metadata, spec = budget.object["metadata"], budget.object["spec"]
    status = budgets.stored_status(objects.store, budget.object)
    if not budgets.is_ready(pod):
        if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
        if status["currentHealthy"] >= status["desiredHealthy"] > 0:
            return
    if status["disruptionsAllowed"] <= 0:
        raise too_many_requests(_REFUSAL, 0, [_cause(metadata["name"], status)])
    if how.dry_run:
        return
    status["disruptedPods"] = {**status.get("disruptedPods", {}), pod["metadata"]["name"]: now()}
    status["disruptionsAllowed"] -= 1
    where: Where = (budgets.COLLECTION, metadata["namespace"], metadata["name"])
    objects.replace(where, lambda obj: obj.update(status=status))


def _cause(name: str, status: Json) -> Json:
    if status["currentHealthy"] <= status["desiredHealthy"]:
        message = (
            f"The disruption budget {name} needs {status['desiredHealthy']} healthy pods "
            f"and has {status['currentHealthy']} currently"
        )
    else:
        message = f"The disruption budget {name} does not allow evicting pods currently"
    return {"reason": "DisruptionBudget", "message": message}


def _delete(objects: Objects, pods: Resource, pod: Json, how: Deletion) -> None:
    """Mark the pod as disrupted and delete it."""
    metadata = pod["metadata"]
    if how.uid and how.uid != metadata["uid"]:
        why = f"the UID in the precondition ({how.uid}) does not match the UID in record ({metadata['uid']})."
        raise conflict(pods, metadata["name"], why + " The object might have been deleted and then recreated")
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": None,
        "lastTransitionTime": now(),
    }

    def mark(obj: Json) -> None:
        status = obj.setdefault("status", {})
        rest = [c for c in status.get("conditions") or () if c["type"] != "DisruptionTarget"]
        status["conditions"] = [*rest, condition]

    version = how.version
    if not how.dry_run:
        if version and version != metadata["resourceVersion"]:
            objects.delete(pods, metadata["namespace"], metadata["name"], how)  # raises the conflict
        marked = objects.replace((pods.collection, metadata["namespace"], metadata["name"]), mark)
        version = str(marked.version) if version else ""
    deletion = Deletion(how.grace, how.propagation, how.uid, version, how.dry_run)
    objects.delete(pods, metadata["namespace"], metadata["name"], deletion)
