"""Follows what happens to the targets, their owners and their nodes, so that the log tells one story.

Kubernetes' own events and changed status conditions, next to what we did and to what was measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from gameday.events import ConditionChanged, Emit, ObjectEvent, Warn
from gameday.experiment.selector import Selector
from gameday.experiment.text import shorten
from gameday.masking import clip
from gameday.platform.errors import ApiError, PlatformError, Unreachable
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, labels_of
from gameday.platform.owners import owners
from gameday.platform.permission import Permission
from gameday.platform.resources import EVENTS, NODES, PODS
from gameday.platform.world import Victim, World
from gameday.run.digest import Digest
from gameday.run.opinions import follow_opinions

# ReplicaSets are left out: what goes wrong in one is a condition of its Deployment, and in its events.
WORKLOADS = (
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("apps/v1", "DaemonSet", "daemonsets"),
    Resource("batch/v1", "Job", "jobs"),
)
MOST_ASKED = 50  # victims whose owners are looked up, to learn which kinds they are of
LONGEST = 500  # characters of a message that are kept
# They come and go with Ready, and say nothing more.
_DULL = frozenset({"Initialized", "ContainersReady", "PodReadyToStartContainers"})
_GONE = "Deleted"
_TAINT = "Taint "

Name = tuple[str, str, str]  # kind, namespace, name


async def observe(
    world: World, victims: Iterable[Victim], emit: Emit, heard: Callable[[Object], None] = lambda obj: None
) -> None:
    """Tell what changes from now on, until cancelled; `heard` gets each object that a watch brings.

    In scope are the target's namespaces and nodes, and the victims with their owners and nodes. What
    may not be watched is said once; the rest goes on.
    """
    scope, kinds = await _scope(world, list(victims))
    digest = Digest(emit)
    async with asyncio.TaskGroup() as group:
        group.create_task(digest.run())
        for resource, namespace in _watches(scope, kinds):
            changes = _Events(scope) if resource is EVENTS else _Conditions(scope)
            group.create_task(_follow(world.kube, resource, namespace, changes, digest, emit, heard))
        group.create_task(follow_opinions(world, scope.nodes, emit))


async def reads(world: World, victims: Iterable[Victim]) -> set[Permission]:
    """The permissions that observing, and keeping the logs of pods, needs."""
    scope, kinds = await _scope(world, list(victims))
    found = {
        Permission(namespace or "", resource.group, resource.plural, "", "", verb)
        for resource, namespace in _watches(scope, kinds)
        for verb in ("list", "watch")
    }
    namespaces = {p.namespace for p in found if p.resource == "pods"}
    return found | {Permission(n, "", "pods", part, "", "get") for n in namespaces for part in ("", "log")}


@dataclass(frozen=True)
class _Scope:
    """An object whose changes are logged."""

    namespaces: frozenset[str]
    named: frozenset[Name]
    nodes: frozenset[str]
    selector: Selector | None
    seen_nodes: set[str] = field(default_factory=set)  # those that the selector found

    def covers(self, obj: Object) -> bool:
        meta = obj["metadata"]
        if obj["kind"] != "Node":
            return self.has(obj["kind"], meta.get("namespace") or "", meta["name"])
        if self.selector is not None and self.selector.matches(labels_of(obj)):
            self.seen_nodes.add(meta["name"])
        return meta["name"] in self.nodes or meta["name"] in self.seen_nodes

    def has(self, kind: str, namespace: str, name: str) -> bool:
        if kind == "Node":
            return name in self.nodes or name in self.seen_nodes
        return namespace in self.namespaces or (kind, namespace, name) in self.named


async def _scope(world: World, victims: list[Victim]) -> tuple[_Scope, set[Resource]]:
    refs = [v.ref for v in victims]
    for victim in [v for v in victims if v.role != "node"][:MOST_ASKED]:
        try:
            found = await world.kube.find(victim.ref)
            refs += [Ref.of(owner) for owner in (await owners(world.kube, found, []) if found else [])]
        except Unreachable:
            break  # the kinds that everybody knows are watched anyway
        except PlatformError:
            continue
    kinds: set[Resource] = set()
    for api_version, kind in {(r.api_version, r.kind) for r in refs}:
        try:
            kinds.add(await world.kube.resource(api_version, kind))
        except PlatformError:
            continue
    nodes = {v.node for v in victims if v.node} | {r.name for r in refs if r.kind == "Node"}
    scope = _Scope(
        namespaces=frozenset(world.namespaces),
        named=frozenset((r.kind, r.namespace or "", r.name) for r in refs),
        nodes=frozenset(nodes),
        selector=Selector.parse(world.node_selector) if world.node_selector else None,
    )
    return scope, kinds


def _watches(scope: _Scope, kinds: set[Resource]) -> Iterator[tuple[Resource, str | None]]:
    namespaces = scope.namespaces | {namespace for _, namespace, _ in scope.named if namespace}
    nodes = bool(scope.nodes or scope.selector)
    if nodes:
        yield NODES, None
    for namespace in sorted(namespaces | ({"default"} if nodes else set())):  # where nodes' events are
        yield EVENTS, namespace
    for namespace in sorted(namespaces):
        for resource in {PODS, *WORKLOADS, *(k for k in kinds if k.namespaced and k.kind != "ReplicaSet")}:
            yield resource, namespace
    for resource in kinds - {NODES}:
        if not resource.namespaced:
            yield resource, None


async def _follow(
    kube: Kube,
    resource: Resource,
    namespace: str | None,
    changes: Any,
    digest: Digest,
    emit: Emit,
    heard: Callable[[Object], None],
) -> None:
    """Tell the changes of one kind in one namespace."""
    begun = False  # the first list is how things were
    try:
        async for kind, obj in follow(kube, resource, namespace):
            if kind == "SYNCED":
                begun = True
                continue
            obj.setdefault("kind", resource.kind)
            heard(obj)
            for told in changes.of(kind, obj, begun):
                digest.tell(told)
    except ApiError as error:
        emit(Warn(source="observe", message=f"{error}; the log will not tell of them"))


class _Conditions:
    """Remembers the conditions of objects, and finds what changed."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        self._known: dict[str, dict[str, str]] = {}  # by UID: status by condition

    def of(self, kind: str, obj: Object, begun: bool) -> Iterator[ConditionChanged]:
        if not self._scope.covers(obj):
            return
        uid, name = obj["metadata"]["uid"], _name(obj["kind"], obj["metadata"])
        known = self._known.setdefault(uid, {})
        if kind == "DELETED":
            del self._known[uid]
            yield ConditionChanged(object=name, condition=_GONE, status="True")
            return
        node = str((obj.get("spec") or {}).get("nodeName") or "") if obj["kind"] == "Pod" else ""
        for condition, status, reason, message in (*_conditions(obj), *_lifted(obj, known)):
            if begun and known.get(condition, _unsaid(condition, status)) != status:
                yield ConditionChanged(
                    object=name,
                    condition=condition,
                    status=status,
                    reason=reason,
                    message=clip(message, LONGEST),
                    node=node,
                )
            known[condition] = status


