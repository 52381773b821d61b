"""Lists: selectors, and pages that all show the same moment."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.selectors import selector
from gameday.sandbox.apiserver.status import Refused, bad_request, expired
from gameday.sandbox.apiserver.store import Store, Stored

Json = dict[str, Any]
_SNAPSHOTS = 64  # lists being paged through; the oldest token expires


class Lister:
    """Answers lists; keeps the rest of those that are paged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rest: OrderedDict[int, tuple[int, list[Stored]]] = OrderedDict()  # token: version, what remains
        self._tokens = 0

    def expire(self) -> None:
        """Make every continue token given out too old."""
        self._rest.clear()

    def matching(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> list[Stored]:
        """Everything the selectors match, in key order."""
        matches = selector(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        found = self._store.collection(resource.collection).each(namespace)
        return [s for s in found if matches(s.object)] if matches else list(found)

    def page(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> tuple[list[Stored], Json]:
        """One page (or all) and the list's metadata."""
        if not (query.get("limit") or "0").isdigit():
            raise bad_request(f'limit: Invalid value: "{query["limit"]}": must be a number')
        limit = int(query.get("limit") or 0)
        if query.get("continue"):
            version, items = self._continued(query["continue"])
        else:
            check_version(self._store, query.get("resourceVersion", ""))
            version, items = self._store.version, self.matching(resource, namespace, query)
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            metadata["continue"] = self._keep(version, items[limit:])
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        return items, metadata

    def _keep(self, version: int, rest: list[Stored]) -> str:
        self._tokens += 1
        self._rest[self._tokens] = (version, rest)
        if len(self._rest) > _SNAPSHOTS:
            self._rest.popitem(last=False)
        return base64.urlsafe_b64encode(json.dumps({"rv": version, "page": self._tokens}).encode()).decode()

    def _continued(self, token: str) -> tuple[int, list[Stored]]:
        try:
            number = json.loads(base64.urlsafe_b64decode(token))["page"]
        except (ValueError, KeyError, TypeError):
            raise bad_request("continue key is not valid: illegal base64 or JSON") from None
        if number not in self._rest:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You can start a new list without the continue parameter."
            )
        return self._rest[number]


def check_version(store: Store, version: str) -> None:
    """Refuse a resourceVersion that is no number, or that is still to come."""
    if not version:
        return
    if not version.isdigit():
        raise bad_request(f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: invalid syntax')
    if int(version) > store.version:
        raise Refused(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {version}, current: {store.version}",
            {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            },
        )
