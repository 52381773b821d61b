"""Failures of the systems a run talks to, in words for the person who reads them."""

from __future__ import annotations

import json
from typing import Any


class PlatformError(Exception):
    """A system could not be asked, or said no. The text says what failed, on what, why, and what to do."""


class Unreachable(PlatformError):
    """Nobody answered: connection refused, a time-out, a broken stream."""


class ConfigError(PlatformError):
    """No usable kubeconfig, context or credentials."""


class ApiError(PlatformError):
    """The Kubernetes API answered with a failure.

    `status` is the HTTP code, `reason` the API's word for it (NotFound, Conflict, …), `retry_after`
    the server's wish in seconds, `details` the Status object's details.
    """

    def __init__(
        self, verb: str, what: str, status: int, body: bytes, retry_after: float | None = None
    ) -> None:
        data: dict[str, Any] = {}
        try:
            data = json.loads(body)
            text = data.get("message") or ""
        except (ValueError, AttributeError):
            text = body[:200].decode(errors="replace").strip()
        self.verb, self.what, self.status = verb, what, status
        self.reason: str = data.get("reason") or ""
        self.details: dict[str, Any] = data.get("details") or {}
        self.message: str = text or f"HTTP {status}"
        self.retry_after = retry_after
        self.continue_token: str = (data.get("metadata") or {}).get("continue") or ""
        super().__init__(f"cannot {verb} {what}: {self.message}{self._advice()}")

    def _advice(self) -> str:
        if self.status == 401:
            return " (the credentials in the kubeconfig are not accepted: log in again)"
        if self.status == 403 and "violates PodSecurity" in self.message:
            return (
                " (the namespace does not admit such pods: "
                "label it pod-security.kubernetes.io/enforce=privileged, or use one that is)"
            )
        if self.status == 403:
            resource = self.details.get("kind") or self.what
            return f" (the missing RBAC permission: {self.verb} {resource})"
        return ""


def not_found(error: BaseException) -> bool:
    """Whether an error says that the object is not there."""
    return isinstance(error, ApiError) and error.status == 404
