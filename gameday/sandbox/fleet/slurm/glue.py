"""What keeps Slurm and Kubernetes together on the sandbox's platform, a moment late, as such glue does.

- A node that is cordoned in Kubernetes, or has a bad condition (the Node Problem Detector's), is drained in
  Slurm; and back. The reason says so, as Slinky's does, so that nobody else's drain is taken back.
- A node that was drained or set down in Slurm by others, or for a bad condition, is cordoned in Kubernetes;
  and back. An annotation says whose cordon it is.
- This site's policy: a job leaves such a node; it is requeued. After a mere cordon it may end where it is.
"""

from __future__ import annotations

import time

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of
from gameday.sandbox.fleet.slurm.controller import TRAINING, Controller, Refusal
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

DELAY = 1.0  # seconds until a change on one side is seen on the other
EVACUATED = 3.0  # seconds after a drain until the job on the node is requeued
PREFIX = "slurm-operator: "
CORDON = "slurm-bridge.sandbox.gameday.dev/cordoned"  # on a node that was cordoned from here: why
_USUAL = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}


class Glue:
    """One work queue over the nodes."""

    def __init__(self, cache: Cache, recorder: Recorder, controller: Controller) -> None:
        self._cache, self._recorder, self._controller = cache, recorder, controller
        self._work: Work[str] = Work("slurm-bridge", self._reconcile, workers=4)
        self._known: dict[str, object] = {}
        cache.listen("Node", self._node_changed)
        controller.listeners.append(lambda name: self._work.add(name, after=DELAY))

    async def run(self) -> None:
        await self._work.run()

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        if new is None:
            return
        name, now = new["metadata"]["name"], (_cordoned(new), CORDON in annotations_of(new), _problem(new))
        if self._known.get(name, (False, False, "")) != now:
            self._known[name] = now
            self._work.add(name, after=DELAY)

    async def _reconcile(self, name: str) -> float | None:
        node = self._cache.get("Node", ("", name))
        if node is None or name not in self._controller.names():
            return None
        if not self._controller.on:
            return DELAY
        admin, problem = self._controller.admin(name), _problem(node)
        ours = CORDON in annotations_of(node)
        wanted = f"{PREFIX}node condition {problem}" if problem else ""
        if not wanted and _cordoned(node) and not ours:
            wanted = f"{PREFIX}node is cordoned in Kubernetes"
        if admin.reason.startswith(PREFIX) or not admin.flags:
            if wanted and wanted != admin.reason:
                self._controller.update_node(name, "DRAIN", wanted)
            elif not wanted and admin.flags:
                self._controller.update_node(name, "RESUME", "")
        leaves = bool(admin.flags) and (bool(problem) or not admin.reason.startswith(PREFIX))
        if leaves and not _cordoned(node):
            await self._cordon(node, admin.reason)
        elif ours and not leaves:
            await self._cordon(node, None)
        return await self._evacuate(name) if leaves else None

    async def _evacuate(self, name: str) -> float | None:
        """Requeue the job on a node that is to be left: at once when it is down, else a little later."""
        if name not in self._controller.running_on():
            return None
        admin = self._controller.admin(name)
        left = 0.0 if "DOWN" in admin.flags else admin.at + EVACUATED - time.time()
        if left > 0:
            return left
        try:
            await self._controller.requeue(TRAINING)
        except Refusal:
            return DELAY
        return None

    async def _cordon(self, node: Object, reason: str | None) -> None:
        """Cordon a node, and say so on it; or take both back."""
        body = {
            "metadata": {"annotations": {CORDON: reason}},
            "spec": {"unschedulable": True if reason is not None else None},
        }
        try:
            self._cache.put(await self._cache.kube.patch(Ref.of(node), body, "merge"))
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            text = f"drained in Slurm: {reason}" if reason is not None else "in service in Slurm again"
            self._recorder.event(node, "slurm-bridge", "Cordoned" if reason else "Uncordoned", text)


def _cordoned(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


def _problem(node: Object) -> str:
    """The first condition that says something is wrong, besides those that every kubelet sets."""
    for entry in node.get("status", {}).get("conditions") or ():
        if entry["type"] not in _USUAL and entry["status"] == "True" and "ealthy" not in entry["type"]:
            return f"{entry['type']}: {entry.get('reason') or 'no reason given'}"
    return ""
