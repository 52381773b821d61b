"""The pods' `resize` subresource: what it lets through and what it refuses, as upstream does."""

from __future__ import annotations

import json
from typing import Any

from gameday.experiment.quantity import parse_quantity
from gameday.platform.objects import MIRROR_POD
from gameday.sandbox.apiserver.defaults import quality
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import Cause, forbidden, invalid
from gameday.sandbox.apiserver.store import Store

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
        present = container.get("resources") or {}
        for section in ("requests", "limits"):
            had, has = present.get(section) or {}, resources.get(section) or {}
            if had.keys() - has.keys():
                text = f"Forbidden: resource {section} cannot be removed"
                _refuse(resource, old, ("FieldValueForbidden", text))
            if any(had.get(k) != v for k, v in has.items() if k not in RESIZABLE):
                text = "Forbidden: only cpu and memory resources are mutable"
                _refuse(resource, old, ("FieldValueForbidden", text))
        container["resources"] = resources
    if MIRROR_POD in (old["metadata"].get("annotations") or {}):
        _refuse(resource, old, ("FieldValueForbidden", "Forbidden: static pods cannot be resized"))
    before = old["status"].get("qosClass")
    if quality(new["spec"]) != before:
        text = f'Invalid value: "{before}": Pod QOS Class may not change as a result of resizing'
        _refuse(resource, old, ("FieldValueInvalid", text))
    states = (old.get("status") or {}).get("containerStatuses") or ()
    if any("running" in (s.get("state") or {}) and not s.get("resources") for s in states):
        text = "Forbidden: Pod running on node without support for resize"
        _refuse(resource, old, ("FieldValueForbidden", text))


def admit(store: Store, resource: Resource, pod: Json) -> None:
    """The PodResize admission plugin: what a pod's node could never give is refused. Raises 403."""
    node = store.get(("", "nodes"), "", pod["spec"].get("nodeName") or "")
    if node is None:
        return
    able = (node.object.get("status") or {}).get("allocatable") or {}
    for name, factor in (("cpu", 1000), ("memory", 1)):
        wanted = sum(parse_quantity(str(r)) for c in pod["spec"]["containers"] if (r := _request(c, name)))
        if wanted > (most := parse_quantity(able.get(name, "0"))):
            amounts = f"requested: {wanted * factor:.0f}, allocatable: {most * factor:.0f}"
            why = f"node didn't have enough allocatable resources: {name}, {amounts}"
            raise forbidden(resource, pod["metadata"]["name"], why)


def _request(container: Json, name: str) -> Any:
    return ((container.get("resources") or {}).get("requests") or {}).get(name)


def _refuse(resource: Resource, old: Json, cause: tuple[str, str]) -> None:
    found: Cause = (*cause, "spec")
    raise invalid(resource, old["metadata"]["name"], [found])
