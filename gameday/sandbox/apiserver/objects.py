"""Create, update and delete by the API's rules: what every request, and the server itself, goes through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gameday.sandbox.apiserver import crds, ownership, quotas, resize, rules, schema, versions
from gameday.sandbox.apiserver.resources import Catalogue, Resource
from gameday.sandbox.apiserver.status import already_exists, conflict, forbidden, invalid, not_found
from gameday.sandbox.apiserver.store import Store, Stored, Where

Json = dict[str, Any]
NAMESPACES = ("", "namespaces")
PODS = ("", "pods")
OWN_MANAGER = "sandbox"  # as whom the sandbox's own controllers and kubelets write
_LEFT_OUT = ("labels", "annotations", "finalizers", "ownerReferences")  # when they are empty
_ORPHANED_BY_DEFAULT = {"jobs", "replicationcontrollers"}  # kept so upstream for old clients
_FINALIZER = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


@dataclass(frozen=True, slots=True)
class Write:
    """How a write was asked for."""

    dry_run: bool = False
    validation: str = "Warn"  # fieldValidation: Ignore, Warn, Strict
    manager: str = ""  # fieldManager; "" for the server's own writes
    applying: bool = False  # server-side apply keeps the record of ownership itself
    warnings: list[str] | None = None  # collects what the Warning headers say


@dataclass(frozen=True, slots=True)
class Deletion:
    """The delete options that have an effect here."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    version: str = ""
    dry_run: bool = False