def _unsaid(condition: str, status: str) -> str:
    """What a condition that is not there yet stands for: a new pod without Ready is not news."""
    if condition == "Phase":
        return status
    return "True" if condition == "PodScheduled" else "False"


def _conditions(obj: Object) -> Iterator[tuple[str, str, str, str]]:
    """(type, status, reason, message) of an object's conditions, and of what should be one."""
    status = obj.get("status") or {}
    listed = status.get("conditions")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and "type" in entry and entry["type"] not in _DULL:
            reason, message = entry.get("reason") or "", entry.get("message") or ""
            yield intern(str(entry["type"])), intern(str(entry.get("status"))), str(reason), str(message)
    if obj["kind"] == "Pod":
        if phase := status.get("phase"):
            yield "Phase", intern(phase), status.get("reason") or "", status.get("message") or ""
        yield "Terminating", str("deletionTimestamp" in obj["metadata"]), "", ""
    if obj["kind"] == "Node":
        yield "Unschedulable", str(bool(obj.get("spec", {}).get("unschedulable"))), "", ""
        for taint in _taints(obj):
            value = f"{taint['value']}:" if taint.get("value") else ""
            yield _TAINT + taint["key"], "True", value + taint["effect"], ""


def _taints(node: Object) -> list[Object]:
    """A node's taints but those with which Kubernetes repeats its own conditions."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return [t for t in taints if not t["key"].startswith("node.kubernetes.io/")]


def _lifted(obj: Object, known: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """The taints that a node had before, and has no longer."""
    if obj["kind"] == "Node":
        there = {_TAINT + t["key"] for t in _taints(obj)}
        for condition in [c for c in known if c.startswith(_TAINT) and c not in there]:
            yield condition, "False", "", ""


class _Events:
    """Remembers how often each Kubernetes event was counted, and finds the new ones."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        self._counts: dict[str, int] = {}  # by UID

    def of(self, kind: str, event: Object, begun: bool) -> Iterator[ObjectEvent]:
        about, uid = event.get("involvedObject") or {}, event["metadata"]["uid"]
        if kind == "DELETED":
            self._counts.pop(uid, None)
            return
        if not self._scope.has(about.get("kind", ""), about.get("namespace") or "", about.get("name", "")):
            return
        count = (event.get("series") or {}).get("count") or event.get("count") or 1
        new = count - self._counts.get(uid, 0)
        self._counts[uid] = count
        if begun and new > 0:
            yield ObjectEvent(
                object=_name(about.get("kind", ""), about),
                reason=event.get("reason") or "",
                message=shorten(event.get("message") or "", LONGEST),
                level=event.get("type") or "Normal",
                count=new,
            )


def _name(kind: str, meta: Object) -> str:
    namespace = meta.get("namespace")
    return f"{kind} {namespace}/{meta['name']}" if namespace else f"{kind} {meta['name']}"
