"""Creating and deleting pods for the workload controllers, with upstream's names and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, is_finished, is_ready
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import deleting, owner_reference, seconds_of, suffix
from gameday.sandbox.recorder import Recorder

AT_ONCE = 32  # requests in flight for one workload


class Pods:
    """Pod control: what it writes is in the cache when it returns, so nothing is created twice."""

    def __init__(self, kube: Kube, cache: Cache, recorder: Recorder) -> None:
        self._kube = kube
        self._cache = cache
        self._recorder = recorder

    async def create(self, owner: Object, component: str, template: Object, name: str = "") -> None:
        """A pod from a workload's template."""
        meta = template.get("metadata") or {}
        base = owner["metadata"]["name"]
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name or f"{base}-{suffix()}",
                "generateName": f"{base}-",
                "namespace": owner["metadata"]["namespace"],
                "labels": dict(meta.get("labels") or {}),
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [owner_reference(owner)],
            },
            "spec": template["spec"],
        }
        created = await self._kube.create(pod)
        self._cache.put(created)
        said = f"Created pod: {created['metadata']['name']}"
        self._recorder.event(owner, component, "SuccessfulCreate", said)

    async def create_many(self, owner: Object, component: str, template: Object, count: int) -> None:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with limit:
                await self.create(owner, component, template)

        await asyncio.gather(*(one() for _ in range(count)))

    async def delete(self, owner: Object, component: str, pods: Iterable[Object]) -> None:
        """Delete a workload's pods, gracefully."""

        async def one(pod: Object) -> None:
            if await self._cache.delete(pod):
                said = f"Deleted pod: {pod['metadata']['name']}"
                self._recorder.event(owner, component, "SuccessfulDelete", said)

        await asyncio.gather(*(one(p) for p in pods))


def active(pods: Iterable[Object]) -> list[Object]:
    """Those that run or will run."""
    return [p for p in pods if not deleting(p) and not is_finished(p)]


def available(pod: Object, min_ready: float) -> bool:
    """Ready for long enough."""
    if not is_ready(pod):
        return False
    return not min_ready or waited(pod) >= min_ready


def waited(pod: Object) -> float:
    """Seconds since the pod became Ready."""
    for entry in pod["status"]["conditions"]:
        if entry["type"] == "Ready":
            return time.time() - seconds_of(entry["lastTransitionTime"])
    return 0.0


def expendable(pod: Object) -> tuple[bool, bool, int, str]:
    """Upstream's order when scaling down, shortened: unbound, not ready, cheapest, youngest first."""
    meta = pod["metadata"]
    cost = int((meta.get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", 0))
    return ("nodeName" in pod["spec"], is_ready(pod), cost, _inverse(meta["creationTimestamp"]))


def _inverse(stamp: str) -> str:
    return "".join(chr(255 - ord(c)) for c in stamp)
