"""Evicts many pods as fast as their budgets allow, woken by what happens instead of by a clock.

kubectl asks again every 5 s after a 429. Here one watch on the pods sees them go, and the budgets'
own status says when the next eviction may pass, so a drain takes as long as the cluster needs.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from gameday.events import Progress
from gameday.extend import FaultError, Step
from gameday.faults.budgets import ASK_ANYWAY, Budgets
from gameday.faults.pods import what_keeps
from gameday.ledger.operations import Evict
from gameday.platform.errors import ApiError, Failure, Unreachable, only
from gameday.platform.following import follow
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.ledger.ledger import Entry


_AGAIN = frozenset({409, 429, 500, 503, 504})  # conflicts over a budget's status, budgets, a stumbling server
_SEVERAL = "more than one PodDisruptionBudget"  # a 500 of the server's that no waiting ends (eviction.go)
AT_ONCE = 64
TELL_EVERY = 2.0


class Evictor:
    """One drain's evictions. Raises FaultError, naming each pod that is left and what blocks it."""

    def __init__(self, step: Step, pods: list[Object], grace: int | None, timeout: float) -> None:
        self._world, self._ledger = step.world, step.ledger
        self._grace, self._timeout = grace, timeout
        self._pods = {p["metadata"]["uid"]: p for p in pods}
        self._left = set(self._pods)
        self._total = len(pods)
        self._blocked: dict[str, str] = {}  # pod uid → the budget's words
        self._asked: set[str] = set()  # pods whose eviction was accepted
        self._budgets = Budgets(step.kube)
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._done = asyncio.Event()

    async def run(self, version: str) -> None:
        """Evict all pods and wait until they are gone; `version` is that of the list they are from."""
        if not self._pods:
            return
        namespaces = sorted({_namespace(p) for p in self._pods.values()})
        await self._budgets.load(namespaces)
        operations = [Evict(_ref(p), self._grace) for p in self._pods.values()]
        entries = await self._ledger.intend(operations)
        try:
            async with asyncio.timeout(self._timeout), asyncio.TaskGroup() as group:
                watchers = [group.create_task(self._watch_pods(version)), group.create_task(self._tell())]
                watchers += [group.create_task(self._budgets.follow(n)) for n in namespaces]
                for entry, pod in zip(entries, self._pods.values(), strict=True):
                    watchers.append(group.create_task(self._evict(entry, pod)))
                await self._done.wait()
                for task in watchers:
                    task.cancel()
        except TimeoutError:
            raise FaultError(f"not drained after {self._timeout:g} s: {self._waiting(limit=20)}") from None
        except ExceptionGroup as group:
            raise FaultError(str(only(Failure, group)[0])) from group

    async def _evict(self, entry: Entry, pod: Object) -> None:
        """Ask until it passes: when the budget allows one more, or after what the server asked for."""
        uid = pod["metadata"]["uid"]
        budget = self._budgets.of(pod)
        while uid in self._left:
            try:
                async with budget.turn() if budget else self._limit:
                    await self._ledger.make(entry)
                self._blocked.pop(uid, None)
                self._asked.add(uid)
                return
            except Unreachable:  # an eviction names the pod's UID, so it may be asked for again
                await asyncio.sleep(0.2)
            except ApiError as error:
                # Pods of a namespace that ends go by themselves, and kubectl drain waits for them, too.
                if _SEVERAL in error.message or not (error.status in _AGAIN or error.namespace_ends):
                    raise
                if error.status == 429 and budget:
                    budget.refused()
                self._blocked[uid] = _words(error)
                if not budget:
                    await asyncio.sleep(error.retry_after or ASK_ANYWAY)

    async def _watch_pods(self, version: str) -> None:
        """One watch sees every pod of the drain go."""
        async for kind, pod in follow(self._world.kube, PODS, since=version):
            if kind == "SYNCED":
                await self._look_again()
            elif kind == "DELETED" or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                self._leave(pod["metadata"]["uid"])
            elif pod["metadata"]["uid"] in self._left:
                self._pods[pod["metadata"]["uid"]] = pod
            if not self._left:
                self._done.set()
                return

    async def _look_again(self) -> None:
        """After a watch that broke: which pods went while nobody looked?"""
        for uid in list(self._left):
            if await self._world.kube.find(_ref(self._pods[uid])) is None:
                self._leave(uid)

    def _leave(self, uid: str) -> None:
        self._left.discard(uid)
        self._blocked.pop(uid, None)

    async def _tell(self) -> None:
        """Progress for people, and which budget holds what."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            done = self._total - len(self._left)
            self._world.emit(
                Progress(step=self._world.step, message=self._waiting(), done=done, total=self._total)
            )

    def _waiting(self, limit: int = 3) -> str:
        ending = sorted(self._ends(self._pods[uid]) for uid in self._left & self._asked)
        waiting = len(self._left - self._asked - self._blocked.keys())
        said = [self._held(limit)] if self._blocked else []
        if ending:
            more = f" and {len(ending) - limit} more" if len(ending) > limit else ""
            said.append(f"{len(ending)} of {self._total} pods still end: {', '.join(ending[:limit])}{more}")
        if waiting:
            said.append(f"{waiting} of {self._total} pods are not asked to go yet")
        return "; ".join(said) or "all pods are gone"

    def _ends(self, pod: Object) -> str:
        """A pod that was asked to go, and what may keep it."""
        meta, why = pod["metadata"], what_keeps(pod, self._grace)
        return f"{meta['namespace']}/{meta['name']}" + (f" ({why})" if why else "")

    def _held(self, limit: int) -> str:
        held: dict[str, list[str]] = defaultdict(list)
        for uid, budget in self._blocked.items():
            meta = self._pods[uid]["metadata"]
            held[budget].append(f"{meta['namespace']}/{meta['name']}")
        return "; ".join(
            f"{budget} holds {', '.join(sorted(pods)[:limit])}"
            + (f" and {len(pods) - limit} more" if len(pods) > limit else "")
            for budget, pods in held.items()
        )


def _ref(pod: Object) -> Ref:
    meta = pod["metadata"]
    return Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"])


def _namespace(pod: Object) -> str:
    return str(pod["metadata"]["namespace"])


def _words(error: ApiError) -> str:
    """The budget that a refused eviction names, in the causes of its Status."""
    for cause in error.details.get("causes") or ():
        if cause.get("reason") == "DisruptionBudget":
            return str(cause.get("message", error.message))
    return error.message
