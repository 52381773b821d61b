"""Whether an expected alert fired in time: one judgement, for the verdict of a run and for its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gameday.states import Detection


class Spell(NamedTuple):
    """A time in which an alert fired: Unix seconds, `end` infinite while it fires still; `seq` in the log."""

    start: float
    end: float
    seq: int


@dataclass(frozen=True)
class Expected:
    """An alert that must fire within so many seconds of the first fault; None where no time is known."""

    alert: str
    labels: Mapping[str, str]
    within: float | None

    def means(self, alert: str, labels: Mapping[str, str]) -> bool:
        """Whether an alert is the expected one: by its name, and by all labels that were named."""
        return alert == self.alert and self.labels.items() <= labels.items()


def outcome(expected: Expected, began: float, spells: Iterable[Spell]) -> tuple[Detection, Spell | None]:
    """Whether and when the alert fired, and the spell that decides this; None where no spell does.

    `began`: when the first fault was going in, Unix seconds. An alert that fired already counts from the time
    that it fires anew.
    """
    ordered = sorted(spells)
    if since := next((s for s in ordered if s.start >= began), None):
        late = expected.within is not None and since.start - began > expected.within
        return (Detection.LATE if late else Detection.FIRED), since
    if before := next((s for s in ordered if s.end > began), None):
        return Detection.ALREADY_FIRING, before
    return Detection.NEVER, None
