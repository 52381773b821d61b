"""Whose turn it is under a PodDisruptionBudget, so that an eviction is asked for when it can pass.

The server decrements a budget's status with each eviction, and sleeps 500 ms when that write meets
another one (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go, EvictionsRetry). So
evictions under one budget are asked for one after the other, and one that takes several times
longer than usual has met that sleep: the next need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gameday.experiment.selector import Selector
from gameday.platform.following import follow
from gameday.platform.objects import Object, is_finished, is_true, labels_of
from gameday.platform.resources import BUDGETS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

ASK_ANYWAY = 3.0  # seconds without news, after which the server is asked whatever was last heard
LATE = 3.0  # times the usual answer's time, within these seconds
EARLIEST, LATEST = 0.03, 0.25
SLEEP = 0.4  # seconds; an answer that took longer met the server's sleep, and is not a usual one


class Budget:
    """One budget, and the evictions that wait for it. Without a budget nothing waits."""

    def __init__(self) -> None:
        self._free = 0  # evictions that may be asked for, by the last status and what we asked since
        self._flying = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._one = asyncio.Lock()
        self._usual = LATEST / LATE  # seconds that an answer takes, a moving average

    def hear(self, budget: Object) -> None:
        """The budget's newest status: wake as many as it allows, since more would only be refused."""
        self._free = int((budget.get("status") or {}).get("disruptionsAllowed") or 0) - self._flying
        while self._queue and self._free > 0:
            waiting = self._queue.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self._free -= 1

    def refused(self) -> None:
        """The server said that the budget is used up."""
        self._free = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until an eviction may pass; ask for it inside."""
        if self._free > 0:
            self._free -= 1
        else:
            waiting = asyncio.get_running_loop().create_future()
            self._queue.append(waiting)
            await asyncio.wait({waiting}, timeout=ASK_ANYWAY)
            waiting.cancel()  # whoever wakes the queue passes over it
        await self._one.acquire()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        late = loop.call_later(min(max(LATE * self._usual, EARLIEST), LATEST), self._one.release)
        self._flying += 1
        try:
            yield
        finally:
            self._flying -= 1
            if late.when() > loop.time():
                late.cancel()
                self._one.release()
            if (took := loop.time() - asked) < SLEEP:
                self._usual += (took - self._usual) / 8


class Budgets:
    """The budgets of some namespaces."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[str, Budget] = {}  # by UID
        self._objects: list[Object] = []

    async def load(self, namespaces: Iterable[str]) -> None:
        """Read them once; `follow` keeps them up to date."""
        for namespace in namespaces:
            for found in await self._kube.list(BUDGETS, namespace):
                self._objects.append(found)
                self._of(found).hear(found)

    async def follow(self, namespace: str) -> None:
        """Hear of every change, for ever."""
        async for kind, found in follow(self._kube, BUDGETS, namespace):
            if kind in ("ADDED", "MODIFIED"):
                self._of(found).hear(found)

    def of(self, pod: Object) -> Budget | None:
        """The budget that a pod waits for, as of the first reading. The server refuses a pod that has two."""
        covering = self.covering(pod)
        return self._of(covering[0]) if covering and not _lets_go(covering[0], pod) else None

    def covering(self, pod: Object) -> list[Object]:
        """The budgets whose selector matches a pod; one without a selector matches none."""
        return [
            found
            for found in self._objects
            if found["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and (selector := found["spec"].get("selector")) is not None
            and Selector.from_object(selector).matches(labels_of(pod))
        ]

    def _of(self, found: Object) -> Budget:
        return self._known.setdefault(found["metadata"]["uid"], Budget())


async def foresee(pods: list[Object], kube: Kube) -> tuple[list[str], list[str]]:
    """The budgets that will stop a drain of these pods, and those that may hold it up.

    The server asks no budget about pods that are Pending, over, or ending (eviction.go, canIgnorePDB), and
    refuses a pod that has two budgets (500) for as long as it has them.
    """
    asked = [
        p
        for p in pods
        if not is_finished(p)
        and (p.get("status") or {}).get("phase") != "Pending"
        and "deletionTimestamp" not in p["metadata"]
    ]
    budgets = Budgets(kube)
    await budgets.load(sorted({p["metadata"]["namespace"] for p in asked}))
    stops: list[str] = []
    holds: dict[str, list[str]] = {}
    for pod in asked:
        named = _name(pod)
        covering = budgets.covering(pod)
        if len(covering) > 1:
            names = ", ".join(sorted(found["metadata"]["name"] for found in covering))
            stops.append(f"pod {named}: it has more than one PodDisruptionBudget ({names}): keep one of them")
        elif covering and not _allows(covering[0], pod):
            holds.setdefault(_name(covering[0]), []).append(named)
    return stops, [
        f"PodDisruptionBudget {budget} allows no eviction now, and would hold {', '.join(sorted(names)[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for budget, names in sorted(holds.items())
    ]


def _allows(budget: Object, pod: Object) -> bool:
    """Whether a pod's eviction would pass now, in the order of eviction.go (EvictionREST.Create).

    A pod that is not ready goes where enough others are, whatever the budget allows. For a ready pod the
    server refuses until the budget's controller has seen the budget.
    """
    status = budget.get("status") or {}
    healthy, desired = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
    if _lets_go(budget, pod) or (not is_true(pod, "Ready") and healthy >= desired > 0):
        return True
    seen = int(status.get("observedGeneration") or 0) >= int(budget["metadata"].get("generation") or 0)
    return seen and int(status.get("disruptionsAllowed") or 0) > 0


def _lets_go(budget: Object, pod: Object) -> bool:
    """Whether a budget does not protect a pod because that pod is not ready."""
    return not is_true(pod, "Ready") and budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow"


def _name(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
