"""Who may do what: everyone everything, except what a test forbids; and the reviews that ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.routes import Request
from gameday.sandbox.apiserver.status import forbidden

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that is forbidden; "*" stands for any. A subresource is written pods/eviction."""

    verb: str = "*"
    resource: str = "*"
    group: str = "*"
    namespace: str = "*"
    user: str = "*"

    def covers(self, user: str, verb: str, resource: str, group: str, namespace: str) -> bool:
        asked = (user, verb, resource, group, namespace)
        rule = (self.user, self.verb, self.resource, self.group, self.namespace)
        return all(r in ("*", a) for r, a in zip(rule, asked, strict=True))


class Access:
    """The rules in force."""

    def __init__(self, denials: Iterable[Denial] = ()) -> None:
        self.denials = list(denials)

    def allowed(self, user: str, verb: str, resource: str, group: str, namespace: str) -> bool:
        return not any(d.covers(user, verb, resource, group, namespace) for d in self.denials)

    def check(self, request: Request) -> None:
        """Raise 403 with the sentence that RBAC answers."""
        resource, namespace = request.resource, request.namespace
        full = f"{resource.plural}/{request.subresource}" if request.subresource else resource.plural
        if self.allowed(request.user, request.verb, full, resource.group, namespace):
            return
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        raise forbidden(
            resource,
            request.name,
            f'User "{request.user}" cannot {request.verb} resource "{full}" in API group '
            f'"{resource.group}" {scope}',
        )

    def review(self, resource: Resource, user: str, body: Json) -> Json:
        """Answer a SelfSubjectAccessReview and its like; nothing is stored."""
        review = {**body, "kind": resource.kind, "apiVersion": resource.api_version}
        review.setdefault("metadata", {"creationTimestamp": None})
        match resource.plural:
            case "selfsubjectreviews":
                groups = ["system:masters", "system:authenticated"]
                review["status"] = {"userInfo": {"username": user, "groups": groups}}
            case "selfsubjectrulesreviews":
                rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
                anywhere = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
                review["status"] = {
                    "resourceRules": [] if self.denials else rules,
                    "nonResourceRules": anywhere,
                    "incomplete": bool(self.denials),
                }
            case _:
                review["status"] = self._verdict(user, body.get("spec") or {})
        return review

    def _verdict(self, user: str, spec: Json) -> Json:
        asked = spec.get("resourceAttributes")
        if not asked:
            return {"allowed": True}
        subresource = asked.get("subresource")
        full = f"{asked.get('resource', '*')}/{subresource}" if subresource else asked.get("resource", "*")
        where = (user, asked.get("verb", "*"), full, asked.get("group", ""), asked.get("namespace", ""))
        return (
            {"allowed": True}
            if self.allowed(*where)
            else {"allowed": False, "reason": "denied by the sandbox"}
        )

    def to_data(self) -> list[Json]:
        return [asdict(d) for d in self.denials]
