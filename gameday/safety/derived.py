"""Whether a kept plan is what its experiment, its seed and the cluster give, and not what somebody wrote.

A plan in a file is the word of whoever wrote it: its victims, effects and sentences could be anything.
Whoever approves makes the plan again, and approves only one that comes out the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from gameday.experiment.model import Experiment
from gameday.experiment.text import shorten
from gameday.extend import FaultPlan
from gameday.platform.effect import LOOSE, Effect
from gameday.platform.world import World
from gameday.safety.plan import Plan, make_plan

AGAIN = "make the plan again"
_NAMES = {
    "victims": "targets",
    "changes": "changes",
    "irreversible": "irreversible changes",
    "needs": "permissions",
    "endsPods": "ending of pods",
    "data": "details",
    "basis": "things that it was planned from",
}


async def differences(kept: Plan, experiment: Experiment, world: World) -> list[str]:
    """In what a kept plan differs from the one that is made now with its seed: a sentence each. Read only.

    The world has the plan's seed. Warnings may differ: nothing depends on them.
    """
    now = await make_plan(experiment, world)
    found = [f"step {path}: {problem}" for path, problem in now.problems]
    for path, step in kept.steps.items():
        if path in now.steps:
            found += [f"step {path}: {text}" for text in _differ(step.fault, now.steps[path].fault)]
    return found


def _differ(kept: FaultPlan[Any], now: FaultPlan[Any]) -> list[str]:
    old, new = kept.to_data(), now.to_data()
    found = [
        f"the {name} are {_short(new[key])}, and the plan says {_short(old[key])}"
        for key, name in _NAMES.items()
        if _plain(old[key]) != _plain(new[key])
    ]
    before, after = _counted(kept.effects), _counted(now.effects)
    found += [f"{text} comes of it, and the plan does not say so" for text in sorted(after - before)]
    found += [f"{text} is in the plan, and does not come of it" for text in sorted(before - after)]
    return found


def _counted(effects: Iterable[Effect]) -> Counter[str]:
    """Effects by what they are; of pods, jobs and objects to be made, all but which ones."""
    return Counter(_nameless(e) if e.kind in LOOSE else _plain(e.to_data()) for e in effects)


def _nameless(effect: Effect) -> str:
    counted = {k: v for k, v in effect.to_data().items() if k not in ("kind", "ref", "owner")}
    return f"a {effect.kind} in {effect.ref.namespace} ({_plain(counted)})"


def _plain(data: Any) -> str:
    return json.dumps(data, sort_keys=True, default=str)


def _short(data: Any) -> str:
    return shorten(_plain(data), 200)
