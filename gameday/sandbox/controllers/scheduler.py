"""The scheduler: puts each waiting pod on a node that takes it, spread over nodes and zones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gameday.experiment.quantity import parse_quantity
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref, controller, is_finished, is_true
from gameday.sandbox.apiserver.selectors import labels_match, parse_expressions
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import deleting, labels_of, new_condition, tolerates, with_conditions
from gameday.sandbox.recorder import Recorder

NAME = "default-scheduler"
ENOUGH = 100  # feasible nodes that are compared; upstream too stops looking on large clusters
TOGETHER = 0.01  # seconds in which changes are gathered into one pass
ZONE = "topology.kubernetes.io/zone"


@dataclass
class Room:
    """A node as the scheduler sees it while it plans one pass."""

    node: Object
    free: dict[str, float]
    count: int = 0
    owners: Counter[str] = field(default_factory=Counter)

    def take(self, pod: Object) -> None:
        for name, amount in requests(pod).items():
            if name in self.free:
                self.free[name] -= amount
        self.count += 1
        self.owners[_owner(pod)] += 1


class Scheduler:
    """Waits for changes, then binds everything that can be bound."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._kube = cache.kube
        self._recorder = recorder
        self._wake = asyncio.Event()
        self._assumed: dict[str, str] = {}  # pod's uid: its node, until the cache shows the binding
        cache.listen("Pod", self._pod_changed)
        cache.listen("Node", self._node_changed)

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        if new is None or (not new["spec"].get("nodeName") and old is None) or is_finished(new):
            self._wake.set()

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        heartbeat = new and old and (new["spec"], labels_of(new)) == (old["spec"], labels_of(old))
        if not heartbeat or (new or {}).get("status", {}).get("allocatable") != (old or {}).get(
            "status", {}
        ).get("allocatable"):
            self._wake.set()

    async def run(self) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(TOGETHER)
            self._wake.clear()
            waiting = [
                p for p in self._cache.all("Pod") if _waits(p) and p["metadata"]["uid"] not in self._assumed
            ]
            if waiting:
                await self._schedule(waiting)

    async def _schedule(self, waiting: list[Object]) -> None:
        rooms = self._rooms()
        bindings = []
        for pod in sorted(waiting, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"])):
            room, problem = _choose(pod, rooms)
            if room is None:
                bindings.append(self._refuse(pod, problem))
            else:
                room.take(pod)
                bindings.append(self._bind(pod, room.node["metadata"]["name"]))
        limit = asyncio.Semaphore(32)

        async def limited(step: Any) -> None:
            async with limit:
                await step

        for outcome in await asyncio.gather(*map(limited, bindings), return_exceptions=True):
            if isinstance(outcome, PlatformError):
                asyncio.get_running_loop().call_later(1.0, self._wake.set)
            elif isinstance(outcome, BaseException):
                raise outcome

    def _rooms(self) -> list[Room]:
        rooms = {
            n["metadata"]["name"]: Room(n, _quantities(n.get("status", {}).get("allocatable") or {}))
            for n in self._cache.all("Node")
            if not deleting(n)
        }
        for pod in self._cache.all("Pod"):
            bound = pod["spec"].get("nodeName")
            if bound:
                self._assumed.pop(pod["metadata"]["uid"], None)
            else:
                bound = self._assumed.get(pod["metadata"]["uid"])
            if bound in rooms and not is_finished(pod):
                rooms[bound].take(pod)
        return list(rooms.values())

    async def _bind(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        self._assumed[meta["uid"]] = node
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding"
        try:
            await self._kube.request("POST", path, verb="bind", what=str(Ref.of(pod)), body=body)
        except ApiError as error:
            self._assumed.pop(meta["uid"], None)
            if error.status not in (404, 409):
                raise
            return
        where = f"{meta['namespace']}/{meta['name']}"
        self._recorder.event(pod, NAME, "Scheduled", f"Successfully assigned {where} to {node}")

    async def _refuse(self, pod: Object, problem: str) -> None:
        """Say why a pod has to wait, once for each reason."""
        new = new_condition(pod, "PodScheduled", False, "Unschedulable", problem)
        if new in (pod.get("status", {}).get("conditions") or ()):
            return
        body = {"status": {"conditions": with_conditions(pod, [new])}}
        try:
            self._cache.put(await self._kube.patch(Ref.of(pod), body, "merge", subresource="status"))
        except ApiError as error:
            if error.status != 404:
                raise
        self._recorder.event(pod, NAME, "FailedScheduling", problem, warning=True)


def _waits(pod: Object) -> bool:
    spec = pod["spec"]
    mine = spec.get("schedulerName", NAME) == NAME
    return mine and not spec.get("nodeName") and not deleting(pod) and not is_finished(pod)


def _choose(pod: Object, rooms: list[Room]) -> tuple[Room | None, str]:
    """The best node for a pod, or why there is none, in upstream's words."""
    wanted, owner = requests(pod), _owner(pod)
    reasons: Counter[str] = Counter()
    feasible = []
    for room in rooms:
        problems = list(_problems(pod, wanted, room))
        reasons.update(problems)
        if not problems:
            feasible.append(room)
            if len(feasible) >= ENOUGH:
                break
    if not feasible:
        told = ", ".join(sorted(f"{n} {reason}" for reason, n in reasons.items()))
        return None, f"0/{len(rooms)} nodes are available: {told or 'no nodes'}."
    zones: Counter[str] = Counter()
    for room in rooms if len(rooms) <= ENOUGH else feasible:
        zones[labels_of(room.node).get(ZONE, "")] += room.owners[owner]
    gpus = "nvidia.com/gpu"

    def cost(room: Room) -> tuple[int, int, float, int]:
        zone = zones[labels_of(room.node).get(ZONE, "")]
        return room.owners[owner], zone, -room.free.get(gpus, 0) if gpus in wanted else 0, room.count

    return min(feasible, key=cost), ""


def _problems(pod: Object, wanted: Mapping[str, float], room: Room) -> Iterator[str]:
    problem = node_fits(pod, room.node)
    if problem:
        yield problem
        return
    if not is_true(room.node, "Ready"):
        yield "node(s) were not ready"
        return
    for name, amount in wanted.items():
        if room.free.get(name, 0.0) < amount:
            yield f"Insufficient {name}"
    if room.count >= room.free.get("pods", 110.0):
        yield "Too many pods"


def node_fits(pod: Object, node: Object) -> str | None:
    """Why labels, affinity, cordon or taints keep a pod off a node; None when they don't."""
    labels = labels_of(node)
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(k) != v for k, v in selector.items()) or not _affine(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    taints = list(node["spec"].get("taints") or ())
    if node["spec"].get("unschedulable"):
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if tolerates(pod, taint) is None:
            return "node(s) were unschedulable"
    for taint in taints:
        if taint["effect"] in ("NoSchedule", "NoExecute") and tolerates(pod, taint) is None:
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return None


def _affine(pod: Object, node: Object) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if terms is None:
        return True
    name = {"metadata.name": node["metadata"]["name"]}
    return any(
        labels_match(parse_expressions(t.get("matchExpressions"), of_nodes=True), labels_of(node))
        and labels_match(parse_expressions(t.get("matchFields"), of_nodes=True), name)
        for t in terms
    )


def requests(pod: Object) -> dict[str, float]:
    """What a pod asks for, in base units; limits stand in for requests that are not given."""
    total: dict[str, float] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, amount in asked.items():
            total[name] = total.get(name, 0.0) + _quantity(str(amount))
    return total


def _quantities(amounts: Mapping[str, Any]) -> dict[str, float]:
    return {k: _quantity(str(v)) for k, v in amounts.items()}


@lru_cache(maxsize=1000)
def _quantity(text: str) -> float:
    return parse_quantity(text)


def _owner(pod: Object) -> str:
    owner = controller(pod)
    return str(owner["uid"]) if owner else str(pod["metadata"]["uid"])
