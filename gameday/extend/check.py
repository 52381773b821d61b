"""Checks before anything is touched: a check is an async function of a Case that gives findings.

Checks of a system, ours and other packages' alike, are entry points of the group `gameday.checks`; those that
every run gets whatever is installed are gameday's own (`safety.preflight`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gameday.events import Preflight

if TYPE_CHECKING:
    from gameday.experiment.model import Experiment
    from gameday.extend.fault import FaultPlan
    from gameday.platform.world import World

Findings = list[Preflight]


class PlannedStep(Protocol):
    """One fault of the method, planned."""

    @property
    def path(self) -> str:
        """Its place in the method, as 2 or 2.1."""

    @property
    def kind(self) -> str:
        """The fault's key."""

    @property
    def hold(self) -> float | None:
        """Seconds that it will be kept in force."""

    @property
    def fault(self) -> FaultPlan[Any]:
        """The changes and the targets."""


class Planned(Protocol):
    """The plan of a run."""

    @property
    def steps(self) -> Mapping[str, PlannedStep]:
        """The faults, by their paths."""


@dataclass(frozen=True)
class Case:
    """A plan to be checked, with its experiment and its world."""

    experiment: Experiment
    plan: Planned
    world: World


def ok(check: str, message: str) -> Preflight:
    """Nothing speaks against the run. `check` is the check's name for people."""
    return Preflight(check=check, level="ok", message=message)


def warning(check: str, message: str, hint: str = "") -> Preflight:
    """Something that a person should know; the run may begin."""
    return Preflight(check=check, level="warning", message=message, hint=hint)


def refused(check: str, message: str, hint: str = "") -> Preflight:
    """The run may not begin. `hint` says what to do about it."""
    return Preflight(check=check, level="refused", message=message, hint=hint)
