"""The standing of one check of a run: its fresh readings, its baseline, and for how long it saw nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from gameday.experiment.model import AbortIf, Check, Expectation, Probe
from gameday.extend import Probe as Asked
from gameday.run.reading import (
    BROKEN,
    HOLDS,
    NO_BASELINE,
    UNREACHABLE,
    Reading,
    explain,
    value_text,
)
from gameday.safety.installed import probe_of
from gameday.states import Reading as State

BASELINE_READINGS = 3
STEADY_READINGS = 2  # in a row: one alone may be older than what it should show
BLIND_READINGS = 3  # in a row that saw nothing: the check is blind, unless the file allows it longer
HEARTBEAT = 30.0  # seconds after which an unchanged reading is written again


@dataclass(eq=False)
class Standing:
    """One check, and what its readings came to. Times are monotonic seconds."""

    check: Check
    probe: Asked[Any] = field(init=False)  # which may remember what it measured before
    started: float = 0.0
    reading: Reading | None = None
    mark: float = 0.0  # readings asked before say nothing of what is asked now
    streak: int = 0  # fresh readings in a row that hold (of an abort condition: that see it not holding)
    values: list[float] = field(default_factory=list)  # what the baseline is made of
    baseline: float | None = None
    heard: float = 0.0  # when the last reading came, of whatever kind
    saw: float = 0.0  # when the last one came that measured something
    unseen: int = 0  # readings in a row that measured nothing
    held_since: float | None = None  # abort conditions: since when without a break
    broken_since: float | None = None  # probes, while a fault is in: since when without a break
    written: float = 0.0
    worst: float | None = None  # the smallest margin since the last mark
    measured: int = 0  # probes: readings of this run that measured something while a fault was in

    def __post_init__(self) -> None:
        self.probe = probe_of(self.check.kind)

    @property
    def purpose(self) -> str:
        return "abort" if isinstance(self.check, AbortIf) else "steady-state"

    def begin(self, now: float) -> None:
        """The first question is about to be asked."""
        self.started = self.heard = self.saw = now

    def restart(self, mark: float) -> None:
        """A fault went in or out, or a phase began: only what is asked from now on counts."""
        self.mark, self.streak, self.written, self.worst, self.broken_since = mark, 0, 0.0, None, None

    def bound(self, during: bool) -> tuple[Expectation, bool]:
        """The bound that counts now, and whether it is held against the platform."""
        check = self.check
        if isinstance(check, Probe) and during and check.during is not None:
            if isinstance(check.during, Expectation):
                return check.during, True
            return check.is_, False
        return check.is_, True

    def take(self, reading: Reading, baseline: bool) -> None:
        """A reading came; `baseline` says that it may become part of the baseline."""
        self.reading = reading
        self.heard = reading.at + reading.took
        if reading.state.seen:
            self.saw, self.unseen = self.heard, 0
            self.measured += reading.during
        else:
            self.unseen += 1
        if reading.at >= self.mark:
            self.streak = self.streak + 1 if self._good(reading) else 0
        if baseline and reading.number is not None and self._good(reading):
            self.values.append(reading.number)

    def _good(self, reading: Reading) -> bool:
        wanted = BROKEN if isinstance(self.check, AbortIf) else HOLDS
        return reading.state in (wanted, NO_BASELINE)

    # -- the baseline ----------------------------------------------------------------------------

    @property
    def mean(self) -> float | None:
        values = self.values[-BASELINE_READINGS:]
        return sum(values) / len(values) if values else None

    @property
    def settled(self) -> bool:
        """Whether the baseline is known: fresh readings in a row, the last of which is good against them.

        One that is not shows a platform still on its way up or down. An abort condition that is no share of
        the baseline needs to be seen once.
        """
        bound = self.check.is_
        if isinstance(self.check, AbortIf) and not bound.relative:
            return self.streak >= 1
        if self.streak < BASELINE_READINGS:
            return False
        if not bound.relative:
            return True
        mean = self.mean
        holds = mean is not None and bound.judge(self.values[-1], mean)
        return mean is not None and holds == isinstance(self.check, Probe)

    def settle(self) -> Reading | None:
        """The baseline is known. The last reading against it, where it could not be judged before."""
        self.baseline, reading = self.mean, self.reading
        if reading is None or reading.state != NO_BASELINE or reading.number is None:
            return None
        bound = self.check.is_
        low, high = bound.limits(self.baseline)
        state = HOLDS if bound.judge(reading.number, self.baseline) else BROKEN
        margin = bound.margin(reading.number, self.baseline)
        self.reading = replace(reading, state=state, low=low, high=high, margin=margin, message="")
        return self.reading

    @property
    def answered(self) -> bool:
        """Whether a reading came that was asked for since the mark."""
        return self.reading is not None and self.reading.at >= self.mark

    @property
    def steady(self) -> bool:
        return self.streak >= STEADY_READINGS and self.reading is not None and self.reading.state == HOLDS

    def complaint(self) -> str:
        """Why it is not steady, or not settled, by what was asked since the mark."""
        name, reading = self.check.name, self.reading
        if reading is None or not self.answered:
            return f"{name}: has not answered yet"
        if self._good(reading):
            return f"{name}: still changing ({explain(reading)})"
        return f"{name}: {explain(reading)}"

    # -- while a fault is in -----------------------------------------------------------------------

    def mending(self, reading: Reading) -> bool:
        """Whether a probe is broken no longer than it may be while a fault is in."""
        if not isinstance(self.check, Probe) or reading.state in (HOLDS, UNREACHABLE):
            self.broken_since = None if reading.state == HOLDS else self.broken_since
            return False
        if self.broken_since is None:
            self.broken_since = reading.at
        return reading.at - self.broken_since < self.check.within

    def failing(self, reading: Reading) -> bool:
        """Whether a probe does not hold while a fault is in. Not asked once or twice is no proof of that."""
        if not reading.during or reading.ignored or reading.state == HOLDS:
            return False
        return reading.state != UNREACHABLE or self.unseen >= BLIND_READINGS

    # -- abort conditions --------------------------------------------------------------------------

    def alarm(self) -> str:
        """Why the run must abort by the newest reading of an abort condition, "" where it need not."""
        check, reading = self.check, self.reading
        assert isinstance(check, AbortIf)
        assert reading is not None
        if not reading.state.seen:
            return self._blind(check, reading)
        if reading.state != HOLDS:
            self.held_since = None
            return ""
        self.held_since = reading.at if self.held_since is None else self.held_since
        if self.heard - self.held_since < check.for_:
            return ""
        return f"{check.name}: {value_text(reading.value, check.is_.text)} is {check.is_.text}"

    def _blind(self, check: AbortIf, reading: Reading) -> str:
        seconds = self.heard - self.saw
        if self.unseen < BLIND_READINGS if check.blind_for is None else seconds < check.blind_for:
            return ""
        return f"blind: the abort condition “{check.name}”: {explain(reading)}, for {seconds:.0f} s"

    # -- the log -----------------------------------------------------------------------------------

    def worth_writing(self, old: Reading | None, reading: Reading) -> bool:
        """Whether the log must have it: another state, the worst since the mark, or nothing for long."""
        changed = old is None or _kind(old) != _kind(reading)
        worse = self.purpose == "steady-state" and self._is_worst(reading)
        return changed or worse or reading.at - self.written >= HEARTBEAT

    def _is_worst(self, reading: Reading) -> bool:
        if reading.margin is None:
            return reading.state == BROKEN
        worst = reading.margin < (math.inf if self.worst is None else self.worst)
        self.worst = reading.margin if worst else self.worst
        return worst


def _kind(reading: Reading) -> tuple[State, bool, bool]:
    """What of a reading must be in the log as soon as it is another one."""
    return reading.state, reading.during, reading.ignored
