"""CustomResourceDefinitions: checks one, marks it established, and serves what it defines."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Catalogue, Resource
from gameday.sandbox.apiserver.rules import now
from gameday.sandbox.apiserver.status import Cause, invalid
from gameday.sandbox.apiserver.store import Event, Where

Json = dict[str, Any]
COLLECTION = ("apiextensions.k8s.io", "customresourcedefinitions")


def accept(resource: Resource, crd: Json) -> None:
    """Refuse a definition that cannot be served; fill in defaults, and the status that says it is served."""
    spec = crd["spec"]
    names = spec.setdefault("names", {})
    name, wanted = crd["metadata"]["name"], f"{names.get('plural')}.{spec.get('group')}"
    versions = spec.get("versions") or []
    causes: list[Cause] = []
    if name != wanted:
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        causes.append(("FieldValueInvalid", message, "metadata.name"))
    if sum(bool(v.get("storage")) for v in versions) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        causes.append(("FieldValueInvalid", message, "spec.versions"))
    for index, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            field = f"spec.versions[{index}].schema.openAPIV3Schema"
            causes.append(("FieldValueRequired", "Required value: schemas are required", field))
    if causes:
        raise invalid(resource, name, causes)
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})
    status = crd.setdefault("status", {})
    status["acceptedNames"] = dict(names)
    status["storedVersions"] = [v["name"] for v in versions if v["storage"]]
    if not status.get("conditions"):
        status["conditions"] = [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]


def _condition(kind: str, reason: str, message: str) -> Json:
    return {
        "type": kind,
        "status": "True",
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }


def observe(catalogue: Catalogue, where: Where, event: Event) -> None:
    """Follow the definitions in the store: serve, serve differently, or no longer."""
    if where[0] != COLLECTION:
        return
    spec = event.new.object["spec"]
    served = [] if event.kind == "DELETED" else [v for v in spec["versions"] if v.get("served")]
    catalogue.replace_custom(spec["group"], spec["names"]["plural"], [_resource(spec, v) for v in served])


def _resource(spec: Json, version: Json) -> Resource:
    names = spec["names"]
    return Resource(
        spec["group"],
        version["name"],
        names["plural"],
        names["kind"],
        namespaced=spec.get("scope") != "Cluster",
        subresources=tuple(version.get("subresources") or ()),
        short=tuple(names.get("shortNames") or ()),
        singular=names["singular"],
        categories=tuple(names.get("categories") or ()),
        custom=version,
    )
