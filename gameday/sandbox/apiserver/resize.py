"""The pods' `resize` subresource: what it lets through and what it refuses, as upstream does."""

from __future__ import annotations

import json
from typing import Any

from gameday.platform.objects import MIRROR_POD
from gameday.sandbox.apiserver.defaults import quality
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import Cause, invalid

Json = dict[str, Any]
RESIZABLE = ("cpu", "memory")


def keep_to_resources(resource: Resource, old: Json, new: Json) -> None:
    """Drop every change but those of the containers' resources; refuse the ones a running pod can't take."""
    wanted = [c.get("resources") or {} for c in new["spec"].get("containers") or ()]
    if len(wanted) != len(old["spec"]["containers"]):
        _refuse(resource, old, ("FieldValueForbidden", "Forbidden: containers may not be added or removed"))
    new.clear()
    new.update(json.loads(json.dumps(old)))
    for container, resources in zip(new["spec"]["containers"], wanted, strict=True):
        before = container.get("resources") or {}
        for section in ("requests", "limits"):
            had, has = before.get(section) or {}, resources.get(section) or {}
            if had.keys() - has.keys():
                text = f"Forbidden: resource {section} cannot be removed"
                _refuse(resource, old, ("FieldValueForbidden", text))
            if any(had.get(k) != v for k, v in has.items() if k not in RESIZABLE):
                text = "Forbidden: only cpu and memory resources are mutable"
                _refuse(resource, old, ("FieldValueForbidden", text))
        container["resources"] = resources
    if MIRROR_POD in (old["metadata"].get("annotations") or {}):
        _refuse(resource, old, ("FieldValueForbidden", "Forbidden: static pods cannot be resized"))
    if quality(new["spec"]) != old["status"].get("qosClass"):
        text = (
            f'Invalid value: "{quality(new["spec"])}": Pod QOS Class may not change as a result of resizing'
        )
        _refuse(resource, old, ("FieldValueInvalid", text))
    states = (old.get("status") or {}).get("containerStatuses") or ()
    if any("running" in (s.get("state") or {}) and not s.get("resources") for s in states):
        text = "Forbidden: Pod running on node without support for resize"
        _refuse(resource, old, ("FieldValueForbidden", text))


def _refuse(resource: Resource, old: Json, cause: tuple[str, str]) -> None:
    found: Cause = (*cause, "spec")
    raise invalid(resource, old["metadata"]["name"], [found])
