"""The sandbox's own paths, /sandbox/…: see failures.py for what they do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gameday.sandbox.apiserver.access import Access, Denial
from gameday.sandbox.apiserver.failures import Failure, Failures
from gameday.sandbox.apiserver.status import bad_request, no_such_path

Json = dict[str, Any]


class Control:
    """Changes how the server behaves, on request."""

    def __init__(
        self,
        failures: Failures,
        access: Access,
        end_watches: Callable[[], None],
        forget_history: Callable[[], None],
    ) -> None:
        self._failures, self._access = failures, access
        self._end_watches, self._forget_history = end_watches, forget_history

    def answer(self, method: str, path: str, body: bytes) -> Json:
        """Do what is asked; answers the state afterwards."""
        match method, path.removeprefix("/sandbox/").strip("/"):
            case "GET" | "PUT" | "POST" | "DELETE", "failures":
                self._change(self._failures.pending, method, body, Failure.from_data)
                return {"failures": [f.to_data() for f in self._failures.pending]}
            case "GET" | "PUT" | "POST" | "DELETE", "denials":
                self._change(self._access.denials, method, body, lambda data: Denial(**data))
                return {"denials": self._access.to_data()}
            case "POST", "watches/end":
                self._end_watches()
                return {}
            case "POST", "history/forget":
                self._forget_history()
                return {}
        raise no_such_path()

    def _change(self, entries: list[Any], method: str, body: bytes, parse: Callable[[Json], Any]) -> None:
        if method == "DELETE":
            entries.clear()
        elif method != "GET":
            try:
                entries.append(parse(json.loads(body)))
            except (ValueError, TypeError) as error:
                raise bad_request(f"not understood: {error}") from None
