"""Watches: what a client sees of the event window and of what comes, through its selectors."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from gameday.sandbox.apiserver.listing import check_version
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.selectors import selector
from gameday.sandbox.apiserver.status import bad_request, expired
from gameday.sandbox.apiserver.store import Event, Store, Stored, encode
from gameday.sandbox.apiserver.views import View

Json = dict[str, Any]
BACKLOG = 100_000  # lines a slow client may leave unread before its watch is ended
_BEFORE_END = 2.0  # seconds before its end that a watch sends a last bookmark
DEFAULT_SECONDS = 1800.0


class Watch:
    """One client's watch: a queue of encoded lines, filled by the store as it changes."""

    def __init__(
        self, store: Store, resource: Resource, namespace: str, query: Mapping[str, str], view: View
    ) -> None:
        self._store, self._view, self._resource = store, view, resource
        self._namespace = namespace
        self._matches = selector(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        self._bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self._collection = store.collection(resource.collection)
        self._lines: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._start(query)
        self._collection.watchers.append(self._offer)

    def _start(self, query: Mapping[str, str]) -> None:
        version = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") in ("true", "1")
        check_version(self._store, version)
        if initial or version in ("", "0"):
            if query.get("sendInitialEvents") not in ("false", "0"):
                self._initial()
        elif int(version) < self._collection.floor:
            raise expired(f"too old resource version: {version} ({self._collection.floor})")
        else:
            for event in self._collection.events:
                if event.version > int(version):
                    self._offer(event)
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents requires resourceVersionMatch to be set to NotOlderThan")
        if self._bookmarks and (initial or version in ("", "0")):
            self._lines.append(self._bookmark({"k8s.io/initial-events-end": "true"}))

    def _initial(self) -> None:
        for stored in self._collection.each(self._namespace):
            if not self._matches or self._matches(stored.object):
                self._lines.append(_line("ADDED", self._view.one(stored)))

    def _offer(self, event: Event) -> None:
        """Queue what this client sees of an event: a change of the selection shows as ADDED or DELETED."""
        if self._namespace and event.new.object["metadata"].get("namespace") != self._namespace:
            return
        kind = event.kind
        if self._matches:
            now = kind != "DELETED" and self._matches(event.new.object)
            before = event.old is not None and self._matches(event.old.object)
            if not now and not before:
                return
            kind = "DELETED" if not now else ("MODIFIED" if before else "ADDED")
        self._lines.append(self._encoded(event, kind))
        self._wake.set()
        if len(self._lines) > BACKLOG:
            self.close()

    def _encoded(self, event: Event, kind: str) -> bytes:
        key = (kind, self._view.key)
        line = event.lines.get(key)
        if line is None:
            shown = event.new
            if (
                kind == "DELETED" and event.kind != "DELETED"
            ):  # it left the selection: its last selected state
                assert event.old is not None
                metadata = event.old.object["metadata"] | {"resourceVersion": str(event.version)}
                shown = Stored(event.old.object | {"metadata": metadata}, event.version)
            line = event.lines[key] = _line(kind, self._view.one(shown))
        return line

    def _bookmark(self, annotations: Json | None = None) -> bytes:
        metadata: Json = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return _line("BOOKMARK", encode(obj))

    def close(self) -> None:
        """End the watch, as a server that goes away or a client that is too slow does."""
        self._ended = True
        self._wake.set()

    def detach(self) -> None:
        """Hear of no more events."""
        self._collection.watchers.remove(self._offer)

    async def lines(self, seconds: float, bookmark_every: float) -> AsyncIterator[bytes]:
        """Chunks to send, until the watch's time is over or it is closed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        bookmark = min(loop.time() + bookmark_every, end - _BEFORE_END)
        while not self._ended:
            now = loop.time()
            if self._lines:
                chunk = b"".join(self._lines)
                self._lines.clear()
                yield chunk
            elif now >= end:
                return
            elif self._bookmarks and now >= bookmark:
                yield self._bookmark()
                bookmark = now + bookmark_every
                if now < end - _BEFORE_END:
                    bookmark = min(bookmark, end - _BEFORE_END)
            else:
                self._wake.clear()
                await _until(self._wake, (min(end, bookmark) if self._bookmarks else end) - now)


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        pass


def _line(kind: str, obj: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), obj)


def error_line(status: Json) -> bytes:
    """The ERROR event that a watch ends with."""
    return _line("ERROR", encode(status))
