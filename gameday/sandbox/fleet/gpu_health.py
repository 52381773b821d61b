"""Who reacts to a broken GPU: a Node Problem Detector, and a remediator that takes the node out of service.

Each is a moment later than the one before, as on a real platform. The remediator gives back what it took
when the errors are over, and only that: a node that somebody else cordoned stays cordoned.
"""

from __future__ import annotations

import time

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, condition, is_finished
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of, deleting, gpus, new_condition
from gameday.sandbox.fleet import xids
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.nodes import is_simulated, tell
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

CONDITION = "XIDErrors"  # as AKS' Node Problem Detector calls it
TAINT = "nvidia.com/gpu.unhealthy"
MARK = "sandbox.gameday.dev/remediated"  # on a node: what the remediator took away
NOTICED, ACTED, RESET = (
    1.0,
    1.5,
    3.0,
)  # seconds: to the condition, from there to the taint, from empty to reset


class GpuHealth:
    """One work queue over the nodes for both."""

    def __init__(self, cache: Cache, recorder: Recorder, cards: Gpus) -> None:
        self._cache, self._recorder, self._gpus = cache, recorder, cards
        self._work: Work[str] = Work("gpu-health", self._reconcile)
        self._since: dict[str, float] = {}  # node: when its errors changed last
        self._told: dict[str, int] = {}  # node: lines of its kernel log that were told as events
        cards.listeners.append(self._changed)

    async def run(self) -> None:
        await self._work.run()

    def _changed(self, node: str) -> None:
        self._since[node] = time.monotonic()
        self._work.add(node, after=NOTICED)

    async def _reconcile(self, name: str) -> float | None:
        node = self._cache.get("Node", ("", name))
        if node is None or not is_simulated(node):
            return None
        broken = self._gpus.broken(name)
        self._tell_lines(node)
        await self._say(node, broken)
        acting = NOTICED + ACTED - (time.monotonic() - self._since.get(name, 0.0))
        if acting > 0 and broken:
            return acting
        if broken:
            return await self._remediate(name, broken)
        await self._release(name)
        return None

    # -- Node Problem Detector -----------------------------------------------------------------

    def _tell_lines(self, node: Object) -> None:
        name = node["metadata"]["name"]
        lines = self._gpus.lines(name)
        for line in lines[self._told.get(name, 0) :]:
            self._recorder.event(node, "kernel-monitor", "XIDError", line.text, warning=True)
        self._told[name] = len(lines)

    async def _say(self, node: Object, broken: dict[int, int]) -> None:
        status = "True" if broken else "False"
        if condition(node, CONDITION).get("status") == status:
            return
        told = ", ".join(f"GPU {g}: {xids.told(x)}" for g, x in broken.items())
        entry = healthy(node) if not broken else new_condition(node, CONDITION, True, "XIDErrorsFound", told)
        await tell(self._cache, node, entry)
        if broken:
            self._recorder.event(node, "xid-monitor", "XIDErrorsFound", told, warning=True)

    # -- the remediator ------------------------------------------------------------------------

    async def _remediate(self, name: str, broken: dict[int, int]) -> float:
        """Taint, cordon, empty, and, where only the kernel log holds it against the node, reset."""
        node = self._cache.get("Node", ("", name))
        assert node is not None
        if MARK not in annotations_of(node):
            await self._take(node, broken)
            return 0.5
        held = [p for p in self._cache.pods_on(name) if gpus(p) and not is_finished(p)]
        for pod in held:
            if not deleting(pod):
                await self._evict(pod)
        if held:
            return 0.5
        if any(not line.repaired for line in self._gpus.lines(name)):
            self._gpus.reset(name)
        return RESET

    async def _take(self, node: Object, broken: dict[int, int]) -> None:
        cordoned = bool(node["spec"].get("unschedulable"))
        taint = {"key": TAINT, "value": f"Xid{next(iter(broken.values()))}", "effect": "NoSchedule"}
        spec = {"taints": [*(node["spec"].get("taints") or ()), taint], "unschedulable": True}
        marks = {MARK: "taint" if cordoned else "taint,cordon"}
        await self._write(node, {"metadata": {"annotations": marks}, "spec": spec})
        self._recorder.event(
            node, "node-remediator", "NodeQuarantined", f"{TAINT}={taint['value']}", warning=True
        )

    async def _release(self, name: str) -> None:
        node = self._cache.get("Node", ("", name))
        if node is None or MARK not in annotations_of(node):
            return
        taints = [t for t in node["spec"].get("taints") or () if t["key"] != TAINT]
        spec: Object = {"taints": taints or None}
        if "cordon" in annotations_of(node)[MARK]:
            # The taint that goes with a cordon is the node controller's; both go, so that none outlives it.
            spec |= {"unschedulable": None}
        await self._write(node, {"metadata": {"annotations": {MARK: None}}, "spec": spec})
        self._recorder.event(node, "node-remediator", "NodeReleased", "its GPUs report no error any more")

    async def _write(self, node: Object, body: Object) -> None:
        """Lists are written whole, so only the version that was read is written to."""
        body["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"]
        self._cache.put(await self._cache.kube.patch(Ref.of(node), body, "merge"))

    async def _evict(self, pod: Object) -> None:
        try:
            await self._cache.kube.evict(Ref.of(pod))
        except ApiError as error:
            if error.status not in (404, 429):  # gone, or its budget says later
                raise


def healthy(node: Object) -> Object:
    """The condition of a node without errors."""
    return new_condition(node, CONDITION, False, "NoXIDErrors", "no XID errors")
