"""One action on several things of a node at once, since there is one program on a node at a time."""

from __future__ import annotations

from typing import Any

from gameday.node.actions import Action, Look, action
from gameday.node.host import Host, ToolError

FAILURES = (ToolError, OSError, ValueError, KeyError)


class Several(Action):
    """Options: `action`, and in `each` the options of one of them; what is beside these goes to all."""

    name = "several"

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        shared = {k: v for k, v in options.items() if k not in ("action", "each")}
        self._parts = [action(options["action"], {**shared, **one}) for one in options["each"]]

    def check(self, host: Host) -> list[str]:
        return [problem for part in self._parts for problem in part.check(host)]

    def before(self, host: Host) -> dict[str, Any]:
        return {"each": [part.before(host) for part in self._parts]}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        for part, one in self._pairs(before):
            part.apply(host, one)

    def hold(self, host: Host, before: dict[str, Any], elapsed: float) -> None:
        for part, one in self._pairs(before):
            part.hold(host, one, elapsed)

    def revert(self, host: Host, before: dict[str, Any]) -> None:
        """One that can't be taken back must not keep the others in force."""
        failures = []
        for part, one in self._pairs(before):
            try:
                part.revert(host, one)
            except FAILURES as error:
                failures.append(str(error))
        if failures:
            raise ValueError("; ".join(failures))

    def look(self, host: Host, before: dict[str, Any]) -> Look:
        seen = [part.look(host, one) for part, one in self._pairs(before)]
        states = {state for state, _ in seen}
        return (states.pop() if len(states) == 1 else "partial"), [f for _, facts in seen for f in facts]

    def _pairs(self, before: dict[str, Any]) -> list[tuple[Action, dict[str, Any]]]:
        return list(zip(self._parts, before["each"]))  # noqa: B905 - Python 3.9 has no strict
