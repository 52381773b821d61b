"""Server-side printing."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]


def table(resource: Resource, objects: list[Json]) -> tuple[list[Json], list[list[Any]]]:
    """Column definitions, and the cells of each object."""
    columns = [
        {"name": n, "type": "string", "format": "", "description": "", "priority": 0} for n in ("Name", "Age")
    ]
    return columns, [[o["metadata"]["name"], o["metadata"]["creationTimestamp"]] for o in objects]
