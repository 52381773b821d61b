"""Whose a field's value is, by metadata.managedFields: a value that merely equals ours is not ours.

The API server keeps for each manager the set of fields that it was the last to change (an Update that leaves
a value as it is takes nothing over), and for each that applies (Apply) the fields that it wants. A list that
is atomic is owned as a whole by whoever edited any item of it. At most ten updating managers are kept: older
ones are merged into "ancient-changes". An object without managedFields (they were cleared, or it was created
with no field to own) gets none until somebody applies; what was there then is of "before-first-apply".
Sources: "Server-Side Apply" in Kubernetes' documentation (field management, merge strategy), and
k8s.io/apimachinery's package managedfields (capmanagers.go, skipnonapplied.go).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

from gameday.ledger.edits import Edit, at
from gameday.platform.objects import Object, annotations_of

NOBODY = frozenset({"ancient-changes", "before-first-apply"})  # names that say nothing of who it was

# Who wants a node cordoned by an annotation with the value "True": a second cordon writes nothing, so that
# managedFields say nothing of it. Source: NVSentinel's fault-quarantine, which takes an uncordon for the end
# of its own repair. kubectl and others that cordon a cordoned node leave no trace at all.
CORDON = ("spec", "unschedulable")
CORDONED_BY = {"quarantineHealthEventIsCordoned": "NVSentinel"}


class Hold(Enum):
    """How far a manager's set of fields reaches towards a field."""

    NONE = 0
    WHOLE = 1  # it owns a list around it, which is one value
    FIELD = 2


def foreign_owner(obj: Object, edit: Edit, manager: str) -> str:
    """Who else set a field that holds our value; "" when it was us, or when nobody can tell.

    Nobody can where the field is not there, where the list around it was edited by others since (node
    taints), where managedFields were cleared or merged, and where a record is of a version that named no
    manager. Then a value that is ours in every part counts as ours.
    """
    if obj.get("kind") == "Node" and edit.path == CORDON and (holder := _wants_it_cordoned(obj)):
        return holder
    holds = [(e, _hold(e.get("fieldsV1") or {}, obj, edit)) for e in _entries(obj)]
    others = [e for e, hold in holds if hold is Hold.FIELD and e["manager"] != manager]
    if any(hold is not Hold.NONE and e["manager"] == manager for e, hold in holds):
        # Our writing took the field from everyone; who applies the same value since wants it so.
        others = [e for e in others if e.get("operation") == "Apply" and not isinstance(edit.after, dict)]
    named = [str(e["manager"]) for e in others if e["manager"] not in NOBODY]
    return named[0] if named and manager else ""


def last_writer(obj: Object, edit: Edit, manager: str) -> str | None:
    """Who else holds a field that is not as `manager` left it; "" when nobody can tell, None when it is him.

    Of several the one who wrote last. A field that was taken away has no holder any more.
    """
    found = [e for e in _entries(obj) if _hold(e.get("fieldsV1") or {}, obj, edit) is not Hold.NONE]
    if any(e["manager"] == manager for e in found):
        return None
    named = [e for e in found if e["manager"] not in NOBODY]
    return str(max(named, key=lambda e: str(e.get("time") or ""))["manager"]) if named else ""


def is_held(obj: Object, edit: Edit, manager: str) -> bool:
    """Whether `manager` was the last to write a field that has one value, whatever that value is now.

    Admission may store other than what is written, and leaves the field to who wrote it; whoever writes
    another value later takes the field over.
    """
    if not manager or not isinstance(edit.read(obj), str | int | float) or foreign_owner(obj, edit, manager):
        return False
    mine = (e.get("fieldsV1") or {} for e in _entries(obj) if e["manager"] == manager)
    return any(_hold(fields, obj, edit) is Hold.FIELD for fields in mine)


def _wants_it_cordoned(node: Object) -> str:
    annotations = annotations_of(node)
    return next((who for key, who in CORDONED_BY.items() if annotations.get(key) == "True"), "")


def _entries(obj: Object) -> Iterator[Object]:
    for entry in obj["metadata"].get("managedFields") or ():
        if entry.get("manager"):
            yield entry


def _hold(fields: Object, obj: Object, edit: Edit) -> Hold:
    """`fields`: a fieldsV1, in which a field without anything below is one value."""
    node: Any = fields
    for part in edit.path:
        if node == {}:
            return Hold.WHOLE
        node = node.get(f"f:{part}")
        if node is None:
            return Hold.NONE
    if edit.item:
        if node == {}:
            return Hold.WHOLE
        node = _item(node, edit.item_of(obj))
        if node is None:
            return Hold.NONE
    for part in edit.inside:
        if node == {}:
            return Hold.WHOLE
        node = node.get(f"f:{part}")
        if node is None:
            return Hold.NONE
    return Hold.FIELD


def _item(node: Object, item: Any) -> Any:
    """The fields of a list's item: those of the key ("k:{…}") that fits it."""
    for step, inner in node.items():
        if step.startswith("k:") and all(at(item, (k,)) == v for k, v in json.loads(step[2:]).items()):
            return inner
    return None
