"""Names for Kubernetes objects, and the few facts that everything here reads out of them.

Objects stay the plain dicts that the API server sent: typed models cost seconds at 5,000 nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
MIRROR_POD = "kubernetes.io/config.mirror"  # set by the kubelet on pods it runs from a file


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it: everything its URLs are made of."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The URL path of the collection, or of one object."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [p for p in (self.plural, name, subresource) if p]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Ref:
    """One object, by name and, where known, by the UID that tells it from a later one of that name."""

    api_version: str
    kind: str
    name: str
    namespace: str | None = None
    uid: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @classmethod
    def of(cls, obj: Object) -> Ref:
        """The reference to an object that carries its own apiVersion and kind."""
        meta = obj["metadata"]
        return cls(obj["apiVersion"], obj["kind"], meta["name"], meta.get("namespace"), meta.get("uid"))

    def to_data(self) -> dict[str, str]:
        """Plain data, without what is unset."""
        data = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
        }
        return {k: v for k, v in data.items() if v}

    @classmethod
    def from_data(cls, data: dict[str, str]) -> Ref:
        return cls(data["apiVersion"], data["kind"], data["name"], data.get("namespace"), data.get("uid"))


def condition(obj: Object, kind: str) -> Object:
    """The status condition of that type; {} when there is none."""
    for entry in obj.get("status", {}).get("conditions") or ():
        if entry.get("type") == kind:
            return dict(entry)
    return {}


def is_true(obj: Object, kind: str) -> bool:
    """Whether a status condition is "True"."""
    return condition(obj, kind).get("status") == "True"


def controller(obj: Object) -> Object | None:
    """The owner reference marked as the controller, as kubectl drain and the garbage collector read it."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


def is_finished(pod: Object) -> bool:
    """Whether a pod will never run again."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_ready(obj: Object) -> bool:
    """Whether a node or pod has Ready "True" and is not going away."""
    return is_true(obj, "Ready") and "deletionTimestamp" not in obj["metadata"]


def gpus(obj: Object) -> int:
    """GPUs of a node (capacity) or of a pod (the sum of its containers' limits)."""
    if obj.get("kind") == "Node" or "capacity" in obj.get("status", {}):
        resources = [obj.get("status", {}).get("capacity") or {}]
    else:
        resources = [
            c.get("resources", {}).get("limits") or {} for c in obj.get("spec", {}).get("containers", ())
        ]
    return sum(int(v) for r in resources for k, v in r.items() if k in GPU_RESOURCES)


GPU_RESOURCES = frozenset({"nvidia.com/gpu", "amd.com/gpu"})
