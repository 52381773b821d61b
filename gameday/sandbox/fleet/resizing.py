"""In-place resize as a kubelet acts it out: admitted or deferred, in progress for a moment, then done."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from gameday.experiment.quantity import parse_quantity
from gameday.platform.objects import Object, condition, is_finished
from gameday.sandbox.facts import new_condition, seconds_of

TAKES = 1.0  # seconds that a resize is in progress
RESOURCES = ("cpu", "memory")
PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"


def reported(container: Object) -> Object:
    """What a container's status says of its resources while it runs with those of its spec."""
    resources = container.get("resources") or {}
    return {"resources": resources, "allocatedResources": resources.get("requests") or {}}


def differs(pod: Object) -> bool:
    """Whether a running pod's spec asks for other resources than its containers have, or a resize is told."""
    status = pod.get("status") or {}
    has = {s["name"]: s.get("resources") or {} for s in status.get("containerStatuses") or ()}
    wanted = {c["name"]: c.get("resources") or {} for c in pod["spec"]["containers"] if c["name"] in has}
    return any(has[name] != wanted[name] for name in wanted) or any(
        condition(pod, k) for k in (PENDING, IN_PROGRESS)
    )


def step(pod: Object, node: Object, neighbours: Iterable[Object]) -> tuple[Object | None, float | None]:
    """The status to write next, if any, and the seconds until the next look."""
    shortage = _shortage(pod, node, neighbours)
    kept = [c for c in pod["status"].get("conditions") or () if c["type"] not in (PENDING, IN_PROGRESS)]
    generation = {"observedGeneration": pod["metadata"].get("generation", 0)}
    if shortage:
        told = new_condition(pod, PENDING, True, "Deferred", shortage) | generation
        new = None if condition(pod, PENDING) == told else {"conditions": [*kept, told], **generation}
        return new, TAKES
    since = condition(pod, IN_PROGRESS)
    if not since or since.get("observedGeneration") != pod["metadata"].get("generation", 0):
        started = new_condition({"status": {}}, IN_PROGRESS, True) | generation
        return {"conditions": [*kept, started], **generation}, TAKES
    left = seconds_of(since["lastTransitionTime"]) + TAKES - time.time()
    if left > 0:
        return None, left
    return {"conditions": kept, "containerStatuses": list(_resized(pod)), **generation}, None


def _resized(pod: Object) -> Iterable[Object]:
    containers = {c["name"]: c for c in pod["spec"]["containers"]}
    for state in pod["status"]["containerStatuses"]:
        container = containers[state["name"]]
        yield (
            state
            | reported(container)
            | {"restartCount": state["restartCount"] + _restarts(container, state)}
        )


def _restarts(container: Object, state: Object) -> int:
    """Whether a resizePolicy has the container restarted for what changed."""
    changed = {
        r for s in ("limits", "requests") for r in RESOURCES if _of(container, s, r) != _of(state, s, r)
    }
    policies = container.get("resizePolicy") or ()
    return int(
        any(p["resourceName"] in changed and p["restartPolicy"] == "RestartContainer" for p in policies)
    )


def _of(holder: Object, section: str, resource: str) -> Any:
    return ((holder.get("resources") or {}).get(section) or {}).get(resource)


def _shortage(pod: Object, node: Object, neighbours: Iterable[Object]) -> str:
    """Why a kubelet does not admit the resize for now; "" when it does."""
    others = [p for p in neighbours if p["metadata"]["uid"] != pod["metadata"]["uid"] and not is_finished(p)]
    for resource in RESOURCES:
        able = parse_quantity(node["status"]["allocatable"].get(resource, "0"))
        wanted, taken = _requests([pod], resource), _requests(others, resource)
        if wanted + taken > able:
            text = f"Node didn't have enough resource: {resource}, requested: {wanted:g}, used: {taken:g}"
            return f"{text}, capacity: {able:g}"
    return ""


def _requests(pods: Iterable[Object], resource: str) -> float:
    found = (_of(c, "requests", resource) for p in pods for c in p["spec"]["containers"])
    return sum(parse_quantity(str(f)) for f in found if f is not None)
