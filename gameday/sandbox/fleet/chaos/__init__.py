"""A stand-in for Chaos Mesh's controller manager: upstream's statuses, records and finalizers.

Behaviour after github.com/chaos-mesh/chaos-mesh, controllers/: an experiment is Selected when its records
are written, AllInjected when each is "Injected", and goes away only when each is "Not Injected" again.
"""

from __future__ import annotations

import asyncio

from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache, key_of
from gameday.sandbox.facts import labels_of
from gameday.sandbox.fleet.chaos.experiments import RETRY, STUCK, Experiments, Restart
from gameday.sandbox.fleet.chaos.schedules import Schedules
from gameday.sandbox.fleet.chaos.targets import DAEMON
from gameday.sandbox.fleet.chaos.workflows import Workflows
from gameday.sandbox.manifests import CHAOS, MADE
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

__all__ = ["STUCK", "ChaosMesh"]


class ChaosMesh:
    """All of it, fed by the cache."""

    def __init__(self, cache: Cache, recorder: Recorder, restart: Restart) -> None:
        self._cache = cache
        self._experiments = Experiments(cache, recorder, restart)
        self._schedules = Schedules(cache, recorder)
        self._workflows = Workflows(cache, recorder)
        self._work: Work[tuple[str, str, str]] = Work("chaos-controller-manager", self._reconcile)
        for kind in [*CHAOS, "Schedule", "Workflow", *MADE]:
            cache.listen(kind, self._changed)
        cache.listen("Pod", self._pod_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._workflows.group = group
            group.create_task(self._work.run())

    async def _reconcile(self, key: tuple[str, str, str]) -> float | None:
        kind, place = key[0], key[1:]
        obj = self._cache.get(kind, place)
        if kind == "Workflow":
            self._workflows.reconcile(place, obj)
            return None
        if obj is None:
            return None
        if kind == "PodNetworkChaos":
            return None if await self._experiments.books.carry_out(obj) else RETRY
        return await (self._schedules if kind == "Schedule" else self._experiments).reconcile(obj)

    def _changed(self, new: Object | None, old: Object | None) -> None:
        obj = new or old
        if obj is None:
            return
        if obj["kind"] != "WorkflowNode":
            self._work.add((obj["kind"], *key_of(obj)))
        if obj["kind"] == "PodNetworkChaos":  # what waits for it is named by its entries, before or now
            for each in (new, old):
                for entry in (each or {"spec": {}})["spec"].get("tcs") or ():
                    self._work.add(("NetworkChaos", *entry["source"].split("/")))
        for owner in obj["metadata"].get("ownerReferences") or ():
            if owner["kind"] in ("Schedule", "Workflow"):
                self._work.add((owner["kind"], key_of(obj)[0], owner["name"]))

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        """A daemon that came or a target that went may be what an experiment waits for."""
        pod = new or old
        if pod is None or (new is not None and labels_of(pod).items() < DAEMON.items()):
            return
        if new is None or (labels_of(pod).items() >= DAEMON.items()):
            for kind in CHAOS:
                for chaos in self._cache.all(kind):
                    self._work.add((kind, *key_of(chaos)))
