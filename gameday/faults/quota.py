"""Quota: a namespace's ResourceQuota allows less than before, so that new pods are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, ObjectName, Spec, Text
from gameday.experiment.quantity import parse_quantity
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.pods import check_namespaces
from gameday.ledger.operations import Edit, Patch
from gameday.platform.amounts import Amount, amount
from gameday.platform.objects import Object, Ref
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger


class QuotaSpec(Spec):
    """Which quota, and what it is to allow."""

    name: ObjectName = Field(description="The ResourceQuota.")
    namespace: DNSLabel = Field(description="Its namespace.")
    hard: dict[Text, Amount] = Field(
        min_length=1,
        description="What it is to allow, by resource: an amount (`10`, `64Gi`), or a share of what is used "
        "when the run is planned (`100%`: no more than now).",
    )


class Quota:
    """A ResourceQuota's hard limits are lowered; put back where they still are what we wrote."""

    Spec: ClassVar[type[Spec]] = QuotaSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "quota: {name: compute, namespace: inference, hard: {pods: 100%}}"

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        check_namespaces([spec.namespace], world)
        ref = Ref("v1", "ResourceQuota", spec.name, spec.namespace)
        quota = await world.kube.find(ref)
        if quota is None:
            raise PlanError(f"there is no {ref} in {world.kube.context}")
        before, used = quota["spec"].get("hard") or {}, _status(quota, "used")
        after = {name: _lower(ref, name, text, before, used) for name, text in spec.hard.items()}
        over = [n for n in after if parse_quantity(used.get(n, "0")) > parse_quantity(after[n])]
        return FaultPlan(
            spec,
            (Victim(Ref.of(quota), "object"),),
            changes=tuple(
                f"{ref}: {n} from {before[n]} to {a} ({used.get(n, '0')} used)" for n, a in after.items()
            ),
            needs=(f"patch resourcequotas {spec.namespace}",),
            warnings=tuple(
                f"{ref}: more {n} is used than it will allow; what runs stays, nothing new comes"
                for n in over
            ),
            data={"before": {n: before[n] for n in after}, "after": after},
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        edits = [Edit(("spec", "hard", name), value) for name, value in plan.data["after"].items()]
        await ledger.perform([await Patch.of(world.kube, plan.victims[0].ref, *edits)])

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """By `status.hard`, which is what admission goes by: the quota's controller has taken it over."""
        quota = await world.kube.find(plan.victims[0].ref)
        if quota is None:
            return Evidence("out", (f"{plan.victims[0].ref} was deleted meanwhile",))
        hard, used = _status(quota, "hard"), _status(quota, "used")
        wanted = quota["spec"].get("hard") or {}
        facts = tuple(f"{n}: {used.get(n, '0')} used of {hard.get(n)}" for n in plan.data["after"])
        ours = [wanted.get(n) == a for n, a in plan.data["after"].items()]
        if any(hard.get(n) != wanted.get(n) for n in plan.data["after"]) or any(ours) != all(ours):
            return Evidence("partial", facts)
        return Evidence("in" if all(ours) else "out", facts)


def _status(quota: Object, what: str) -> dict[str, str]:
    return dict((quota.get("status") or {}).get(what) or {})


def _lower(ref: Ref, name: str, text: str, before: dict[str, str], used: dict[str, str]) -> str:
    """The new limit in the API's own form. Raises PlanError when there is none, or it would not be lower."""
    if name not in before:
        raise PlanError(f"{ref} does not limit {name}, only {', '.join(sorted(before)) or 'nothing'}")
    after = amount(text, name, used.get(name, "0"))
    if parse_quantity(after) >= parse_quantity(before[name]):
        raise PlanError(f"{ref} allows {before[name]} of {name}; {text} would be {after}, which is no less")
    return after
