"""Failures: all that the world may do to a run, in words for the person who reads them.

Any other error is a defect of ours: the run is put back, and its exit code says so.

Failure                      a step fails of it, and is undone
├── PlanError                a fault can't be planned (`extend.fault`)
├── FaultError               a fault could not be put in force, or be seen in or out (`extend.fault`)
├── Refused                  a change was not made: the world is not as planned (`ledger.operations`)
├── NotRecorded              a change was not made: it could not be written down
└── PlatformError            a system could not be asked, or said no
    ├── Unreachable          nobody answered; what became of a change is not known
    │   ├── WrongAnswer      something answered, and not what was asked: no JSON, another object, a redirect
    │   └── NoCredentials    who could give new credentials failed, or took too long
    ├── PartialAnswer        an answer with reservations: a part of what was asked for may be missing
    ├── BadName              a name that no object can have; nothing was sent
    ├── ConfigError          no usable kubeconfig, context or credentials
    ├── SandboxError         the embedded sandbox did not start (`sandbox`)
    ├── Fenced               a change was not sent: the run may not be ours (`platform.fence`)
    └── ApiError             the Kubernetes API answered with a failure
        └── NotServed        it serves no such kind, or not in that version: of objects it says nothing
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeGuard

from pydantic_core import from_json

from gameday.experiment.text import shorten

_DENIED = re.compile(r'\badmission webhook "[^"]*" denied the request\b')
LONGEST_TEXT = 2_000  # characters
LONGEST_WAIT = 60.0  # seconds that a server's Retry-After is believed


class Failure(Exception):
    """The world stood in a run's way. The text says what failed, on what, why, and what to do.

    `may_land`: whether a change that was asked for may still be made, now that nobody waits for it. Only a
    class that knows better says no: the request was answered, or never left.
    """

    may_land = True


class NotRecorded(Failure):
    """A change was not made, because it could not be written down."""

    may_land = False


class PlatformError(Failure):
    """A system could not be asked, or said no. The text says what failed, on what, why, and what to do.

    Much of it was said by others, so it is made one line of bounded length here.
    """

    def __init__(self, text: str) -> None:
        super().__init__(shorten(text, LONGEST_TEXT))


class Unreachable(PlatformError):
    """Nobody answered: connection refused, a time-out, a broken stream."""


class WrongAnswer(Unreachable):
    """Something answered that is not the system asked, or not about the object asked.

    Whoever treats an unanswered request rightly treats this one rightly too: nothing was learned.
    """


class NoCredentials(Unreachable):
    """The kubeconfig's plugin gave no credentials: it failed, hung, or said something else."""

    may_land = False


class PartialAnswer(PlatformError):
    """An answer that lacks what some of a system's stores know: it may look well where the whole does not.

    `found` is what was answered, in the form of a whole answer; `why` the system's first warning.
    """

    def __init__(self, text: str, why: str, found: list[Any]) -> None:
        self.found, self.why = found, shorten(why, 300)
        super().__init__(f"{text} only in part: {self.why}")


class BadName(PlatformError):
    """A name that no object can have, and that would address another one. Nothing was sent."""

    may_land = False


class ConfigError(PlatformError):
    """No usable kubeconfig, context or credentials."""

    may_land = False


