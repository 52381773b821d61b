"""Answers requests on resources: reads the body, calls the rules, shows the outcome. Synchronous: atomic."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from gameday.sandbox.apiserver import apply, eviction, protobuf, versions
from gameday.sandbox.apiserver.access import Access
from gameday.sandbox.apiserver.listing import Lister
from gameday.sandbox.apiserver.objects import Deletion, Objects, Write
from gameday.sandbox.apiserver.patch import json_patch, merge_patch
from gameday.sandbox.apiserver.resources import ANSWERED_ONLY
from gameday.sandbox.apiserver.routes import Request
from gameday.sandbox.apiserver.scale import read_scale, write_scale
from gameday.sandbox.apiserver.status import (
    Refused,
    bad_request,
    method_not_allowed,
    success,
    unsupported_media_type,
)
from gameday.sandbox.apiserver.store import Stored, encode
from gameday.sandbox.apiserver.strategic import strategic_merge
from gameday.sandbox.apiserver.views import negotiate

Json = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
SIGNING_REQUESTS = "certificatesigningrequests"
TOKEN_OF = "token-of:"  # a token is no user's name: clients mask the one, and say the other
_READ = ["application/json", "application/yaml", protobuf.CONTENT_TYPE]
_RETURNED_WHEN_DELETED = {
    "pods",
    "services",
    "persistentvolumeclaims",
    "persistentvolumes",
    "serviceaccounts",
}


@dataclass(slots=True)
class Answer:
    """What goes back: an object (shown as the client asked), plain JSON, or text."""

    code: int
    content: Stored | Json | str
    warnings: list[str] = field(default_factory=list)


class Api:
    """Everything but watches, which stream."""

    def __init__(self, objects: Objects, access: Access) -> None:
        self.objects = objects
        self.lister = Lister(objects.store)
        self._access = access

    def answer(self, request: Request) -> tuple[int, bytes, list[str]]:
        """Status code, body and warnings. Raises Refused."""
        resource = request.resource
        view = negotiate(request.accept, resource, request.query.get("includeObject", ""))
        if request.verb == "list":
            items, metadata = self.lister.page(resource, request.namespace, request.query)
            return 200, view.page(items, metadata), []
        answer = self._act(request)
        if isinstance(answer.content, Stored):
            return answer.code, view.one(answer.content), answer.warnings
        if isinstance(answer.content, str):
            return answer.code, answer.content.encode(), answer.warnings
        return answer.code, encode(answer.content), answer.warnings

    def _act(self, request: Request) -> Answer:
        if request.resource.group in ANSWERED_ONLY:
            if request.verb != "create":
                raise method_not_allowed()
            return Answer(201, self._access.review(request.resource, request.user, _object(request)))
        if request.subresource and request.subresource not in ("status", "resize"):
            return self._subresource(request)
        match request.verb:
            case "get":
                return Answer(200, self.objects.get(request.resource, request.namespace, request.name))
            case "create":
                how = _write(request)
                obj = _object(request)
                if request.resource.plural == SIGNING_REQUESTS:
                    obj["spec"] = {**(obj.get("spec") or {}), "username": request.user}
                stored = self.objects.create(request.resource, request.namespace, obj, how)
                return Answer(201, stored, how.warnings or [])
            case "update":
                how, body = _write(request), _object(request)
                return Answer(
                    200, self._update(request, lambda _: body, how, unconditional=False), how.warnings or []
                )
            case "patch":
                return self._patch(request)
            case "delete":
                return self._delete(request)
        return self._delete_collection(request)

    def _update(
        self, request: Request, change: Callable[[Json], Json], how: Write, *, unconditional: bool = True
    ) -> Stored:
        return self.objects.update(
            request.resource,
            request.namespace,
            request.name,
            attested(request, change),
            how,
            subresource=request.subresource,
            unconditional=unconditional,
        )

    # -- patches -----------------------------------------------------------------------------------

    def _patch(self, request: Request) -> Answer:
        how = _write(request)
        if request.content_type == APPLY:
            created, stored = apply.apply(self.objects, request, _yaml(request), how)
            return Answer(201 if created else 200, stored, how.warnings or [])
        patch = _decoded(request)
        change = patcher(request, patch)
        return Answer(200, self._update(request, change, how), how.warnings or [])

    # -- delete ------------------------------------------------------------------------------------

    def _delete(self, request: Request) -> Answer:
        gone, last = self.objects.delete(
            request.resource, request.namespace, request.name, _deletion(request, _options(request))
        )
        if gone and request.resource.plural not in _RETURNED_WHEN_DELETED:
            return Answer(200, success(request.resource, request.name, last.object["metadata"]["uid"]))
        return Answer(200, last)

    def _delete_collection(self, request: Request) -> Answer:
        how = _deletion(request, _options(request))
        found = self.lister.matching(request.resource, request.namespace, request.query)
        for stored in found:
            metadata = stored.object["metadata"]
            self.objects.delete(request.resource, metadata.get("namespace", ""), metadata["name"], how)
        kind = f"{request.resource.kind}List"
        items = [versions.served(request.resource, s.object) for s in found]
        metadata = {"resourceVersion": str(self.objects.store.version)}
        content = {
            "kind": kind,
            "apiVersion": request.resource.api_version,
            "metadata": metadata,
            "items": items,
        }
        return Answer(200, content)

    # -- subresources ------------------------------------------------------------------------------

    def _subresource(self, request: Request) -> Answer:
        match request.subresource, request.verb:
            case "scale", "get":
                found = self.objects.get(request.resource, request.namespace, request.name)
                return Answer(200, read_scale(request.resource, found.object))
            case "scale", "update" | "patch":
                return Answer(200, self._scale(request))
            case "eviction", "create":
                return self._evict(request)
            case "binding", "create":
                return self._bind(request)
            case "token", "create":
                return Answer(201, self._token(request))
            case "finalize", "update":
                spec = _object(request).get("spec") or {}
                where = (request.resource.collection, "", request.name)
                self.objects.get(request.resource, "", request.name)
                return Answer(200, self.objects.replace(where, lambda obj: obj.update(spec=spec)))
        raise method_not_allowed()

    def _token(self, request: Request) -> Json:
        """A token of a service account: where none is needed, its user's name, as a token of that."""
        self.objects.get(request.resource, request.namespace, request.name)
        body = _object(request)
        body["status"] = {"token": f"{TOKEN_OF}system:serviceaccount:{request.namespace}:{request.name}"}
        return body

    def _scale(self, request: Request) -> Json:
        body = _decoded(request) if request.verb == "patch" else _object(request)
        change = (lambda _: body) if request.verb == "update" else patcher(request, body)
        how = _write(request)

        def rescale(obj: Json) -> Json:
            return write_scale(request.resource, obj, change(read_scale(request.resource, obj)))

        found = self.objects.update(request.resource, request.namespace, request.name, rescale, how)
        return read_scale(request.resource, found.object)

    def _evict(self, request: Request) -> Answer:
        body = _object(request)
        deletion = _deletion(request, body.get("deleteOptions") or {})
        eviction.evict(self.objects, request.resource, request.namespace, request.name, body, deletion)
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Answer(201, done)

    def _bind(self, request: Request) -> Answer:
        node = ((_object(request).get("target")) or {}).get("name", "")
        pod = self.objects.get(request.resource, request.namespace, request.name).object
        if pod["spec"].get("nodeName"):
            why = f'pod {request.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise Refused(
                409, "Conflict", f'Operation cannot be fulfilled on pods/binding "{request.name}": {why}'
            )

        def bind(obj: Json) -> None:
            obj["spec"]["nodeName"] = node
            conditions = obj["status"].setdefault("conditions", [])
            conditions[:] = [c for c in conditions if c["type"] != "PodScheduled"]
            moment = obj["metadata"]["creationTimestamp"]
            conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": moment})

        where = (request.resource.collection, request.namespace, request.name)
        if not request.dry_run:
            self.objects.replace(where, bind)
        return Answer(
            201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        )


