"""The ResourceQuota admission plugin: a pod beyond its namespace's quota is refused when it is created."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import forbidden
from gameday.sandbox.apiserver.store import Store
from gameday.sandbox.quotas import excess, usage

Json = dict[str, Any]
COLLECTION = ("", "resourcequotas")
PODS = ("", "pods")


def admit(store: Store, resource: Resource, pod: Json) -> None:
    """Raises 403 with upstream's sentence. As upstream, it goes by the limits in the quota's status."""
    namespace = pod["metadata"]["namespace"]
    for quota in store.collection(COLLECTION).each(namespace):
        hard: dict[str, str] = quota.object["status"].get("hard") or {}
        present = [s.object for s in store.collection(PODS).each(namespace)]
        over = excess(pod, present, hard)
        if over:
            asked, used = usage([pod], hard), usage(present, hard)
            listed = (",".join(f"{n}={values[n]}" for n in over) for values in (asked, used, hard))
            texts = "requested: {}, used: {}, limited: {}".format(*listed)
            why = f"exceeded quota: {quota.object['metadata']['name']}, {texts}"
            raise forbidden(resource, pod["metadata"]["name"], why)