class Objects:
    """The objects of a cluster, by the rules of its API."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self.store = store
        self.catalogue = catalogue

    def get(self, resource: Resource, namespace: str, name: str) -> Stored:
        found = self.store.get(resource.collection, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    # -- create ----------------------------------------------------------------------------------

    def create(self, resource: Resource, namespace: str, obj: Json, how: Write) -> Stored:
        """Keep a new object; `obj` is given away."""
        rules.check_body(resource, obj, namespace, "")
        if not how.applying:
            obj["metadata"].pop("managedFields", None)
        rules.prepare_create(resource, obj)
        self._conform(resource, obj, how)
        name = obj["metadata"]["name"]
        if resource.namespaced:
            self._check_namespace(resource, namespace, name)
        if resource.plural == "customresourcedefinitions":
            crds.accept(resource, obj)
        if self.store.get(resource.collection, namespace, name):
            raise already_exists(resource, name)
        if resource.collection == PODS:
            quotas.admit(self.store, resource, obj)
        obj = versions.stored(resource, self._storage(resource), obj)
        if how.dry_run:
            return Stored(obj, self.store.version)
        return self.store.put((resource.collection, namespace, name), obj)

    def _storage(self, resource: Resource) -> str:
        kept = self.catalogue.stored(resource.collection)
        return kept.api_version if kept else resource.api_version

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.store.get(NAMESPACES, "", namespace)
        if found is None:
            spaces = self.catalogue.find("", "v1", "namespaces")
            assert spaces is not None
            raise not_found(spaces, namespace)
        if "deletionTimestamp" in found.object["metadata"]:
            raise forbidden(
                resource,
                name,
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )

    def _conform(self, resource: Resource, obj: Json, how: Write) -> None:
        for key in _LEFT_OUT:
            if not obj["metadata"].get(key, True):
                del obj["metadata"][key]
        unknown = schema.conform(resource, obj, strict=how.validation == "Strict")
        if how.validation == "Warn" and how.warnings is not None:
            how.warnings.extend(f'unknown field "{path}"' for path in unknown)

    # -- update ----------------------------------------------------------------------------------

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Json], Json],
        how: Write,
        *,
        subresource: str = "",
        unconditional: bool = True,
    ) -> Stored:
        """Replace an object by what `change` makes of a copy of it. Unchanged objects keep their version.

        `unconditional` says that the request needs to name no resourceVersion (patches, not every PUT).
        """
        old = self.get(resource, namespace, name)
        before = versions.served(resource, old.object)
        new = change(versions.served(resource, json.loads(old.encoded)))
        rules.check_body(resource, new, namespace, name)
        rules.check_lock(resource, before, new, unconditional=unconditional)
        rules.prepare_update(resource, before, new, subresource)
        if subresource == "resize":
            resize.admit(self.store, resource, new)
        self._conform(resource, new, how)
        if resource.plural == "customresourcedefinitions":
            crds.accept(resource, new)
        if not how.applying:
            begin = how.manager not in ("", OWN_MANAGER)
            ownership.follow_update(resource, before, new, how.manager, subresource, begin=begin)
        new = versions.stored(resource, old.object["apiVersion"], new)
        if new == old.object:
            return old
        if how.dry_run:
            return Stored(new, old.version)
        where = (resource.collection, namespace, name)
        return (
            self.store.remove(where, new)
            if _finished(resource.collection, new)
            else self.store.put(where, new)
        )

    def replace(self, where: Where, changes: Callable[[Json], None]) -> Stored:
        """The server's own change of an object: `changes` edits a copy in place; none of the rules apply."""
        key, namespace, name = where
        old = self.store.get(key, namespace, name)
        assert old is not None
        new: Json = json.loads(old.encoded)
        changes(new)
        if new == old.object:
            return old
        return self.store.remove(where, new) if _finished(key, new) else self.store.put(where, new)

    # -- delete ----------------------------------------------------------------------------------

    def delete(self, resource: Resource, namespace: str, name: str, how: Deletion) -> tuple[bool, Stored]:
        """Delete an object, or start to: (whether it is gone, its last or present state)."""
        old = self.get(resource, namespace, name)
        metadata = old.object["metadata"]
        self._check_preconditions(resource, metadata, how)
        grace = _grace(resource, old.object, how.grace)
        finalizers = self._finalizers(resource, old.object, how)
        if how.dry_run:
            return not (grace or finalizers), old
        where = (resource.collection, namespace, name)
        if not grace and not finalizers and not _holds(resource.collection, old.object):
            return True, self.store.remove(where)
        started = "deletionTimestamp" in metadata
        shorter = grace < metadata.get("deletionGracePeriodSeconds", 0)
        if started and not shorter and finalizers == (metadata.get("finalizers") or []):
            return False, old

        def begin(obj: Json) -> None:
            changed = obj["metadata"]
            if shorter or not started:
                due = datetime.now(UTC) + timedelta(seconds=grace)
                changed["deletionTimestamp"] = due.strftime("%Y-%m-%dT%H:%M:%SZ")
                changed["deletionGracePeriodSeconds"] = grace
            if changed.get("generation") and not started:
                changed["generation"] += 1
            if finalizers:
                changed["finalizers"] = finalizers
            if resource.plural == "namespaces":
                obj.setdefault("status", {})["phase"] = "Terminating"

        return False, self.replace(where, begin)

    def _check_preconditions(self, resource: Resource, metadata: Json, how: Deletion) -> None:
        for what, wanted, found, hint in (
            ("UID", how.uid, metadata["uid"], "deleted and then recreated"),
            ("ResourceVersion", how.version, metadata["resourceVersion"], "modified"),
        ):
            if wanted and wanted != found:
                raise conflict(
                    resource,
                    metadata["name"],
                    f"the {what} in the precondition ({wanted}) does not match the {what} in record "
                    f"({found}). The object might have been {hint}",
                )

    def _finalizers(self, resource: Resource, obj: Json, how: Deletion) -> list[str]:
        """The finalizers the object is left with, those of the propagation policy among them."""
        present = list(obj["metadata"].get("finalizers") or ())
        policy = how.propagation
        if not policy:
            kept = next((p for p, f in _FINALIZER.items() if f in present), "")
            policy = kept or ("Orphan" if resource.plural in _ORPHANED_BY_DEFAULT else "Background")
        elif policy not in ("Foreground", "Background", "Orphan"):
            message = (
                f'Invalid value: "{policy}": DeletionPropagation need to be one of "Foreground", '
                '"Background", "Orphan" or nil'
            )
            raise invalid(resource, "", [("FieldValueInvalid", message, "propagationPolicy")])
        rest = [f for f in present if f not in _FINALIZER.values()]
        return [*rest, _FINALIZER[policy]] if policy in _FINALIZER else rest


def _grace(resource: Resource, obj: Json, wanted: int | None) -> int:
    """Seconds until the kubelet must have ended a pod; 0 for all else, and for pods that do not run."""
    if resource.collection != PODS:
        return 0
    if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = int(obj["spec"].get("terminationGracePeriodSeconds", 30)) if wanted is None else wanted
    return 1 if grace < 0 else grace


def _holds(key: tuple[str, str], obj: Json) -> bool:
    """A namespace goes when it is empty, whatever its metadata says."""
    return key == NAMESPACES and bool((obj.get("spec") or {}).get("finalizers"))


def _finished(key: tuple[str, str], obj: Json) -> bool:
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers") or _holds(key, obj):
        return False
    return not metadata.get("deletionGracePeriodSeconds")
