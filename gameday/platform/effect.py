"""Effects of a fault on the world beyond its own change: each effect counted, or named."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gameday.platform.devices import gpus
from gameday.platform.objects import Object, Ref, co_owners, controller, owner_ref
from gameday.platform.world import Victim


class Kind(StrEnum):
    """How an effect is bounded: the first three are counted, the named ones must be allowed by name."""

    NODE = "node"
    POD = "pod"
    WORKLOAD = "workload"
    OBJECT = "object"  # of a namespace of the target: bounded by that
    CREATED = "created"  # an object that the fault makes: its name is the run's
    CLAIM = "claim"  # of a volume: goes, and its data with it, as its pod does
    JOB = "job"  # of Slurm or a queue: comes with the node or partition that it loses
    SERVICE = "service"
    PARTITION = "partition"
    NAMESPACE = "namespace"
    CLUSTER_SCOPED = "clusterScoped"
    OTHER = "other"


class NodeState(StrEnum):
    """How a fault leaves nodes, as others see them: what may make them act."""

    UNSCHEDULABLE = "unschedulable"  # its pods stay, and no others come
    EMPTY = "empty"  # without the pods that count for an autoscaler
    NOT_READY = "notReady"
    GPU_ERROR = "gpuError"


# Known by number or kind, since others take their places.
LOOSE = (Kind.POD, Kind.CLAIM, Kind.JOB, Kind.CREATED)
NAMED = (Kind.SERVICE, Kind.PARTITION, Kind.NAMESPACE, Kind.CLUSTER_SCOPED, Kind.OTHER)


@dataclass(frozen=True)
class Touch:
    """One object that an operation changes when it is made.

    `made`: the operation creates the object, and changes none that is there. `runs_on`: the node on which the
    object is a program of the run's own, in the namespace of such programs.
    """

    ref: Ref
    made: bool = False
    runs_on: str = ""


@dataclass(frozen=True)
class Effect:
    """One thing that a fault touches, ends or makes fail, as data.

    `text` says what happens ("evicted", "requests fail"); `node` is where a pod runs, so that a pod of a node
    that is touched anyway is not counted twice; `gpus` are those that are lost, `pods` those that a workload
    loses; `ends` says that the thing is gone afterwards, `times` how often, where its successors may go as
    well; `comes` that a pod comes with its node; `owner` is a pod's controller, `co_owners` its other owners,
    `lost` why nothing makes a pod that ends again, or brings back a claim's data.
    """

    kind: Kind
    ref: Ref
    text: str = ""
    node: str = ""
    gpus: int = 0
    pods: int = 0
    ends: bool = False
    comes: bool = False
    owner: Ref | None = field(default=None, compare=False)
    co_owners: tuple[Ref, ...] = field(default=(), compare=False, kw_only=True)
    times: int = 1
    lost: str = ""

    @property
    def name(self) -> str:
        """The name under which a blast radius allows the effect."""
        if self.kind is Kind.CLUSTER_SCOPED:
            return f"{self.ref.kind}/{self.ref.name}"
        if self.kind is Kind.SERVICE:
            return f"{self.ref.namespace}/{self.ref.name}"
        return self.ref.name

    def covers(self, touch: Touch) -> bool:
        """Whether a change of an object is what this effect says. Which pods and how many, the gate counts.

        An object that a fault makes is known by its kind, since its name comes with the run; a node by its
        name, in Slurm as in Kubernetes; and a program by the node that it runs on, which must be an effect
        of its own. A node that is no more than an object is one for programs, and for nothing else.
        """
        if touch.runs_on:
            return touch.made and self.on_node and self.ref.name == touch.runs_on
        if self.on_node and self.kind is Kind.OBJECT:
            return False
        if self.kind is Kind.CREATED:
            return touch.made and touch.ref.type_in_place == self.ref.type_in_place
        if touch.ref.kind == "SlurmNode" and self.kind is Kind.NODE:
            return touch.ref.name in (self.ref.name, self.node)
        return touch.ref.identity == self.ref.identity

    @property
    def on_node(self) -> bool:
        """Whether a node itself is touched, lost or not; a pod's effect does not touch the pod's node."""
        return self.ref.kind == "Node" and self.kind in (Kind.NODE, Kind.OBJECT)

    def __str__(self) -> str:
        return f"{self.ref}{': ' + self.text if self.text else ''}"

    def to_data(self) -> dict[str, Any]:
        """Plain data, without what is unset."""
        data = {
            "kind": str(self.kind),
            "ref": self.ref.to_data(),
            "text": self.text,
            "node": self.node,
            "gpus": self.gpus,
            "pods": self.pods,
            "ends": self.ends,
            "comes": self.comes,
            "owner": self.owner.to_data() if self.owner else None,
            "co_owners": [o.to_data() for o in self.co_owners],
            "times": self.times if self.times > 1 else 0,
            "lost": self.lost,
        }
        return {k: v for k, v in data.items() if v}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Effect:
        """Raises KeyError, TypeError or ValueError for what is no effect."""
        owner = data.get("owner")
        return cls(
            Kind(data["kind"]),
            Ref.from_data(data["ref"]),
            str(data.get("text", "")),
            str(data.get("node", "")),
            int(data.get("gpus", 0)),
            int(data.get("pods", 0)),
            bool(data.get("ends", False)),
            bool(data.get("comes", False)),
            Ref.from_data(owner) if owner else None,
            int(data.get("times", 1)),
            str(data.get("lost", "")),
            co_owners=tuple(map(Ref.from_data, data.get("co_owners") or ())),
        )


def of_victim(victim: Victim, *, ends: bool = False) -> Effect:
    """The effect that a target itself is."""
    kind = {"node": Kind.NODE, "pod": Kind.POD, "workload": Kind.WORKLOAD}.get(victim.role, Kind.OBJECT)
    return Effect(
        kind,
        victim.ref,
        "",
        victim.node,
        victim.gpus,
        victim.pods,
        ends,
        owner=victim.owner,
        co_owners=victim.co_owners,
    )


def of_pod(pod: Object, text: str = "", *, ends: bool = False, comes: bool = False) -> Effect:
    """The effect on a pod."""
    meta = pod["metadata"]
    return Effect(
        Kind.POD,
        Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"]),
        text,
        pod["spec"].get("nodeName", ""),
        gpus(pod),
        ends=ends,
        comes=comes,
        owner=owner_ref(controller(pod), meta["namespace"]),
        co_owners=co_owners(pod),
    )


def named(kind: Kind, name: str, text: str, *, what: str = "", namespace: str | None = None) -> Effect:
    """The effect on something that is only known by name: a service, a partition, a machine."""
    api, default = {
        Kind.SERVICE: ("v1", "Service"),
        Kind.NAMESPACE: ("v1", "Namespace"),
        Kind.PARTITION: ("slurm.schedmd.com", "SlurmPartition"),
        Kind.JOB: ("slurm.schedmd.com", "SlurmJob"),
    }.get(kind, ("gameday.dev/v1alpha1", "Other"))
    return Effect(kind, Ref(api, what or default, name, namespace), text)
