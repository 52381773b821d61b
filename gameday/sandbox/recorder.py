"""Kubernetes Events, posted in the background: a controller never waits for them, as upstream's recorder."""

from __future__ import annotations

import asyncio
import time

from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.sandbox.facts import now

WAITING = 2000  # events kept while the API is away; more are lost, as upstream


class Recorder:
    """Writes the events of all components; `run` sends them."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._queue: asyncio.Queue[Object] = asyncio.Queue(WAITING)

    def event(
        self, about: Object, component: str, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Say that something happened to an object."""
        if self._queue.full():
            return
        meta = about["metadata"]
        stamp = now()
        involved = {k: meta[k] for k in ("name", "namespace", "uid", "resourceVersion") if k in meta}
        self._queue.put_nowait(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{meta['name']}.{time.time_ns():x}",
                    "namespace": meta.get("namespace") or "default",
                },
                "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **involved},
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "count": 1,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "source": {"component": component},
                "reportingComponent": component,
                "reportingInstance": "",
            }
        )

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._kube.create(event)
            except PlatformError:
                continue  # an event about an object whose namespace is gone, or nobody listens
