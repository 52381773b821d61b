"""Who may do what: everyone everything, except what a test forbids; and the reviews that ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import Refused, forbidden

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that is forbidden; "*" stands for any. A subresource is written pods/eviction."""

    verb: str = "*"
    resource: str = "*"
    group: str = "*"
    namespace: str = "*"

    def covers(self, verb: str, resource: str, group: str, namespace: str) -> bool:
        asked = (verb, resource, group, namespace)
        rule = (self.verb, self.resource, self.group, self.namespace)
        return all(r in ("*", a) for r, a in zip(rule, asked, strict=True))


class Access:
    """The rules in force."""

    def __init__(self, user: str, denials: Iterable[Denial] = ()) -> None:
        self.user = user
        self.denials = list(denials)

    def allowed(self, verb: str, resource: str, group: str, namespace: str) -> bool:
        return not any(d.covers(verb, resource, group, namespace) for d in self.denials)

    def check(self, verb: str, resource: Resource, subresource: str, namespace: str, name: str) -> None:
        """Raise 403 with the sentence that RBAC answers."""
        full = f"{resource.plural}/{subresource}" if subresource else resource.plural
        if self.denials and not self.allowed(verb, full, resource.group, namespace):
            raise self._refusal(verb, resource, full, namespace, name)

    def _refusal(self, verb: str, resource: Resource, full: str, namespace: str, name: str) -> Refused:
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{self.user}" cannot {verb} resource "{full}" in API group "{resource.group}" {scope}'
        return forbidden(resource, name, why)

    def review(self, resource: Resource, body: Json) -> Json:
        """Answer a SelfSubjectAccessReview and its like; nothing is stored."""
        review = {**body, "kind": resource.kind, "apiVersion": resource.api_version}
        review.setdefault("metadata", {"creationTimestamp": None})
        match resource.plural:
            case "selfsubjectreviews":
                groups = ["system:masters", "system:authenticated"]
                review["status"] = {"userInfo": {"username": self.user, "groups": groups}}
            case "selfsubjectrulesreviews":
                rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
                anywhere = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
                review["status"] = {
                    "resourceRules": [] if self.denials else rules,
                    "nonResourceRules": anywhere,
                    "incomplete": bool(self.denials),
                }
            case _:
                review["status"] = self._verdict(body.get("spec") or {})
        return review

    def _verdict(self, spec: Json) -> Json:
        asked = spec.get("resourceAttributes")
        if not asked:
            return {"allowed": True}
        subresource = asked.get("subresource")
        full = f"{asked.get('resource', '*')}/{subresource}" if subresource else asked.get("resource", "*")
        where = (asked.get("verb", "*"), full, asked.get("group", ""), asked.get("namespace", ""))
        return (
            {"allowed": True}
            if self.allowed(*where)
            else {"allowed": False, "reason": "denied by the sandbox"}
        )

    def to_data(self) -> list[Json]:
        return [asdict(d) for d in self.denials]
