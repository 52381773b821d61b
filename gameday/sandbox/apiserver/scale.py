"""The scale subresource: a workload's replicas as an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import invalid

Json = dict[str, Any]
_DEFAULT = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": "",
}


def _paths(resource: Resource) -> Json:
    declared = ((resource.custom or {}).get("subresources") or {}).get("scale") or {}
    return {**_DEFAULT, **declared}


def read_scale(resource: Resource, obj: Json) -> Json:
    """The Scale of an object."""
    paths, metadata = _paths(resource), obj["metadata"]
    selector = _at(obj, paths["labelSelectorPath"]) if resource.custom else _selector_text(obj)
    status: Json = {"replicas": _at(obj, paths["statusReplicasPath"]) or 0}
    if selector:
        status["selector"] = selector
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {"replicas": _at(obj, paths["specReplicasPath"]) or 0},
        "status": status,
    }


def write_scale(resource: Resource, obj: Json, scale: Json) -> Json:
    """`obj`, changed in place to the replicas (and the version, for the lock) of a Scale."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid(resource, obj["metadata"]["name"], [("FieldValueInvalid", message, "spec.replicas")])
    *parents, last = _paths(resource)["specReplicasPath"].strip(".").split(".")
    place = obj
    for step in parents:
        place = place.setdefault(step, {})
    place[last] = replicas
    wanted = (scale.get("metadata") or {}).get("resourceVersion")
    if wanted:
        obj["metadata"]["resourceVersion"] = wanted
    return obj


def _at(obj: Any, path: str) -> Any:
    for step in path.strip(".").split(".") if path else ():
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj if path else None


def _selector_text(obj: Json) -> str:
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
