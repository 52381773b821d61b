"""Where the objects are: plain dicts with one global resourceVersion, their JSON bytes, and recent events.

A stored object is never changed in place, so lists, watches and paging snapshots can share it freely;
a writer builds a new one. Everything here is synchronous: a request's read-decide-write is atomic.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Where = tuple[tuple[str, str], str, str]  # collection, namespace ("" for cluster scope), name

encode_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return encode_text(value).encode()


def copy(obj: Json) -> Json:
    """A deep copy of plain data; a JSON round trip is the fastest there is without a compiled helper."""
    duplicate: Json = json.loads(encode_text(obj))
    return duplicate


class Stored:
    """An object in one resourceVersion, with its bytes."""

    __slots__ = ("encoded", "object", "version")

    def __init__(self, obj: Json, version: int) -> None:
        self.object = obj
        self.version = version
        self.encoded = encode(obj)


@dataclass(slots=True)
class Event:
    """A change: `old` is None for a creation; for a deletion `new` is the last state at the new version."""

    version: int
    kind: str  # ADDED, MODIFIED, DELETED
    new: Stored
    old: Stored | None
    lines: dict[Any, bytes] = field(default_factory=dict)  # encoded once for all watchers that see it alike


@dataclass(slots=True)
class Collection:
    """All objects of one kind, by namespace and name."""

    window: int
    objects: dict[str, dict[str, Stored]] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=deque)
    floor: int = 0  # a watch from a version below this one would miss events
    watchers: list[Callable[[Event], None]] = field(default_factory=list)

    def each(self, namespace: str = "") -> Iterator[Stored]:
        """In key order, of one namespace or (also for cluster scope) of all."""
        for space in [namespace] if namespace else sorted(self.objects):
            named = self.objects.get(space, {})
            for name in sorted(named):
                yield named[name]

    def publish(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) > self.window:
            self.floor = self.events.popleft().version
        for watcher in list(self.watchers):
            watcher(event)


class Store:
    """All collections, and the indexes the garbage collector needs."""

    def __init__(self, window: int = 10_000) -> None:
        self.version = self.start = 1000  # a watch from before the start is too old, as on a real server
        self.window = window
        self.collections: dict[tuple[str, str], Collection] = {}
        self.by_uid: dict[str, Where] = {}
        self.dependents: dict[str, set[Where]] = {}  # an owner's uid: who names it in ownerReferences
        self.observers: list[Callable[[Where, Event], None]] = []

    def collection(self, key: tuple[str, str]) -> Collection:
        found = self.collections.get(key)
        if found is None:
            found = self.collections[key] = Collection(self.window, floor=self.start)
        return found

    def get(self, key: tuple[str, str], namespace: str, name: str) -> Stored | None:
        found = self.collections.get(key)
        return found.objects.get(namespace, {}).get(name) if found else None

    def put(self, where: Where, obj: Json) -> Stored:
        """Keep an object (the caller gives it away) under the next resourceVersion."""
        key, namespace, name = where
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        stored = Stored(obj, self.version)
        collection = self.collection(key)
        named = collection.objects.setdefault(namespace, {})
        old = named.get(name)
        named[name] = stored
        self._index(where, obj, old.object if old else None)
        self._publish(where, Event(self.version, "MODIFIED" if old else "ADDED", stored, old))
        return stored

    def remove(self, where: Where, last_state: Json | None = None) -> Stored:
        """Take an object away; answers its last state at the version of the deletion."""
        key, namespace, name = where
        collection = self.collections[key]
        old = collection.objects[namespace].pop(name)
        if not collection.objects[namespace]:
            del collection.objects[namespace]
        self.version += 1
        state = last_state or old.object
        metadata = state["metadata"] | {"resourceVersion": str(self.version)}
        last = Stored(state | {"metadata": metadata}, self.version)
        self._index(where, None, old.object)
        self._publish(where, Event(self.version, "DELETED", last, old))
        return last

    def _index(self, where: Where, new: Json | None, old: Json | None) -> None:
        before, after = _owners(old), _owners(new)
        for uid in before - after:
            self.dependents[uid].discard(where)
            if not self.dependents[uid]:
                del self.dependents[uid]
        for uid in after - before:
            self.dependents.setdefault(uid, set()).add(where)
        if new is None and old is not None:
            self.by_uid.pop(old["metadata"]["uid"], None)
        elif new is not None:
            self.by_uid[new["metadata"]["uid"]] = where

    def _publish(self, where: Where, event: Event) -> None:
        self.collections[where[0]].publish(event)
        for observer in self.observers:
            observer(where, event)


def _owners(obj: Json | None) -> set[str]:
    references = obj["metadata"].get("ownerReferences") if obj else None
    return {r.get("uid", "") for r in references} if references else set()
