"""What the API makes of an object that is being written: its own metadata, generation, status kept apart."""

from __future__ import annotations

import random
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from gameday.sandbox.apiserver import resize
from gameday.sandbox.apiserver.defaults import fill_in
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import Cause, bad_request, conflict, invalid, modified

Json = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_FREE_NAMES = {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
# collections whose objects count generations, besides all custom resources
_GENERATIONS = {
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "poddisruptionbudgets",
    "replicationcontrollers",
    "pods",
    "customresourcedefinitions",
    "endpointslices",
}
_KEEPS_STATUS = {"nodes", "namespaces", "pods"}  # of these, a creation may carry status
_STRICT_LOCK = {
    "leases",
    "poddisruptionbudgets",
    "customresourcedefinitions",
}  # an update must name a version
_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)
_POD_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")


def now() -> str:
    """The time as metadata has it: whole seconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counts_generations(resource: Resource) -> bool:
    return resource.custom is not None or resource.plural in _GENERATIONS


def check_body(resource: Resource, obj: Any, namespace: str, name: str) -> None:
    """The kind, namespace and name in a body must be those of the URL; missing ones are filled in."""
    if not isinstance(obj, dict):
        raise bad_request("the body of the request is not a JSON object")
    _check_shapes(resource, obj)
    kind, version = obj.setdefault("kind", resource.kind), obj.setdefault("apiVersion", resource.api_version)
    if (kind, version) != (resource.kind, resource.api_version):
        raise bad_request(
            f'{kind} in version "{version.rpartition("/")[2]}" cannot be handled as a {resource.kind}: the '
            f"API version in the data ({version}, Kind={kind}) does not match the expected API version "
            f"({resource.api_version}, Kind={resource.kind})"
        )
    metadata = obj["metadata"]
    if resource.namespaced and metadata.setdefault("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not resource.namespaced:
        metadata.pop("namespace", None)
    if name and metadata.setdefault("name", name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )


_SHAPES: tuple[tuple[str, str, type], ...] = (
    ("", "apiVersion", str),
    ("", "kind", str),
    ("", "metadata", dict),
    ("", "spec", dict),
    ("", "status", dict),
    ("metadata", "name", str),
    ("metadata", "generateName", str),
    ("metadata", "namespace", str),
    ("metadata", "labels", dict),
    ("metadata", "annotations", dict),
    ("metadata", "finalizers", list),
    ("metadata", "ownerReferences", list),
)


def _check_shapes(resource: Resource, obj: Json) -> None:
    """The parts that everything here reads are objects and lists; null is as if it were not there."""
    for parent, key, wanted in _SHAPES:
        holder = obj[parent] if parent else obj
        if holder.get(key) is None:
            holder.pop(key, None)
            if key == "metadata":
                obj["metadata"] = {}
        elif not isinstance(holder[key], wanted):
            found, field = type(holder[key]).__name__, f"{parent}.{key}".strip(".")
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"json: cannot unmarshal {found} into field {field} of type {wanted.__name__}"
            )


def prepare_create(resource: Resource, obj: Json) -> None:
    """Complete a new object in place: name, uid, times, defaults; refuse a bad name or label."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"][:58] + "".join(random.choices(_SUFFIX, k=5))
    check_metadata(resource, metadata)
    for key in _OWNED:
        metadata.pop(key, None)
    metadata["uid"] = str(uuid.UUID(int=random.getrandbits(128), version=4))
    metadata["creationTimestamp"] = now()
    if counts_generations(resource):
        metadata["generation"] = 1
    if resource.has_status and resource.plural not in _KEEPS_STATUS:
        obj.pop("status", None)
    if resource.custom is None:
        fill_in(resource.collection, obj)
    if resource.has_status and resource.custom is None:
        obj.setdefault("status", {})


def check_metadata(resource: Resource, metadata: Json) -> None:
    """Refuse metadata that upstream's validation refuses."""
    name = metadata.get("name") or ""
    causes: list[Cause] = []
    if not name:
        causes.append(
            ("FieldValueRequired", "Required value: name or generateName is required", "metadata.name")
        )
    elif resource.plural not in _FREE_NAMES and (len(name) > 253 or not _SUBDOMAIN.fullmatch(name)):
        causes.append(("FieldValueInvalid", f'Invalid value: "{name}": {_SUBDOMAIN_RULE}', "metadata.name"))
    for key, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str):
            raise bad_request(
                f"json: cannot unmarshal {type(value).__name__} into Go struct field "
                f"ObjectMeta.metadata.labels of type string ({key})"
            )
        if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            message = (
                f'Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric'
            )
            causes.append(("FieldValueInvalid", message + " characters, '-', '_' or '.'", "metadata.labels"))
    for where in ("labels", "annotations"):
        for key in metadata.get(where) or {}:
            if not _KEY.fullmatch(key.lower() if where == "annotations" else key):
                message = f'Invalid value: "{key}": name part must consist of alphanumeric characters'
                causes.append(("FieldValueInvalid", message + ", '-', '_' or '.'", f"metadata.{where}"))
    if causes:
        raise invalid(resource, name, causes)


