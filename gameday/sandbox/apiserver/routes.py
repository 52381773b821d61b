"""From a method and a path to what is asked for: verb, resource, namespace, name, subresource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gameday.sandbox.apiserver.resources import BUILT_IN, Catalogue, Resource
from gameday.sandbox.apiserver.status import method_not_allowed, no_such_path, not_found

_GROUPS = {resource.group for resource in BUILT_IN}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(slots=True)
class Request:
    """A request on a resource."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: Mapping[str, str]
    accept: str = ""
    content_type: str = ""
    agent: str = ""
    user: str = ""
    body: bytes = b""

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        """Who writes: the fieldManager, else the program's name."""
        return self.query.get("fieldManager") or self.agent.split("/")[0] or "unknown"


def route(catalogue: Catalogue, method: str, path: str, query: Mapping[str, str]) -> Request:
    """Raises 404 for what is not served and 405 for a method that does not fit."""
    parts = path.strip("/").split("/")
    built_in = parts[0] == "api" or (parts[0] == "apis" and parts[1:2] and parts[1] in _GROUPS)
    nothing = no_such_path(built_in=bool(built_in))
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise nothing
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "watch":
        raise nothing
    resource = catalogue.find(group, version, rest[0])
    name, subresource = (*rest[1:3], "", "")[:2]
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        raise nothing
    if subresource and subresource not in resource.subresources:
        raise nothing if resource.custom is None else not_found(resource, name)
    verb = _verb(method, name, subresource, query)
    if resource.namespaced and not namespace and (name or verb not in ("list", "watch")):
        raise method_not_allowed() if not name else nothing
    return Request(verb, resource, namespace, name, subresource, query)


def _verb(method: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if name:
            return "get"
        return "watch" if query.get("watch") in ("true", "1") else "list"
    if method == "DELETE" and not subresource:
        return "delete" if name else "deletecollection"
    verb = _VERBS.get(method, "")
    if not verb or bool(name) != (verb != "create" or bool(subresource)):
        raise method_not_allowed()
    return verb
