"""The plan of a run: every step with its targets, resolved once, approved, and then executed as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gameday.experiment import registry
from gameday.experiment.model import Experiment, Step
from gameday.faults.base import Fault, FaultPlan, PlanError
from gameday.platform.errors import PlatformError
from gameday.platform.world import World


@dataclass(frozen=True)
class Place:
    """A step's place in the method: its path (2, 2.1), and how often `repeat` runs it."""

    path: str
    step: Step
    times: int = 1


@dataclass(frozen=True)
class StepPlan:
    """One fault of the method, planned."""

    path: str
    name: str
    kind: str
    hold: float | None
    times: int
    fault: FaultPlan


@dataclass
class Plan:
    """All faults of a run. `problems` holds what could not be planned: (path, text)."""

    seed: int
    experiment: str = ""  # the digest of what it was made for
    steps: dict[str, StepPlan] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        steps = [
            {
                "path": s.path,
                "name": s.name,
                "kind": s.kind,
                "for": s.hold,
                "times": s.times,
                **s.fault.to_data(),
            }
            for s in self.steps.values()
        ]
        made_for = {"version": 1, "seed": self.seed, "experiment": self.experiment, "steps": steps}
        return {**made_for, "digest": _digest(made_for)}

    @classmethod
    def from_data(cls, data: dict[str, Any], experiment: Experiment) -> Plan:
        """The plan of a file. Raises PlanError when it is damaged, or is not of this experiment."""
        made_for = {k: v for k, v in data.items() if k != "digest"}
        if data.get("version") != 1 or data.get("digest") != _digest(made_for):
            raise PlanError("the plan was changed after it was made, or is damaged: make it again")
        if data["experiment"] != _digest(experiment.model_dump(mode="json")):
            raise PlanError("the plan was made for another experiment, or for other variables: make it again")
        places = {p.path: p for p in places_of(experiment.spec.method) if p.step.is_fault}
        plan = cls(data["seed"], data["experiment"])
        for step in data["steps"]:
            spec = places[step["path"]].step.spec
            fault = FaultPlan.from_data(spec, step)
            plan.steps[step["path"]] = StepPlan(
                step["path"], step["name"], step["kind"], step["for"], step["times"], fault
            )
        return plan


def name_of(step: Step, path: str) -> str:
    """A step's name without its number, which is shown beside it."""
    return (step.name or step.kind).removeprefix(f"{path} ")


def fault_of(kind: str) -> Fault:
    """The fault under a key of the experiment file."""
    made: Fault = registry.fault(kind)()
    return made


def places_of(steps: list[Step] | tuple[Step, ...], prefix: str = "", times: int = 1) -> Iterator[Place]:
    """Every step of the method, outer before inner."""
    for number, step in enumerate(steps, 1):
        path = f"{prefix}{number}"
        yield Place(path, step, times)
        inner = times * (step.repeat.times if step.repeat else 1)
        yield from places_of(step.steps, path + ".", inner)


async def make_plan(experiment: Experiment, world: World) -> Plan:
    """Resolve every fault's targets. What can't be planned is collected, to be seen all at once."""
    plan = Plan(world.seed, _digest(experiment.model_dump(mode="json")))
    for place in places_of(experiment.spec.method):
        step = place.step
        if not step.is_fault:
            continue
        try:
            fault = await fault_of(step.kind).plan(step.spec, world.at(place.path, step.for_))
        except (PlanError, PlatformError) as error:
            plan.problems.append((place.path, str(error)))
            continue
        plan.steps[place.path] = StepPlan(
            place.path, name_of(step, place.path), step.kind, step.for_, place.times, fault
        )
    return plan


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]
