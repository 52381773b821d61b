"""Whether the alerts that were expected fired, and in time."""

from __future__ import annotations

from gameday.events import Alert, Event, Fault
from gameday.experiment.model import ExpectAlert


class ExpectedAlerts:
    """Hears the log; knows in the end which expected alert did not fire soon enough after the first fault."""

    def __init__(self, expected: list[ExpectAlert]) -> None:
        self._expected = expected
        self._began: float | None = None
        self._fired: list[Alert] = []

    def hear(self, event: Event) -> None:
        if isinstance(event, Fault) and event.state == "injecting" and self._began is None:
            self._began = event.at
        elif isinstance(event, Alert) and event.state == "firing":
            self._fired.append(event)

    def missed(self) -> list[str]:
        """A sentence for each alert that never fired, or too late."""
        if self._began is None:
            return []
        return [text for text in map(self._judge, self._expected) if text]

    def _judge(self, expected: ExpectAlert) -> str:
        began = self._began or 0.0
        times = [a.at - began for a in self._fired if _matches(expected, a) and a.at >= began]
        if not times:
            return f"alert {expected.alert} never fired"
        if min(times) > expected.within:
            return f"alert {expected.alert} fired after {min(times):.0f} s, not within {expected.within:g} s"
        return ""


def _matches(expected: ExpectAlert, alert: Alert) -> bool:
    return alert.alert == expected.alert and expected.labels.items() <= alert.labels.items()
