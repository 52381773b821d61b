"""Failures on demand, over HTTP: how a test or a trainer makes the sandbox's API misbehave from outside.

    PUT    /sandbox/failures  {"match": {"verb": "patch", "path": "/nodes/"}, "status": 500, "count": 2,
                               "retryAfter": 3, "delay": 0.5}
    GET    /sandbox/failures  the failures still to come
    DELETE /sandbox/failures  none any more
    PUT    /sandbox/denials   {"verb": "create", "resource": "pods/eviction", "group": "", "namespace": "a",
                               "user": "restricted"}: forbidden (403) until deleted; what is left out is any
    GET, DELETE /sandbox/denials
    POST   /sandbox/watches/end    every open watch ends, as when a server restarts
    POST   /sandbox/history/forget events and continue tokens so far are gone: the next ones to ask get 410

A failure applies to the next `count` (default 1; 0: until deleted) requests whose verb (get, list, watch,
create, update, patch, delete, deletecollection), user and path (a regular expression, searched) fit; what is
left out fits always. Where the server asks for no token, the bearer token that a client sends is its user's
name, so a kubeconfig with a token makes a client that can be told from the others. `status` 0 (the default)
only delays; "drop" closes the connection without an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gameday.sandbox.apiserver.status import Refused, bad_request, unauthorized

Json = dict[str, Any]
_SENTENCES = {
    429: ("TooManyRequests", "too many requests, please try again later"),
    500: ("InternalError", "Internal error occurred: the sandbox was told to fail"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "the server was unable to return a response in the time allotted"),
}


@dataclass(slots=True)
class Failure:
    """One kind of misbehaviour; `count` requests are still to suffer it, 0 means without end."""

    verb: str
    user: str
    path: re.Pattern[str]
    status: int
    drop: bool
    count: int
    retry_after: int
    delay: float

    @classmethod
    def from_data(cls, data: Json) -> Failure:
        try:
            match = data.get("match") or {}
            status = data.get("status", 0)
            return cls(
                verb=match.get("verb", ""),
                user=match.get("user", ""),
                path=re.compile(match.get("path", "")),
                status=0 if status == "drop" else int(status),
                drop=status == "drop",
                count=int(data.get("count", 1)),
                retry_after=int(data.get("retryAfter", 0)),
                delay=float(data.get("delay", 0)),
            )
        except (ValueError, TypeError, AttributeError, re.error) as error:
            raise bad_request(f"not a failure: {error}") from None

    def to_data(self) -> Json:
        return {
            "match": {"verb": self.verb, "user": self.user, "path": self.path.pattern},
            "status": "drop" if self.drop else self.status,
            "count": self.count,
            "retryAfter": self.retry_after,
            "delay": self.delay,
        }

    def refusal(self) -> Refused:
        if self.status == 401:
            return unauthorized()
        reason, message = _SENTENCES.get(self.status, ("Unknown", "the sandbox was told to fail"))
        details = {"retryAfterSeconds": self.retry_after} if self.retry_after else None
        return Refused(self.status, reason, message, details)


class Failures:
    """The misbehaviour still to come."""

    def __init__(self) -> None:
        self.pending: list[Failure] = []

    def take(self, verb: str, path: str, user: str) -> Failure | None:
        """The failure that this request suffers; counted."""
        for failure in self.pending:
            fits = failure.verb in ("", verb) and failure.user in ("", user)
            if fits and failure.path.search(path):
                if failure.count == 1:
                    self.pending.remove(failure)
                elif failure.count:
                    failure.count -= 1
                return failure
        return None
