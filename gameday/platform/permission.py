"""Permissions of RBAC, one verb on one kind: as a plan's needs name it, as the API checks it, for people.

How a request becomes such a permission is k8s.io/apiserver, pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

ANYBODY = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews"})  # system:basic-user may
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True, order=True)
class Permission:
    """One permission. `namespace` "" is the whole cluster, `name` "" every object; `resource` is a plural."""

    namespace: str
    group: str
    resource: str
    subresource: str
    name: str
    verb: str

    @classmethod
    def parse(cls, need: str) -> Self:
        """`patch deployments.apps inference web`: verb, resource.group/subresource, namespace, name.

        `-` in the namespace's place is a kind without one, as in `patch nodes - gpu-0`.
        """
        verb, what, *rest = need.split()
        resource, _, subresource = what.partition("/")
        plural, _, group = resource.partition(".")
        namespace = rest[0] if rest and rest[0] != "-" else ""
        return cls(namespace, group, plural, subresource, rest[1] if len(rest) > 1 else "", verb)

    @classmethod
    def of_request(cls, method: str, path: str, fields: Mapping[str, str], *, watch: bool) -> Self | None:
        """The permission for a request; None for one about no resource, or that is everybody's."""
        root, *words = [unquote(word) for word in path.strip("/").split("/")]
        group, words = (words[0], words[2:]) if root == "apis" and words else ("", words[1:])
        if root not in ("api", "apis") or not words:
            return None
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        resource, name, subresource = (*words, "", "")[:3]
        if resource in ANYBODY:
            return None
        verb = _VERBS.get(method, "get" if name else "watch" if watch else "list")
        if subresource == "exec":
            verb = "get"  # of a WebSocket; older clients post
        return cls(namespace, group, resource, subresource, name or fields.get("metadata.name", ""), verb)

    @property
    def attributes(self) -> dict[str, str]:
        """As a SelfSubjectAccessReview's resourceAttributes."""
        return {key: value for key, value in vars(self).items() if value}

    @property
    def what(self) -> str:
        """resource.group/subresource."""
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{kind}/{self.subresource}" if self.subresource else kind

    def __str__(self) -> str:
        where = (
            [self.namespace or "-", self.name] if self.name else [self.namespace] if self.namespace else []
        )
        return " ".join([self.verb, self.what, *where])

    @property
    def words(self) -> str:
        """For people: `patch deployments.apps web in namespace inference`."""
        where = f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"
        return " ".join(filter(None, (self.verb, self.what, self.name, where)))

    def covers(self, other: Permission) -> bool:
        """Whether it allows all that the other one does."""
        same = ("verb", "group", "resource", "subresource")
        return (
            all(getattr(self, key) == getattr(other, key) for key in same)
            and self.namespace in ("", other.namespace)
            and self.name in ("", other.name)
        )


async def missing(kube: Kube, wanted: Sequence[Permission]) -> list[Permission]:
    """Those of these permissions that RBAC does not give the client. Raises PlatformError."""
    allowed = await asyncio.gather(*(kube.allowed(p.attributes) for p in wanted))
    return [p for p, yes in zip(wanted, allowed, strict=True) if not yes]
