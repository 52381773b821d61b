"""Chaos Toolkit: any action of any installed extension as a fault, with another one that takes it back."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.events import Warn
from gameday.experiment.activity import ActivitySpec
from gameday.experiment.model import Duration, PositiveDuration, Spec
from gameday.experiment.text import shorten
from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.ledger.activity import Activity
from gameday.platform.chaostoolkit import check_activities
from gameday.platform.errors import PlatformError

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.world import World


ROLLBACKS = "rollbacks"  # no step has this path, so its entries are undone when the run ends


class Pauses(Spec):
    """Waiting around an activity."""

    before: Duration = Field(0.0, description="Wait so long before it.")
    after: Duration = Field(0.0, description="Wait so long after it.")


class ChaosToolkitSpec(ActivitySpec):
    """A Chaos Toolkit action, or a probe whose result goes to the log."""

    undo: ActivitySpec | None = Field(None, description="The activity that takes it back.")
    rollbacks: list[ActivitySpec] = Field(
        [], description="Activities that run, in this order, when the run ends, however it ends."
    )
    pauses: Pauses = Field(Pauses(), description="Waiting before and after it.")
    timeout: PositiveDuration = Field(300.0, description="How long it may take, and its undo as well.")
    ignore_failure: bool = Field(False, description="Go on when it fails, as `chaos run` does.")


class ChaosToolkit:
    """Any action of an installed Chaos Toolkit extension. What it touches is not known beforehand."""

    Spec: ClassVar[type[Spec]] = ChaosToolkitSpec
    instant: ClassVar[bool] = True
    example: ClassVar[str] = (
        "chaostoolkit:\n"
        "  type: action\n"
        "  name: terminate a pod\n"
        "  provider:\n"
        "    type: python\n"
        "    module: chaosk8s.pod.actions\n"
        "    func: terminate_pods\n"
        "    arguments: {label_selector: app=trainer, ns: training, rand: true}"
    )

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        """Lets Chaos Toolkit judge the activities; nothing says which objects they touch."""
        undoing = [spec.undo, *spec.rollbacks] if spec.undo else spec.rollbacks
        try:
            for part in (spec, *undoing):
                await check_activities([part.activity], part.configuration, spec.secrets | part.secrets)
        except PlatformError as error:
            raise PlanError(str(error)) from error
        if spec.type == "probe" and not undoing:
            return FaultPlan(spec, (), changes=(f"ask {spec.what}",))
        undone = f", undone by {spec.undo.what}" if spec.undo else ""
        return FaultPlan(
            spec,
            (),
            changes=(
                f"run {spec.what}{undone}",
                *(f"at the end of the run: {r.what}" for r in spec.rollbacks),
            ),
            irreversible=() if undoing else (f"nothing undoes {spec.name}: name its `undo` if there is one",),
            warnings=(f"what {spec.name} touches is not known, so the blast radius does not bound it",),
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        spec = plan.spec
        configuration = from_environment(spec.configuration)
        await ledger.ledger.step(ROLLBACKS).perform(
            _operation(spec, None, rollback, configuration) for rollback in reversed(spec.rollbacks)
        )
        await asyncio.sleep(spec.pauses.before)
        operation = _operation(spec, spec.activity, spec.undo, configuration)
        try:
            if spec.type == "probe" and spec.undo is None:
                await operation.make(world.kube)  # changes nothing, so the ledger need not know
            else:
                await ledger.perform([operation])
        except PlatformError as error:
            if not spec.ignore_failure:
                raise FaultError(str(error)) from error
            world.emit(Warn(source=spec.name, message=str(error)))
            plan.data["outcome"] = str(error)
        else:
            plan.data["outcome"] = f"{spec.name} returned {_short(operation.result)}"
        await asyncio.sleep(spec.pauses.after)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In once it has returned: what an action does to the data plane only the action itself knows."""
        outcome = plan.data.get("outcome")
        return Evidence("in", (outcome,)) if outcome else Evidence("out", ("it has not run",))


def _operation(
    spec: ChaosToolkitSpec,
    activity: dict[str, Any] | None,
    undo: ActivitySpec | None,
    configuration: dict[str, Any],
) -> Activity:
    rollback = activity is None and undo is not None
    named = undo if rollback and undo else spec
    return Activity(
        named.name,
        "" if rollback else named.what,
        activity,
        undo.activity if undo else None,
        configuration | (from_environment(undo.configuration) if undo else {}),
        spec.secrets | (undo.secrets if undo else {}),
        spec.timeout,
        ROLLBACKS if rollback else "",
    )


def from_environment(configuration: dict[str, Any]) -> dict[str, Any]:
    """Values that come from the environment, fixed now: an undo elsewhere must mean the same objects."""
    fixed = dict(configuration)
    for key, value in configuration.items():
        if isinstance(value, dict) and value.get("type") == "env" and value.get("key") in os.environ:
            # Chaos Toolkit converts it as it would have done, under a name that no environment has.
            fixed[key] = {**value, "key": f"GAMEDAY_RECORDED_{key}", "default": os.environ[value["key"]]}
    return fixed


def _short(result: Any) -> str:
    return shorten(result if isinstance(result, str) else json.dumps(result, default=str))
