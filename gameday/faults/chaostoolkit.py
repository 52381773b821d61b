"""Chaos Toolkit: any action of any installed extension as a fault, with another one that takes it back."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.events import Warn
from gameday.experiment.activity import ActivitySpec
from gameday.experiment.model import Duration, PositiveDuration, Spec
from gameday.experiment.text import shorten
from gameday.extend import Evidence, Fault, FaultError, FaultPlan, Injected, PlanError, Step
from gameday.ledger.activity import Activity
from gameday.masking import TooShort, keep_secret, names_secret
from gameday.platform.chaostoolkit import check_activities
from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.world import World


ROLLBACKS = "rollbacks"  # they are undone one after the other


class Pauses(Spec):
    """Waiting around an activity."""

    before: Duration = Field(0.0, description="Wait so long before it.")
    after: Duration = Field(0.0, description="Wait so long after it.")


class ChaosToolkitSpec(ActivitySpec):
    """A Chaos Toolkit action, or a probe whose result goes to the log."""

    undo: ActivitySpec | None = Field(
        None,
        description="The activity that takes it back. It must be idempotent: after an activity that was cut "
        "off or failed it runs at once, and once more when nothing of it can arrive any more.",
    )
    rollbacks: list[ActivitySpec] = Field(
        [], description="Activities that run, in this order, when the run ends, however it ends."
    )
    pauses: Pauses = Field(Pauses(), description="Waiting before and after it.")
    timeout: PositiveDuration = Field(300.0, description="How long it may take, and its undo as well.")
    ignore_failure: bool = Field(False, description="Go on when it fails, as `chaos run` does.")


class ChaosToolkit(Fault[ChaosToolkitSpec]):
    """Any action of an installed Chaos Toolkit extension. What it touches is not known beforehand."""

    Spec: ClassVar[type[Spec]] = ChaosToolkitSpec
    asks_cluster: ClassVar[bool] = False
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

    async def plan(self, spec: ChaosToolkitSpec, world: World) -> FaultPlan[ChaosToolkitSpec]:
        """Lets Chaos Toolkit judge the activities; nothing says which objects they touch."""
        undoing = [spec.undo, *spec.rollbacks] if spec.undo else spec.rollbacks
        under_way = world.approved is not None and world.shared is None
        try:
            for part in () if under_way else (spec, *undoing):  # judged once; no cluster changes it
                await check_activities([part.activity], part.configuration, spec.secrets | part.secrets)
        except PlatformError as error:
            raise PlanError(str(error)) from error
        if spec.type == "probe" and not undoing:
            return FaultPlan(spec, (), changes=(f"ask {spec.what}",))
        undone = f", undone by {spec.undo.what} (which may run more than once)" if spec.undo else ""
        return FaultPlan(
            spec,
            (),
            changes=(
                f"run {spec.what}{undone}",
                *(f"at the end of the run: {r.what}" for r in spec.rollbacks),
            ),
            irreversible=() if undoing else (f"nothing undoes {spec.name}: name its `undo` if there is one",),
        )

    async def effects(self, plan: FaultPlan[ChaosToolkitSpec], world: World) -> tuple[Effect, ...]:
        """Each activity by its name: what it touches, only the activity itself knows."""
        spec = plan.spec
        acting = [spec] if spec.type != "probe" or spec.undo else []
        names = dict.fromkeys(part.name for part in (*acting, *spec.rollbacks))
        text = "touches what only the activity knows"
        return tuple(Effect(Kind.OTHER, Ref("chaostoolkit.org/v1", "Activity", n), text) for n in names)

    async def inject(self, plan: FaultPlan[ChaosToolkitSpec], step: Step) -> None:
        spec = plan.spec
        configuration = from_environment(spec.configuration)
        await step.ledger.of_the_run.perform(
            _operation(spec, None, rollback, configuration) for rollback in reversed(spec.rollbacks)
        )
        await asyncio.sleep(spec.pauses.before)
        operation = _operation(spec, spec.activity, spec.undo, configuration)
        try:
            if spec.type == "probe" and spec.undo is None:
                learned = await operation.make(step.kube)  # and the ledger need not know
            else:
                [entry] = await step.ledger.perform([operation])
                learned = dict(entry.learned)
        except PlatformError as error:
            if not spec.ignore_failure:
                raise FaultError(str(error)) from error
            step.emit(Warn(source=spec.name, message=str(error)))
            step.record(outcome=str(error))
        else:
            step.record(outcome=f"{spec.name} returned {_short(learned['result'])}")
        await asyncio.sleep(spec.pauses.after)

    async def settled(self, plan: FaultPlan[ChaosToolkitSpec], injected: Injected, world: World) -> Evidence:
        """In once it has returned: what an action does to the data plane only the action itself knows."""
        outcome = injected.data.get("outcome")
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
    """Values that come from the environment, fixed now: an undo elsewhere must mean the same objects.

    One whose name says that it is secret is masked from now on, and no record holds it.
    """
    fixed = dict(configuration)
    for key, value in configuration.items():
        if isinstance(value, dict) and value.get("type") == "env" and value.get("key") in os.environ:
            if names_secret(key) or names_secret(value["key"]):
                try:
                    keep_secret(re.sub(r"\W", "_", key), os.environ[value["key"]])
                except TooShort as short:
                    raise PlanError(f"${value['key']}, a secret by its name, {short}") from None
            # Chaos Toolkit converts it as it would have done, under a name that no environment has.
            fixed[key] = {**value, "key": f"GAMEDAY_RECORDED_{key}", "default": os.environ[value["key"]]}
    return fixed


def _short(result: Any) -> str:
    return shorten(result if isinstance(result, str) else json.dumps(result, default=str))
