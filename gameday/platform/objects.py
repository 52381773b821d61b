"""Names for Kubernetes objects, and the few facts that everything here reads out of them.

Objects stay the plain dicts that the API server sent: typed models cost seconds at 5,000 nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from gameday.experiment.names import path_segment
from gameday.masking import clip
from gameday.platform.errors import BadName

Object = dict[str, Any]
PROTECT = "gameday.dev/protect"  # a label with which a cluster keeps an object from every run
MIRROR_POD = "kubernetes.io/config.mirror"  # set by the kubelet on pods it runs from a file


def url_path(*segments: str) -> str:
    """The one place where names become a path. Raises BadName for what is not exactly one segment of it."""
    for segment in segments:
        try:
            path_segment(segment)
        except ValueError as error:
            raise BadName(f"nothing was sent: {clip(segment, 300)!r} {error}") from None
    return "".join(f"/{quote(s, safe='')}" for s in segments)


def version_path(api_version: str, *below: str) -> str:
    """The path of what an API version serves. Raises BadName."""
    group, slash, version = api_version.partition("/")
    return url_path("apis", group, version, *below) if slash else url_path("api", api_version, *below)


def field_selector(fields: Mapping[str, str]) -> str:
    """Fields that must have these values, as the API takes them; with `!` after its name, another value.

    The three characters that have a meaning there are escaped: k8s.io/apimachinery, pkg/fields, EscapeValue.
    """
    escaped = str.maketrans({c: f"\\{c}" for c in "\\,="})
    return ",".join(f"{name}={value.translate(escaped)}" for name, value in fields.items())


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
        """The URL path of the collection, or of one object. Raises BadName, for an empty name as well."""
        inside = [] if namespace is None or not self.namespaced else ["namespaces", namespace]
        below = [] if name is None else [name, *([subresource] if subresource else [])]
        return version_path(self.api_version, *inside, self.plural, *below)


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

    @property
    def named(self) -> Ref:
        """The reference to whatever has that name now."""
        return replace(self, uid=None)

    @property
    def identity(self) -> tuple[str, str, str | None, str]:
        """The object whatever version of its API is asked for it: group, kind, namespace, name."""
        return self.api_version.rpartition("/")[0], self.kind, self.namespace, self.name

    @property
    def type_in_place(self) -> tuple[str, str, str | None]:
        """Its type and namespace: what is known of an object whose name is not."""
        return self.api_version, self.kind, self.namespace

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


def labels_of(obj: Object) -> Mapping[str, str]:
    """An object's labels, or those of a pod template; {} where it has none."""
    return (obj.get("metadata") or {}).get("labels") or {}


def annotations_of(obj: Object) -> Mapping[str, str]:
    """As `labels_of`, its annotations."""
    return (obj.get("metadata") or {}).get("annotations") or {}


def marks_of(obj: Object) -> Mapping[str, str]:
    """Both, for what some write as a label and others as an annotation; the label counts where both are."""
    return {**annotations_of(obj), **labels_of(obj)}


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


def owner_ref(owner: Object | None, namespace: str | None) -> Ref | None:
    """The reference to an owner, from an object's ownerReferences; its kind may have no namespace."""
    if owner is None:
        return None
    return Ref(owner["apiVersion"], owner["kind"], owner["name"], namespace, owner.get("uid"))


def co_owners(obj: Object) -> tuple[Ref, ...]:
    """The owners of an object besides its controller."""
    above, namespace = controller(obj), obj["metadata"].get("namespace")
    every = (owner_ref(o, namespace) for o in obj["metadata"].get("ownerReferences") or () if o != above)
    return tuple(ref for ref in every if ref is not None)


def is_mirror(pod: Object) -> bool:
    """Whether a pod stands for one that the kubelet of its node runs from a file.

    Anybody may write the annotation. A kubelet makes its Node the controller as well, since NodeRestriction
    takes no mirror pod of another node from it (pkg/kubelet/pod/mirror_client.go; KEP 1314).
    """
    owner = controller(pod) or {}
    by_node = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"))
    marked = MIRROR_POD in annotations_of(pod)
    return marked and by_node == ("v1", "Node", pod["spec"].get("nodeName"))


def is_finished(pod: Object) -> bool:
    """Whether a pod will never run again."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_ready(obj: Object) -> bool:
    """Whether a node or pod has Ready "True" and is not going away."""
    return is_true(obj, "Ready") and "deletionTimestamp" not in obj["metadata"]
