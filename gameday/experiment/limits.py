"""How long a run would take at least, against what its file allows: `maxHold` and `maxDuration`."""

from __future__ import annotations

from collections.abc import Sequence

from gameday.experiment.model import Experiment, Step
from gameday.experiment.problems import Path
from gameday.experiment.tree import Tree


def check(tree: Tree, experiment: Experiment) -> None:
    """Report each `for` that is longer than `maxHold`, and a method that can't end within `maxDuration`."""
    spec = experiment.spec
    _holds(tree, spec.method, ("spec", "method"), spec.max_hold)
    least = _sequence(spec.method)
    if least > spec.max_duration:
        text = f"the steps alone take {least:g} s, but spec.maxDuration is {spec.max_duration:g} s"
        tree.report(("spec", "method"), text, "raise spec.maxDuration", at_key=True)


def _holds(tree: Tree, steps: Sequence[Step], path: Path, most: float) -> None:
    for index, step in enumerate(steps):
        here = (*path, index)
        if step.for_ is not None and step.for_ > most:
            text = f"the fault would stay in for {step.for_:g} s, but spec.maxHold is {most:g} s"
            tree.report((*here, "for"), text, "raise spec.maxHold, or hold it for less")
        inside = (*here, step.kind, "steps") if step.repeat else (*here, step.kind)
        _holds(tree, step.steps, inside, most)


def _sequence(steps: Sequence[Step]) -> float:
    return sum(map(_least, steps))


def _least(step: Step) -> float:
    """Seconds that a step takes if everything but its hold took no time."""
    if step.parallel:
        return max(map(_least, step.parallel))
    times = step.repeat.times if step.repeat else 1
    return times * _sequence(step.steps) + (step.wait or 0) + (step.for_ or 0)
