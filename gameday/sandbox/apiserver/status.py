"""The API's refusals: `Status` objects with upstream's codes, reasons and sentences, as one exception."""

from __future__ import annotations

import json
from typing import Any

from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]
Cause = tuple[str, str, str]  # reason, message, field


class Refused(Exception):
    """The request is answered with this Status instead of an object."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = {k: v for k, v in (details or {}).items() if v not in ("", None)}
        self.continue_token = ""
        self.text = ""  # sent instead of the Status

    @property
    def retry_after(self) -> int:
        """Seconds for the Retry-After header; 0 means that the header is not sent."""
        return int(self.details.get("retryAfterSeconds") or 0)

    def body(self) -> Json:
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def success(resource: Resource, name: str, uid: str) -> Json:
    """What a DELETE answers that removed the object at once."""
    details = {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {k: v for k, v in details.items() if v},
    }


def _of(resource: Resource, name: str) -> Json:
    return {"name": name, "group": resource.group, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource.qualified} "{name}" not found', _of(resource, name))


def no_such_path(*, built_in: bool = True) -> Refused:
    """A bare Status in the API's own groups, as go-restful gives it; of any other path net/http's text."""
    refused = Refused(404, "NotFound", "the server could not find the requested resource")
    refused.text = "" if built_in else "404 page not found\n"
    return refused


def already_exists(resource: Resource, name: str) -> Refused:
    message = f'{resource.qualified} "{name}" already exists'
    return Refused(409, "AlreadyExists", message, _of(resource, name))


def conflict(resource: Resource, name: str, why: str) -> Refused:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Refused(409, "Conflict", message, _of(resource, name))


def modified(resource: Resource, name: str) -> Refused:
    """The optimistic lock failed."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def forbidden(resource: Resource, name: str, why: str) -> Refused:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return Refused(403, "Forbidden", f"{subject} is forbidden: {why}", _of(resource, name))


def invalid(resource: Resource, name: str, causes: list[Cause]) -> Refused:
    """422 with one cause per wrong field; the message lists them as upstream does."""
    texts = [f"{field}: {message}" if field else message for _, message, field in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    listed = [{"reason": r, "message": m, "field": f} for r, m, f in causes]
    details = {"name": name, "group": resource.group, "kind": resource.kind, "causes": listed}
    return Refused(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def unauthorized() -> Refused:
    return Refused(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> Refused:
    message = "the server does not allow this method on the requested resource"
    return Refused(405, "MethodNotAllowed", message)


def unsupported_media_type(accepted: list[str]) -> Refused:
    message = "the body of the request was in an unknown format - accepted media types include: "
    return Refused(415, "UnsupportedMediaType", message + ", ".join(accepted))


def not_acceptable() -> Refused:
    message = "only the following media types are accepted: application/json"
    return Refused(406, "NotAcceptable", message)


def too_many_requests(message: str, retry_after: int, causes: list[Json] | None = None) -> Refused:
    details: Json = {"causes": causes} if causes else {}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return Refused(429, "TooManyRequests", message, details)


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)


def quoted(value: object) -> str:
    """A value as upstream's messages show it."""
    return json.dumps(value)
