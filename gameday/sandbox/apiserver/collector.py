"""The garbage collector: dependents go when their owners are gone, namespaces are emptied, definitions too.

Upstream this is part of the controller manager. Here it belongs to the API, because a cluster without it
keeps pods whose owner is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from gameday.sandbox.apiserver import crds
from gameday.sandbox.apiserver.objects import NAMESPACES, Deletion, Objects
from gameday.sandbox.apiserver.status import Refused
from gameday.sandbox.apiserver.store import Event, Stored, Where

Json = dict[str, Any]


class Collector:
    """Hears of every change, and works through what follows from it, a little at a time."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._store = objects.store
        self._todo: deque[Where] = deque()
        self._queued: set[Where] = set()
        self._wake = asyncio.Event()
        self._store.observers.append(self._observe)

    def _observe(self, where: Where, event: Event) -> None:
        metadata = event.new.object["metadata"]
        deleted = event.kind == "DELETED"
        if metadata.get("ownerReferences"):
            if event.kind == "ADDED":
                self._queue(where)
            elif deleted or "deletionTimestamp" in metadata:
                for owner in metadata["ownerReferences"]:
                    if owner.get("uid") in self._store.by_uid:
                        self._queue(self._store.by_uid[owner["uid"]])
        if deleted:
            for dependent in self._store.dependents.get(metadata["uid"], ()):
                self._queue(dependent)
            if where[1]:
                self._queue((NAMESPACES, "", where[1]))
        elif "deletionTimestamp" in metadata:
            self._queue(where)
        if where[0] == crds.COLLECTION and deleted:
            self._empty_definition(event.new.object["spec"])

    def _queue(self, where: Where) -> None:
        if where not in self._queued:
            self._queued.add(where)
            self._todo.append(where)
            self._wake.set()

    async def run(self) -> None:
        """Work for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._todo:
                where = self._todo.popleft()
                self._queued.discard(where)
                self._settle(where)
                if len(self._todo) % 50 == 0:
                    await asyncio.sleep(0)

    def _settle(self, where: Where) -> None:
        found = self._store.get(*where)
        if found is None:
            return
        metadata = found.object["metadata"]
        if "deletionTimestamp" in metadata:
            if where[0] == NAMESPACES:
                self._empty_namespace(where, found)
            finalizers = metadata.get("finalizers") or ()
            if "orphan" in finalizers:
                self._orphan(where, metadata["uid"])
            elif "foregroundDeletion" in finalizers:
                self._foreground(where, metadata["uid"])
        elif metadata.get("ownerReferences"):
            self._check_owners(where, found)

    def _check_owners(self, where: Where, found: Stored) -> None:
        """Delete an object all of whose owners are gone; drop references to those that are."""
        references = found.object["metadata"]["ownerReferences"]
        alive = [r for r in references if r.get("uid") in self._store.by_uid]
        if not alive:
            self._delete(where, "Background")
        elif len(alive) < len(references):
            self._objects.replace(where, lambda obj: obj["metadata"].update(ownerReferences=alive))

    def _orphan(self, owner: Where, uid: str) -> None:
        for dependent in list(self._store.dependents.get(uid, ())):
            self._objects.replace(dependent, lambda obj: _drop_owner(obj, uid))
        self._objects.replace(owner, lambda obj: _drop_finalizer(obj, "orphan"))

    def _foreground(self, owner: Where, uid: str) -> None:
        blocking = False
        for dependent in list(self._store.dependents.get(uid, ())):
            found = self._store.get(*dependent)
            if found is None:
                continue
            references = found.object["metadata"]["ownerReferences"]
            if any(r["uid"] != uid and r["uid"] in self._store.by_uid for r in references):
                self._objects.replace(dependent, lambda obj: _drop_owner(obj, uid))
                continue
            blocks = any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in references)
            if "deletionTimestamp" not in found.object["metadata"]:
                self._delete(dependent, "Foreground")
            blocking = blocking or (blocks and self._store.get(*dependent) is not None)
        if not blocking:
            self._objects.replace(owner, lambda obj: _drop_finalizer(obj, "foregroundDeletion"))

    def _empty_namespace(self, where: Where, found: Stored) -> None:
        name = where[2]
        left = False
        for key, collection in list(self._store.collections.items()):
            for stored in list(collection.each(name)) if name in collection.objects else ():
                content: Where = (key, name, stored.object["metadata"]["name"])
                if "deletionTimestamp" not in stored.object["metadata"]:
                    self._delete(content, "Background")
                left = left or self._store.get(*content) is not None
        if not left and (found.object.get("spec") or {}).get("finalizers"):
            self._objects.replace(where, lambda obj: obj.update(spec={}))

    def _empty_definition(self, spec: Json) -> None:
        """Remove the objects of a kind that is no longer defined, whatever holds them."""
        key = (spec["group"], spec["names"]["plural"])
        collection = self._store.collections.get(key)
        for stored in list(collection.each()) if collection else ():
            metadata = stored.object["metadata"]
            self._store.remove((key, metadata.get("namespace", ""), metadata["name"]))

    def _delete(self, where: Where, propagation: str) -> None:
        resource = self._objects.catalogue.stored(where[0])
        if resource is None:
            return
        with contextlib.suppress(Refused):  # it may have gone meanwhile
            self._objects.delete(resource, where[1], where[2], Deletion(propagation=propagation))


def _drop_owner(obj: Json, uid: str) -> None:
    references = [r for r in obj["metadata"].get("ownerReferences") or () if r.get("uid") != uid]
    if references:
        obj["metadata"]["ownerReferences"] = references
    else:
        obj["metadata"].pop("ownerReferences", None)


def _drop_finalizer(obj: Json, finalizer: str) -> None:
    rest = [f for f in obj["metadata"].get("finalizers") or () if f != finalizer]
    if rest:
        obj["metadata"]["finalizers"] = rest
    else:
        obj["metadata"].pop("finalizers", None)
