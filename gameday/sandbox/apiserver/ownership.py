"""Who owns which fields of an object: metadata.managedFields, read, written and kept up to date."""

from __future__ import annotations

import json
from typing import Any

from gameday.sandbox.apiserver import fieldsets, rules
from gameday.sandbox.apiserver.fieldsets import Path
from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]
Owner = tuple[str, str, str]  # manager, Apply or Update, subresource
BEFORE: Owner = ("before-first-apply", "Update", "")  # whose everything is that was there before the record


def read(obj: Json) -> dict[Owner, set[Path]]:
    """Who owns what, from metadata.managedFields."""
    found = {}
    for entry in obj["metadata"].get("managedFields") or ():
        owner = (entry["manager"], entry["operation"], entry.get("subresource", ""))
        found[owner] = fieldsets.from_v1(entry.get("fieldsV1") or {})
    return found


def record(obj: Json, owners: dict[Owner, set[Path]], api_version: str) -> None:
    """Write metadata.managedFields; an owner whose fields are as before keeps its time."""
    before = {
        (e["manager"], e["operation"], e.get("subresource", "")): e
        for e in obj["metadata"].get("managedFields") or ()
    }
    entries = []
    for owner, paths in owners.items():
        if not paths:
            continue
        fields = fieldsets.to_v1(paths)
        old = before.get(owner)
        if old and old["fieldsV1"] == fields:
            entries.append(old)
            continue
        entry = {
            "manager": owner[0],
            "operation": owner[1],
            "apiVersion": api_version,
            "time": rules.now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        entries.append(entry | ({"subresource": owner[2]} if owner[2] else {}))
    obj["metadata"]["managedFields"] = entries


def follow_update(
    resource: Resource, old: Json, new: Json, manager: str, subresource: str, *, begin: bool = False
) -> None:
    """After an update by other means: the fields it changed are its manager's now. Changes `new` in place.

    An object of which nobody's ownership is recorded yet stays so, unless the record is to `begin`.
    """
    owners = read(old)
    if not owners and not begin:
        new["metadata"].pop("managedFields", None)
        return
    if not owners:
        owners = {BEFORE: fieldsets.fields(resource, old)}
        record(old, owners, resource.api_version)
    if new["metadata"].get("managedFields") == []:  # how a client asks to forget all ownership
        del new["metadata"]["managedFields"]
        return
    before, after = fieldsets.fields(resource, old), fieldsets.fields(resource, new)
    changed = {p for p in after if p not in before or fieldsets.value(old, p) != fieldsets.value(new, p)}
    gone = before - after
    owner: Owner = (manager or "unknown", "Update", subresource)
    for other in list(owners):
        owners[other] -= gone | (changed if other != owner else set())
    owners[owner] = owners.get(owner, set()) | changed
    new["metadata"]["managedFields"] = json.loads(json.dumps(old["metadata"]["managedFields"]))
    record(new, owners, resource.api_version)
