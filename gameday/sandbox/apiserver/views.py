"""How objects are shown to a client: whole, metadata only, or as a Table; in one version."""

from __future__ import annotations

from typing import Any, Protocol

from gameday.sandbox.apiserver import versions
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import not_acceptable
from gameday.sandbox.apiserver.store import Stored, encode
from gameday.sandbox.apiserver.tables import table

Json = dict[str, Any]
META = "meta.k8s.io/v1"


class View(Protocol):
    """One way to show objects. Views with the same `key` show the same bytes."""

    key: Any

    def one(self, stored: Stored) -> bytes: ...
    def page(self, items: list[Stored], metadata: Json) -> bytes: ...


class Whole:
    """The objects themselves, from their cached bytes."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.key: Any = ("whole", resource.api_version)

    def one(self, stored: Stored) -> bytes:
        obj = stored.object
        shown = versions.served(self.resource, obj)
        return stored.encoded if shown is obj else encode(shown)

    def page(self, items: list[Stored], metadata: Json) -> bytes:
        kind = f"{self.resource.kind}List"
        head = encode({"kind": kind, "apiVersion": self.resource.api_version, "metadata": metadata})
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(map(self.one, items)))


class MetadataOnly:
    """PartialObjectMetadata."""

    def __init__(self, resource: Resource) -> None:
        self.key: Any = ("metadata",)

    def one(self, stored: Stored) -> bytes:
        return encode(partial(stored.object))

    def page(self, items: list[Stored], metadata: Json) -> bytes:
        head = encode({"kind": "PartialObjectMetadataList", "apiVersion": META, "metadata": metadata})
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(map(self.one, items)))


class Printed:
    """A Table, which kubectl get prints; `include` says what of the object goes with each row."""

    def __init__(self, resource: Resource, include: str) -> None:
        self.resource, self.include = resource, include
        self.key: Any = ("table", resource.api_version, resource.plural, include)

    def one(self, stored: Stored) -> bytes:
        return self.page([stored], {"resourceVersion": str(stored.version)})

    def page(self, items: list[Stored], metadata: Json) -> bytes:
        columns, cells = table(self.resource, [i.object for i in items])
        rows = [self._row(c, i.object) for c, i in zip(cells, items, strict=True)]
        return encode(
            {
                "kind": "Table",
                "apiVersion": META,
                "metadata": metadata,
                "columnDefinitions": columns,
                "rows": rows,
            }
        )

    def _row(self, cells: list[Any], obj: Json) -> Json:
        if self.include == "None":
            return {"cells": cells}
        shown = versions.served(self.resource, obj) if self.include == "Object" else partial(obj)
        return {"cells": cells, "object": shown}


def partial(obj: Json) -> Json:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": obj["metadata"]}


def negotiate(accept: str, resource: Resource, include: str) -> View:
    """The first way to show objects in an Accept header that there is."""
    for offer in (accept or "*/*").split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        wanted = dict(p.split("=", 1) for p in parameters if "=" in p)
        if kind not in ("application/json", "application/*", "*/*"):
            continue
        match wanted.get("as", ""):
            case "":
                return Whole(resource)
            case "Table" if wanted.get("v") == "v1":
                return Printed(resource, include or "Metadata")
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return MetadataOnly(resource)
    raise not_acceptable()
