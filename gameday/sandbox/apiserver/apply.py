"""Server-side apply: who owns which fields, conflicts, and fields that go when their applier drops them.

Ownership is recorded from the first write on that does not come from the sandbox itself (what was there
before belongs to "before-first-apply", as upstream has it of objects without a record): upstream records
from the creation on, which would double the memory of 5,000 nodes and their pods.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gameday.sandbox.apiserver import fieldsets, rules
from gameday.sandbox.apiserver.fieldsets import Path
from gameday.sandbox.apiserver.objects import Objects, Write
from gameday.sandbox.apiserver.ownership import BEFORE, Owner, read, record
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.routes import Request
from gameday.sandbox.apiserver.status import Refused, bad_request, not_found
from gameday.sandbox.apiserver.store import Stored

Json = dict[str, Any]


def apply(objects: Objects, request: Request, body: Any, how: Write) -> tuple[bool, Stored]:
    """Create or change an object to what the manager applies: (whether it is new, the object)."""
    resource = request.resource
    if not isinstance(body, dict) or "kind" not in body or "apiVersion" not in body:
        raise bad_request("error decoding YAML: Object 'Kind' and 'apiVersion' must be set")
    if not request.query.get("fieldManager"):
        raise bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
            "is required for apply patch"
        )
    if (body.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    rules.check_body(resource, body, request.namespace, request.name)
    how = replace(how, applying=True)
    owner: Owner = (request.manager, "Apply", request.subresource)
    applied = fieldsets.fields(resource, body)
    if objects.store.get(resource.collection, request.namespace, request.name) is None:
        if request.subresource:
            raise not_found(resource, request.name)
        record(body, {owner: applied}, resource.api_version)
        return True, objects.create(resource, request.namespace, body, how)
    force = request.query.get("force") in ("true", "1")

    def change(live: Json) -> Json:
        owners = read(live) or {BEFORE: fieldsets.fields(resource, live)}
        if not force:
            _check_conflicts(resource, live, body, applied, owners, owner)
        merged: Json = fieldsets.merge(resource, live, body)
        _drop(resource, merged, owners, owner, applied)
        for other in list(owners):
            if other != owner:
                owners[other] -= {p for p in applied if fieldsets.value(live, p) != fieldsets.value(body, p)}
        owners[owner] = applied
        record(merged, owners, resource.api_version)
        return merged

    return False, objects.update(
        resource, request.namespace, request.name, change, how, subresource=request.subresource
    )


def _check_conflicts(
    resource: Resource,
    live: Json,
    body: Json,
    applied: set[Path],
    owners: dict[Owner, set[Path]],
    owner: Owner,
) -> None:
    """Raise 409 naming each field that another manager owns with another value."""
    causes, texts = [], []
    for other, theirs in sorted(owners.items()):
        if other == owner:
            continue
        differ = [p for p in applied & theirs if fieldsets.value(live, p) != fieldsets.value(body, p)]
        names = sorted(map(fieldsets.text, differ))
        who = f'"{other[0]}"' + (f" using {resource.api_version}" if other[1] == "Update" else "")
        message = f"conflict with {who}"
        causes += [{"reason": "FieldManagerConflict", "message": message, "field": n} for n in names]
        if len(names) == 1:
            texts.append(f"{message}: {names[0]}")
        elif names:
            texts.append("\n- ".join([f"conflicts with {who}:", *names]))
    if causes:
        noun = "conflict" if len(causes) == 1 else "conflicts"
        message = f"Apply failed with {len(causes)} {noun}: " + "\n".join(texts)
        raise Refused(409, "Conflict", message, {"causes": causes})


def _drop(
    resource: Resource, merged: Json, owners: dict[Owner, set[Path]], owner: Owner, applied: set[Path]
) -> None:
    """Remove what this manager applied before and does not now, unless somebody else owns it too."""
    others = set().union(*(p for o, p in owners.items() if o != owner)) if len(owners) > 1 else set()
    kept = {path[:n] for path in others | applied for n in range(1, len(path) + 1)}
    for path in sorted(owners.get(owner, set()) - kept, key=len):  # an item of a list before its fields
        if not fieldsets.is_key(path):
            fieldsets.remove(merged, path)
