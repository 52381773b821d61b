"""Simulated kubelets that start and end pods at once, so that a drain's time is the drain's own.

`python -m bench.kubelet KUBECONFIG` serves every node of the cluster until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

from gameday.platform.errors import ApiError
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from gameday.platform.resources import NODES, PODS

HEARTBEAT = 30.0  # seconds; nodes count as lost after 120
AT_ONCE = 16


async def run(kubeconfig: str) -> None:
    async with await Kube.connect(kubeconfig) as kube, asyncio.TaskGroup() as group:
        group.create_task(_beat(kube))
        limit = asyncio.Semaphore(AT_ONCE)
        started: set[str] = set()
        ended: set[str] = set()
        async for kind, pod in follow(kube, PODS):
            if kind in ("DELETED", "SYNCED") or not pod["spec"].get("nodeName"):
                continue
            uid = pod["metadata"]["uid"]
            if "deletionTimestamp" in pod["metadata"]:
                if uid not in ended:
                    ended.add(uid)
                    group.create_task(_quietly(limit, _end(kube, pod)))
            elif uid not in started and not is_true(pod, "Ready"):
                started.add(uid)
                group.create_task(_quietly(limit, _start(kube, pod)))


async def _quietly(limit: asyncio.Semaphore, work: Any) -> None:
    """A pod that is gone meanwhile needs nothing more."""
    async with limit:
        try:
            await work
        except ApiError as error:
            if error.status not in (404, 409):
                raise


async def _start(kube: Kube, pod: Object) -> None:
    at = _now()
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": at}
        for kind in ("Initialized", "PodScheduled", "ContainersReady", "Ready")
    ]
    status = {"phase": "Running", "startTime": at, "conditions": conditions}
    await kube.patch(Ref.of(pod), {"status": status}, "merge", subresource="status")


async def _end(kube: Kube, pod: Object) -> None:
    await kube.delete(Ref.of(pod), grace=0)


async def _beat(kube: Kube) -> None:
    while True:
        for node in await kube.list(NODES):
            await kube.patch(Ref.of(node), {"status": ready_status()}, "merge", subresource="status")
        await asyncio.sleep(HEARTBEAT)


def ready_status() -> dict[str, Any]:
    """What a healthy node with room for everything reports."""
    at = _now()
    room = {"cpu": "64", "memory": "256Gi", "pods": "250"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "simulated",
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }
    return {"capacity": room, "allocatable": room, "conditions": [ready]}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