class ApiError(PlatformError):
    """The Kubernetes API answered with a failure.

    `status` is the HTTP code, `reason` the API's word for it (NotFound, Conflict, …), `retry_after`
    the server's wish in seconds, `details` the Status object's details. `password`: the request had one.
    What an admission webhook denies is 403 here, as it is where the webhook gives no code: any other says
    nothing about object or server, but for 429, its wish that the request be made later.
    """

    def __init__(
        self,
        verb: str,
        what: str,
        status: int,
        body: bytes,
        retry_after: float | None = None,
        *,
        password: bool = False,
    ) -> None:
        told = _status(body)
        text = told.get("message") if told else shorten(body, 200)
        self.verb, self.what, self.status = verb, what, status
        self.is_status = told.get("kind") == "Status"  # in the API's own form: no proxy said it
        self.reason = str(told.get("reason") or "")
        self.details = _mapping(told.get("details"))
        self.message = str(text or f"HTTP {status}")
        self.retry_after = retry_after
        if self.denied and status != 429:
            self.status = 403
        # A server's own failure is no answer: etcd may commit a write that it did not confirm in time.
        self.may_land = self.status == 408 or (self.status >= 500 and not self.before_storage)
        self.continue_token = str(_mapping(told.get("metadata")).get("continue") or "")
        super().__init__(f"cannot {verb} {what}: {self.message}{self._advice(password)}")

    @property
    def before_storage(self) -> bool:
        """Whether the API server failed before it wrote: a webhook did not answer, or the verb is unknown.

        Source: k8s.io/apiserver, admission/plugin/webhook/errors (ToStatusErr, NewCallingWebhookError).
        """
        return self.status == 501 or (self.is_status and "failed calling webhook" in self.message)

    @property
    def denied(self) -> bool:
        """Whether an admission webhook refused the request.

        The webhook chooses code, reason and details, and may pass on the 404 of something that it looked for
        (controller-runtime does so with a validator's error); only the message is the API server's. Source:
        k8s.io/apiserver, admission/plugin/webhook/errors (ToStatusErr).
        """
        return self.is_status and _DENIED.search(self.message) is not None

    @property
    def namespace_ends(self) -> bool:
        """Whether a namespace that is being deleted is the cause (corev1.NamespaceTerminatingCause)."""
        causes = self.details.get("causes")
        return isinstance(causes, list) and any(
            isinstance(c, dict) and c.get("reason") == "NamespaceTerminating" for c in causes
        )

    def _advice(self, password: bool) -> str:
        if (
            self.status == 401 and password
        ):  # kube-apiserver's --basic-auth-file is gone; kubectl sends it still
            return (
                " (Kubernetes has taken no username and password since 1.19: give the kubeconfig's user "
                "a token, a client certificate or an exec plugin)"
            )
        if self.status == 401:
            return " (the credentials in the kubeconfig are not accepted: log in again)"
        if self.status == 403 and "violates PodSecurity" in self.message:
            return (
                " (the namespace does not admit such pods: "
                "label it pod-security.kubernetes.io/enforce=privileged, or use one that is)"
            )
        if self.denied:
            return ""
        if self.status == 403 and self.namespace_ends:
            return " (its namespace is being deleted)"
        if self.status == 403:
            resource = self.details.get("kind") or self.what
            return f" (the missing RBAC permission: {self.verb} {resource})"
        return ""


class NotServed(ApiError):
    """The API server serves no such kind in that version. Whether an object is there it does not say."""

    def __init__(self, verb: str, what: str, kind: str, version: str) -> None:
        status = {"reason": "NotFound", "message": f"the cluster serves no {kind} in {version}"}
        super().__init__(verb, what, 404, json.dumps(status).encode())


def _status(body: bytes) -> dict[str, Any]:
    """The Status object that a failure comes with; {} where a proxy speaks, or nobody."""
    try:
        return _mapping(from_json(body))
    except ValueError:
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def only(expected: type[Exception], group: ExceptionGroup) -> tuple[Exception, ...]:
    """The errors of a task group, where all are of that class. Raises the first that is not: a defect."""
    if others := group.split(expected)[1]:
        raise others.exceptions[0] from group
    return group.exceptions


def without_frames(error: BaseException) -> BaseException:
    """A broken connection's error without its tracebacks, nor those of the errors that led to it.

    asyncio and aiohttp keep such an error in a frame of its own traceback (`handshake_exc` of sslproto,
    `last_exc` of the connector). Both would stay until the collector looks at its oldest generation, and with
    them TLS buffers of a quarter of a megabyte, which the collector does not count: a server that is away for
    minutes leaves thousands.
    """
    following: list[BaseException | None] = [error]
    seen: set[int] = set()
    while following:
        each = following.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            following += [each.__cause__, each.__context__]
    return error


def is_answer(error: BaseException) -> TypeGuard[Failure]:
    """Whether a change that ended so can't be made any more; a cancellation or a defect does not say so."""
    return isinstance(error, Failure) and not error.may_land


def not_found(error: BaseException) -> bool:
    """Whether an error says that the object, or its namespace, is not there.

    Every other 404 is NotServed or WrongAnswer: the object may be in force all the same.
    """
    return isinstance(error, ApiError) and error.status == 404 and not isinstance(error, NotServed)


def retry_after(header: str) -> float | None:
    """The seconds of a Retry-After header, at most LONGEST_WAIT; None where it holds no such number."""
    try:
        seconds = float(header)
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT) if math.isfinite(seconds) and seconds >= 0 else None