def patcher(request: Request, patch: Any) -> Callable[[Json], Json]:
    """The change that a patch makes, by the request's content type."""
    custom = request.resource.custom is not None
    match request.content_type:
        case t if t == JSON_PATCH:
            return lambda obj: json_patch(obj, patch)
        case t if t == MERGE_PATCH:
            return lambda obj: merge_patch(obj, patch)
        case t if t == STRATEGIC and not custom:
            return lambda obj: strategic_merge(obj, patch)
    accepted = [JSON_PATCH, MERGE_PATCH, *([] if custom else [STRATEGIC]), APPLY]
    raise unsupported_media_type(accepted)


def attested(request: Request, change: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """The change, without what it does to a signing request's spec, which says who asked for what.

    As k8s.io/kubernetes, pkg/registry/certificates/certificates/strategy.go has it.
    """
    if request.resource.plural != SIGNING_REQUESTS:
        return change
    return lambda old: change(copy.deepcopy(old)) | {"spec": old["spec"]}


def _write(request: Request) -> Write:
    return Write(
        request.dry_run, request.query.get("fieldValidation") or "Warn", request.manager, warnings=[]
    )


def _object(request: Request) -> Json:
    """The body of anything but a patch: an object."""
    if "patch" in request.content_type:
        raise unsupported_media_type(_READ)
    body = _decoded(request)
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {request.resource.kind})")
    return body


def _decoded(request: Request) -> Any:
    """The body's JSON (YAML or protobuf where that is what it says)."""
    if request.content_type in ("application/yaml", APPLY):
        return _yaml(request)
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.decode(request.body)
    if request.content_type and "json" not in request.content_type:
        raise unsupported_media_type(_READ)
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {request.resource.kind}): {error}"
        ) from None


def _yaml(request: Request) -> Any:
    try:
        if request.body[:1] == b"{":
            return json.loads(request.body)
        return yaml.load(request.body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"error decoding YAML: {error}") from None


def _options(request: Request) -> Json:
    options = _object(request) if request.body not in (b"", b"null") else {}
    query = request.query
    if query.get("propagationPolicy"):
        options["propagationPolicy"] = query["propagationPolicy"]
    if query.get("gracePeriodSeconds", "").lstrip("-").isdigit():
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    return options


def _deletion(request: Request, options: Json) -> Deletion:
    preconditions = options.get("preconditions") or {}
    return Deletion(
        grace=options.get("gracePeriodSeconds"),
        propagation=options.get("propagationPolicy") or ("Orphan" if options.get("orphanDependents") else ""),
        uid=preconditions.get("uid") or "",
        version=preconditions.get("resourceVersion") or "",
        dry_run=request.dry_run or "All" in (options.get("dryRun") or ()),
    )
