"""Following a kind of objects for ever: a list, then watches, through all that ends a watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.objects import Object, Resource

if TYPE_CHECKING:
    from gameday.platform.kube import Kube


async def follow(
    kube: Kube,
    resource: Resource,
    namespace: str | None = None,
    *,
    labels: str | None = None,
    fields: str | None = None,
    since: str = "",
) -> AsyncIterator[tuple[str, Object]]:
    """List, then watch for ever: through ended watches, expired versions and servers that went away.

    A new list yields MODIFIED for what changed meanwhile and DELETED, with the last known object
    reduced to its metadata, for what is gone; then ("SYNCED", {}) after every list. With `since`,
    the resourceVersion of a list that the caller has, the first list is left out.
    """
    known: dict[str, tuple[str, Object]] = {}
    version, delay = since, 0.2
    while True:
        try:
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
                delay = 0.2
            while True:  # take an ended watch up where it stopped
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
        except Unreachable:
            pass
        except ApiError as error:
            if error.status in (401, 403, 404):
                raise
        version = ""
        await asyncio.sleep(delay)
        delay = min(delay * 2, 5.0)


def _identity(obj: Object) -> Object:
    """What must be known of an object to report that it is gone, without holding all of it."""
    meta = obj["metadata"]
    kept = {k: meta[k] for k in ("name", "namespace", "uid", "labels", "ownerReferences") if k in meta}
    identity = {k: obj[k] for k in ("apiVersion", "kind") if k in obj}
    return identity | {"metadata": kept, "spec": {"nodeName": obj.get("spec", {}).get("nodeName")}}
