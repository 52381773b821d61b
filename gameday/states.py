"""The states that stand in records, logs and reports, each with the word that is written there."""

from __future__ import annotations

from enum import StrEnum


class Change(StrEnum):
    """How far a change of the ledger has come."""

    INTENDED = "intended"
    MADE = "made"
    NOT_MADE = "not-made"  # the world said no for certain: there is nothing to undo
    UNDONE = "undone"
    KEPT = "kept"  # somebody else's by now, and left so
    IRREVERSIBLE = "irreversible"
    ACCEPTED = "accepted"  # a person took it over: nothing is undone, and nothing is held against the world
    FAILED = "failed"  # its undo did not succeed, or the audit found it left

    @property
    def open(self) -> bool:
        """Whether there may be something left to undo."""
        return self in (Change.INTENDED, Change.MADE, Change.FAILED)

    @property
    def ended(self) -> bool:
        """Whether it is how an undo, or the audit of one, may end."""
        return self in (
            Change.UNDONE,
            Change.KEPT,
            Change.IRREVERSIBLE,
            Change.ACCEPTED,
            Change.FAILED,
        )

    @property
    def audit(self) -> Audit:
        """The audit's word on a change that is so at the end of a run."""
        if self in (Change.KEPT, Change.IRREVERSIBLE, Change.ACCEPTED):
            return Audit(self.value)
        return Audit.RESTORED if self is Change.UNDONE else Audit.LEFT

    @classmethod
    def recorded(cls, word: object) -> Change:
        """The state of a record. One that this version does not know may have something left to undo."""
        return next((state for state in cls if state == word), cls.MADE)


class Audit(StrEnum):
    """The audit's word on a change at the end of a run."""

    RESTORED = "restored"
    LEFT = "left"
    KEPT = "kept"
    IRREVERSIBLE = "irreversible"
    ACCEPTED = "accepted"  # a person answers for it


class Presence(StrEnum):
    """Whether a fault is there, as it was read back."""

    IN = "in"
    OUT = "out"
    PARTIAL = "partial"
    OVER = "over"  # it was in, and the platform put it right by itself


class Fault(StrEnum):
    """How far a fault of the method has come."""

    INJECTING = "injecting"
    IN = "in"
    UNDOING = "undoing"
    OUT = "out"
    FAILED = "failed"


class Detection(StrEnum):
    """What became of an alert that was expected of a fault."""

    FIRED = "fired"
    LATE = "late"
    NEVER = "never"
    ALREADY_FIRING = "already-firing"  # before the fault, and not anew since: that proves nothing
    UNKNOWN = "unknown"  # the log ends too early


class Step(StrEnum):
    """How a step ended."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    ABORTED = "aborted"


class Phase(StrEnum):
    """The phases of a run, in their order."""

    PREFLIGHT = "preflight"
    BASELINE = "baseline"
    METHOD = "method"
    RECOVERY = "recovery"
    AUDIT = "audit"
    DONE = "done"


class Reading(StrEnum):
    """The word of a probe or an abort condition on what it asked about."""

    HOLDS = "holds"
    BROKEN = "broken"
    NO_DATA = "no-data"  # nothing, NaN, or infinite or 0 where that would look well
    PARTIAL = "partial"  # an answer with reservations: what is missing may be what is broken
    UNREACHABLE = "unreachable"  # could not be asked
    NO_BASELINE = "no-baseline"  # measured, but the baseline that it is to be compared with is not known yet
    IGNORED = "ignored"  # in reports alone: it did not hold, and that is not held against the platform

    @property
    def seen(self) -> bool:
        """Whether something was measured, good or bad."""
        return self not in (Reading.NO_DATA, Reading.PARTIAL, Reading.UNREACHABLE)

    @classmethod
    def recorded(cls, word: object) -> Reading:
        """The state of a log. One that this version does not know is no proof of health."""
        return next((state for state in cls if state == word), cls.NO_DATA)


class Verdict(StrEnum):
    """How a run ended, in one word."""

    PASSED = "passed"
    DEVIATED = "deviated"
    ABORTED = "aborted"
    REFUSED = "refused"
    NOT_RESTORED = "not-restored"
    DEFECT = "defect"
    INTERRUPTED = "interrupted"
