"""Whether the alerts that were expected fired, and in time."""

from __future__ import annotations

import math

from gameday.detection import Expected, Spell, outcome
from gameday.events import Alert, Event, Fault
from gameday.experiment.model import ExpectAlert
from gameday.states import Detection

_Alert = tuple[str, tuple[tuple[str, str], ...]]


class ExpectedAlerts:
    """Hears the log; knows in the end which expected alert did not fire soon enough after the first fault."""

    def __init__(self, expected: list[ExpectAlert]) -> None:
        self._expected = [Expected(e.alert, e.labels, e.within) for e in expected]
        self._began: float | None = None
        self._spells: dict[_Alert, list[Spell]] = {}

    def hear(self, event: Event) -> None:
        if isinstance(event, Fault) and event.state == "injecting" and self._began is None:
            self._began = event.at
        elif isinstance(event, Alert):
            spells = self._spells.setdefault((event.alert, tuple(sorted(event.labels.items()))), [])
            firing = bool(spells) and spells[-1].end == math.inf
            if event.state == "firing" and not firing:
                spells.append(Spell(event.at, math.inf, event.seq))
            elif event.state != "firing" and firing:
                spells[-1] = spells[-1]._replace(end=event.at)

    def missed(self) -> list[str]:
        """A sentence for each alert that proves nothing: it never fired, or too late, or too early."""
        if self._began is None:
            return []
        return [text for e in self._expected if (text := self._judge(e, self._began))]

    def _judge(self, expected: Expected, began: float) -> str:
        spells = [
            spell
            for (alert, labels), found in self._spells.items()
            if expected.means(alert, dict(labels))
            for spell in found
        ]
        match outcome(expected, began, spells):
            case Detection.NEVER, _:
                return f"alert {expected.alert} never fired"
            case Detection.ALREADY_FIRING, _:
                return f"alert {expected.alert} was firing before the fault went in, so it proves nothing"
            case Detection.LATE, Spell(start=at):
                took = f"fired after {at - began:.0f} s, not within {expected.within:g} s"
                return f"alert {expected.alert} {took}"
        return ""
