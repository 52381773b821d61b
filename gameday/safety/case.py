"""A plan to be checked, as gameday's own checks before a run get it."""

from __future__ import annotations

from dataclasses import dataclass

from gameday import extend
from gameday.safety.plan import Plan


@dataclass(frozen=True)
class Case(extend.Case):
    """A plan with its experiment and its world, and all that gameday knows of it."""

    plan: Plan
