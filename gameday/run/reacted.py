"""Pods that others ended on a fault's nodes, which they had taken out of service for the fault.

A drain by a remediator is no change of the run's, and no effect of a fault; the verdict names its pods all
the same, since the run is why they went. Only nodes count that somebody else cordoned or tainted after their
fault went in, and of their pods those that began to go since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Self

from gameday.events import Change, Event, Fault
from gameday.platform.objects import Object, Ref, is_finished

if TYPE_CHECKING:
    from gameday.platform.world import Victim
    from gameday.safety.plan import Plan

_REPEATED = "node.kubernetes.io/"  # taints with which Kubernetes repeats its own conditions


class Reacted:
    """Hears the log and the objects that a watch brings. `nodes`: those of each step, by its path."""

    def __init__(self, nodes: Mapping[str, frozenset[str]]) -> None:
        self._nodes = nodes
        self._struck: set[str] = set()  # nodes for which a fault was meant, from its injection on
        self._out: dict[str, bool] = {}  # whether a node was out of service before it was struck, by node
        self._taken: set[str] = set()  # nodes that went out of service since
        self._ours: set[str] = set()  # nodes that the run itself took out of service
        self._going: set[str] = set()  # UIDs of pods that went before, or belong to no struck node
        self._gone: dict[str, tuple[str, str]] = {}  # by UID: the pod, and its node

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """For the nodes that the plan's victims are, or are on."""
        return cls({s.path: frozenset(_nodes(s.fault.victims)) for s in plan.steps.values()})

    def hear_event(self, event: Event) -> None:
        """An event of the log: what the run does itself."""
        if isinstance(event, Fault) and event.state == "injecting":
            self._struck |= self._nodes.get(event.step, frozenset())
        elif isinstance(event, Change) and event.takes_out_of_service():
            self._ours.add(event.object.removeprefix("Node "))

    def hear(self, obj: Object) -> None:
        """An object as it is now."""
        meta = obj["metadata"]
        if obj["kind"] == "Node":
            out, struck = _is_out(obj), meta["name"] in self._struck
            if not struck:
                self._out[meta["name"]] = out
            elif out and not self._out.get(meta["name"]):
                self._taken.add(meta["name"])
        elif obj["kind"] == "Pod" and "deletionTimestamp" in meta and not is_finished(obj):
            node = (obj.get("spec") or {}).get("nodeName") or ""
            if node not in self._struck:
                self._going.add(meta["uid"])
            elif meta["uid"] not in self._going:
                self._gone.setdefault(meta["uid"], (str(Ref.of(obj)), node))

    def pods(self, but: Collection[str]) -> int:
        """How many pods were ended, without those that the run has ended itself."""
        nodes = self._taken - self._ours
        return sum(node in nodes and pod not in but for pod, node in self._gone.values())


def _nodes(victims: Iterable[Victim]) -> Iterator[str]:
    for victim in victims:
        if node := victim.ref.name if victim.role == "node" else victim.node:
            yield node


def _is_out(node: Object) -> bool:
    spec = node.get("spec") or {}
    taints = spec.get("taints") or ()
    return bool(spec.get("unschedulable")) or any(not t["key"].startswith(_REPEATED) for t in taints)
