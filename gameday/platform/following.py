"""Following a kind of objects for ever: a list, then watches, through all that ends a watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.objects import Object, Resource

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

SHORTEST, LONGEST = 0.2, 5.0  # seconds between two watches that don't last
LASTING = 10.0  # seconds after which a watch counts as one that lasts


async def follow(
    kube: Kube,
    resource: Resource,
    namespace: str | None = None,
    *,
    labels: str | None = None,
    fields: Mapping[str, str] | None = None,
    since: str = "",
) -> AsyncIterator[tuple[str, Object]]:
    """List, then watch for ever: through ended watches, expired versions and servers that went away.

    A new list yields MODIFIED for what changed meanwhile and DELETED, with the last known object
    reduced to its metadata, for what is gone; then ("SYNCED", {}) after every list. With `since`,
    the resourceVersion of a list that the caller has, the first list is left out.
    """
    known: dict[str, tuple[str, Object]] = {}
    version, pause = since, Pause()
    while True:
        try:
            pause.begin()
            if not version:
                seen: set[str] = set()
                async for page in kube.pages(resource, namespace, labels=labels, fields=fields):
                    version = page["metadata"]["resourceVersion"]
                    for obj in page["items"]:
                        meta = obj["metadata"]
                        seen.add(meta["uid"])
                        old = known.get(meta["uid"])
                        if old is None or old[0] != meta["resourceVersion"]:
                            known[meta["uid"]] = (meta["resourceVersion"], _identity(obj))
                            yield ("MODIFIED" if old else "ADDED"), obj
                for uid in [u for u in known if u not in seen]:
                    yield "DELETED", known.pop(uid)[1]
                yield "SYNCED", {}
            while True:  # take an ended watch up where it stopped
                pause.begin()
                async for kind, obj in kube.watch(
                    resource, namespace, labels=labels, fields=fields, version=version
                ):
                    meta = obj["metadata"]
                    version = meta["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    if kind == "DELETED":
                        known.pop(meta["uid"], None)
                    else:
                        known[meta["uid"]] = (version, _identity(obj))
                    yield kind, obj
                await pause.end()
        except (Unreachable, KeyError):  # KeyError: what came has no version or UID, so no API server sent it
            pass
        except ApiError as error:
            if error.status in (401, 403, 404):
                raise
        version = ""
        await pause.end()


class Pause:
    """How long to wait after a watch: longer and longer while each ends as soon as it began.

    A server may list and still refuse every watch, or end each at once; asking it again at once would load
    it, and bring nothing.
    """

    def __init__(self) -> None:
        self._seconds, self._begun = SHORTEST, time.monotonic()

    def begin(self) -> None:
        self._begun = time.monotonic()

    async def end(self) -> None:
        if time.monotonic() - self._begun > LASTING:
            self._seconds = SHORTEST
        await asyncio.sleep(self._seconds)
        self._seconds = min(self._seconds * 2, LONGEST)


def _identity(obj: Object) -> Object:
    """The little of an object that reports its end, without holding all of it."""
    meta = obj["metadata"]
    kept = {k: meta[k] for k in ("name", "namespace", "uid", "labels", "ownerReferences") if k in meta}
    identity = {k: obj[k] for k in ("apiVersion", "kind") if k in obj}
    return identity | {"metadata": kept, "spec": {"nodeName": obj.get("spec", {}).get("nodeName")}}
