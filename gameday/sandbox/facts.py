"""Small facts about Kubernetes objects that both the controllers and the fleet need."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from gameday.platform.objects import Object, condition

GPU = "nvidia.com/gpu"  # the resource that the simulated device plugins give out
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # upstream's: no vowels, so that no words come out


def now(*, micro: bool = False) -> str:
    """The time as the API writes it; Leases have microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Unix seconds of an API timestamp."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def suffix() -> str:
    """Five random letters, as generated names end."""
    return "".join(random.choices(_NAME_LETTERS, k=5))


def digest(value: Any) -> str:
    """A short, stable hash of plain data, fit for a label."""
    raw = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return "".join(_NAME_LETTERS[b % len(_NAME_LETTERS)] for b in raw[:10])


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def new_condition(obj: Object, kind: str, status: bool | str, reason: str = "", message: str = "") -> Object:
    """A condition whose lastTransitionTime is kept when the status is as it was."""
    text = status if isinstance(status, str) else str(status)
    old = condition(obj, kind)
    new: Object = {"type": kind, "status": text}
    new["lastTransitionTime"] = old["lastTransitionTime"] if old.get("status") == text else now()
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    return new


def with_conditions(obj: Object, new: Iterable[Object]) -> list[Object]:
    """The object's conditions with some replaced or added, in a stable order."""
    merged = {c["type"]: c for c in obj.get("status", {}).get("conditions") or ()}
    for entry in new:
        merged[entry["type"]] = entry
    return list(merged.values())


def deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def labels_of(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def gpus(obj: Object) -> int:
    """GPUs of a node, also while its device plugin is away; or those that a pod's containers ask for."""
    if "capacity" in (obj.get("status") or {}):
        return int(obj["status"]["capacity"].get(GPU, 0))
    limits = ((c.get("resources") or {}).get("limits") or {} for c in obj["spec"].get("containers") or ())
    return sum(int(each.get(GPU, 0)) for each in limits)


def tolerates(pod: Object, taint: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The first toleration of a pod that matches a taint."""
    for toleration in pod["spec"].get("tolerations") or ():
        key, effect = toleration.get("key"), toleration.get("effect")
        same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get(
            "value", ""
        )
        if (not key or key == taint["key"]) and (not effect or effect == taint["effect"]) and same_value:
            return dict(toleration)
    return None
