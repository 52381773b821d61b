"""Plans to be checked, as preflight gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gameday.experiment.loader import load
from gameday.platform.world import World
from gameday.safety.case import Case
from gameday.safety.plan import Plan
from tests.e2e.experiments import write


def case(folder: Path, plan: Plan, world: World, **spec: Any) -> Case:
    """A plan with an experiment of this spec, whose method is another one."""
    return Case(load(write(folder, method=[{"wait": "1s"}], **spec)).experiment, plan, world)