def check_lock(resource: Resource, old: Json, new: Json, *, unconditional: bool) -> None:
    """The optimistic lock and the uid precondition of an update."""
    wanted, metadata = new["metadata"], old["metadata"]
    version = wanted.get("resourceVersion")
    if not version and not unconditional and (resource.custom is not None or resource.plural in _STRICT_LOCK):
        message = "Invalid value: 0: must be specified for an update"
        raise invalid(
            resource, metadata["name"], [("FieldValueInvalid", message, "metadata.resourceVersion")]
        )
    if version and version != metadata["resourceVersion"]:
        raise modified(resource, metadata["name"])
    if wanted.get("uid") and wanted["uid"] != metadata["uid"]:
        raise conflict(
            resource,
            metadata["name"],
            f"Precondition failed: UID in precondition: {wanted['uid']}, "
            f"UID in object meta: {metadata['uid']}",
        )


def prepare_update(resource: Resource, old: Json, new: Json, subresource: str = "") -> None:
    """Complete the next state of an object in place: what this request may not change is as before."""
    metadata, before = new["metadata"], old["metadata"]
    if subresource == "status":
        _only_status(resource, old, new)
        metadata = new["metadata"]
    elif subresource == "resize":
        resize.keep_to_resources(resource, old, new)
        metadata = new["metadata"]
    elif resource.has_status:
        _keep(new, old, "status")
    for key in (*_OWNED, "name", "namespace", "resourceVersion", "generateName"):
        _keep(metadata, before, key)
    if not subresource:
        check_metadata(resource, metadata)
        _check_finalizers(resource, old, new)
        if resource.custom is None:
            fill_in_update(resource, old, new)
        if resource.plural == "pods":
            _check_pod(resource, old["spec"], new["spec"])
    if counts_generations(resource) and _intent(resource, old) != _intent(resource, new):
        metadata["generation"] = before.get("generation", 0) + 1


def fill_in_update(resource: Resource, old: Json, new: Json) -> None:
    """Defaults again (a PUT may have left fields out), and the fields that creation fixed for good."""
    if resource.plural in ("deployments", "replicasets", "daemonsets", "statefulsets", "jobs"):
        before, after = old["spec"].get("selector"), (new.get("spec") or {}).get("selector")
        if after is None and resource.plural == "jobs":
            new["spec"]["selector"] = before
        elif before != after:
            raise invalid(
                resource,
                new["metadata"]["name"],
                [("FieldValueInvalid", "Invalid value: field is immutable", "spec.selector")],
            )
    if resource.plural not in ("namespaces", "pods"):
        fill_in(resource.collection, new)
    elif resource.plural == "namespaces":
        _keep(new, old, "spec")


def _only_status(resource: Resource, old: Json, new: Json) -> None:
    """A status update changes status; of built-in kinds also labels and annotations, as upstream has it."""
    for key in set(old) | set(new):
        if key not in ("status", "metadata"):
            _keep(new, old, key)
    if resource.custom is not None:
        new["metadata"] = dict(old["metadata"])
    else:
        _keep(new["metadata"], old["metadata"], "ownerReferences")
        _keep(new["metadata"], old["metadata"], "finalizers")


def _keep(new: Json, old: Json, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _check_finalizers(resource: Resource, old: Json, new: Json) -> None:
    if "deletionTimestamp" not in old["metadata"]:
        return
    added = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
    if added:
        message = (
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{', '.join(sorted(repr(a) for a in added))}}}"
        )
        raise invalid(
            resource, old["metadata"]["name"], [("FieldValueForbidden", message, "metadata.finalizers")]
        )


def _check_pod(resource: Resource, old: Json, new: Json) -> None:
    """Of a pod's spec only images, deadlines and added tolerations may change."""

    def fixed(spec: Json) -> Json:
        kept = {k: v for k, v in spec.items() if k not in _POD_MUTABLE}
        for key in ("containers", "initContainers"):
            if key in kept:
                kept[key] = [{k: v for k, v in c.items() if k != "image"} for c in kept[key]]
        return kept

    if old is not new and fixed(old) != fixed(new):
        message = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions "
            "to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it "
            "was previously negative)"
        )
        raise invalid(resource, "", [("FieldValueForbidden", message, "spec")])


def _intent(resource: Resource, obj: Json) -> Any:
    """What a generation counts the changes of: the spec; of custom resources all but metadata and status."""
    if resource.custom is None:
        return obj.get("spec")
    left_out = ("metadata", "status") if resource.has_status else ("metadata",)
    return {k: v for k, v in obj.items() if k not in left_out}
