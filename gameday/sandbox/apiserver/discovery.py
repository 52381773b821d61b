"""What the server says it serves: /api, /apis, /version, and the part of OpenAPI that kubectl reads."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import ANSWERED_ONLY, Catalogue, Resource

Json = dict[str, Any]
VERSION = "v1.36.3"
_BUILD = {  # clients with typed models insist on these
    "gitCommit": "sandbox",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE: dict[
    str, tuple[str, str, str, list[str]]
] = {  # group, version, kind ("" = the parent's), verbs
    "status": ("", "", "", ["get", "patch", "update"]),
    "scale": ("autoscaling", "v1", "Scale", ["get", "patch", "update"]),
    "eviction": ("policy", "v1", "Eviction", ["create"]),
    "binding": ("", "v1", "Binding", ["create"]),
    "log": ("", "", "", ["get"]),
    "finalize": ("", "", "", ["update"]),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ["create"]),
    "exec": ("", "", "PodExecOptions", ["create", "get"]),
    "resize": ("", "", "", ["get", "patch", "update"]),
}


def document(catalogue: Catalogue, path: str) -> Json | None:
    """The discovery document at a path; None when there is none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["version"]:
            major, minor, _ = VERSION[1:].split(".")
            return {"major": major, "minor": minor, "gitVersion": VERSION, **_BUILD}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(g, v) for g, v in catalogue.groups().items() if g]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group] if group in catalogue.groups():
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, catalogue.groups()[group])}
        case ["api", "v1"]:
            return _resources(catalogue, "", "v1")
        case ["apis", group, version] if version in catalogue.groups().get(group, ()):
            return _resources(catalogue, group, version)
        case ["openapi", "v3"]:
            return _openapi_index(catalogue)
        case ["openapi", "v3", "api", "v1"]:
            return _openapi(catalogue, "", "v1")
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(catalogue, group, version)
    return None


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _resources(catalogue: Catalogue, group: str, version: str) -> Json:
    listed: list[Json] = []
    for resource in catalogue.in_version(group, version):
        entry: Json = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": ["create"] if group in ANSWERED_ONLY else _VERBS,
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        listed += [_subresource(resource, name) for name in resource.subresources]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _subresource(resource: Resource, name: str) -> Json:
    group, version, kind, verbs = _SUBRESOURCE[name]
    entry: Json = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind or resource.kind,
        "verbs": verbs,
    }
    if kind:
        entry |= {"version": version} | ({"group": group} if group else {})
    return entry


# -- OpenAPI v3: only what tells kubectl that the server validates fields and dry-runs by itself ----------


def _openapi_index(catalogue: Catalogue) -> Json:
    versions = [f"apis/{g}/{v}" if g else f"api/{v}" for g, vs in catalogue.groups().items() for v in vs]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in versions}}


def _openapi(catalogue: Catalogue, group: str, version: str) -> Json:
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    parameters = [{"name": n, "in": "query", "schema": {"type": "string"}} for n in names]
    answer = {"200": {"description": "OK"}}
    paths: Json = {}
    for resource in catalogue.in_version(group, version):
        kind = {"group": group, "version": version, "kind": resource.kind}
        body = {"parameters": parameters, "responses": answer, "x-kubernetes-group-version-kind": kind}
        patch = body | {"x-kubernetes-action": "patch"}
        post = body | {"x-kubernetes-action": "post"}
        paths[resource.path("{namespace}", "{name}")] = {"patch": patch}
        paths[resource.path("{namespace}")] = {"post": post}
    info = {"title": "gameday sandbox", "version": VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
