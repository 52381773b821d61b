"""Quota: a namespace's ResourceQuota allows less than before, so that new pods are refused."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, ObjectName, Spec
from gameday.experiment.quantity import parse_quantity
from gameday.experiment.text import plain
from gameday.experiment.values import QualifiedName
from gameday.extend import Already, Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import check_namespaces
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.amounts import Amount, amount
from gameday.platform.effect import Effect, Kind, named
from gameday.platform.objects import Object, Ref
from gameday.platform.world import Victim, World


class QuotaSpec(Spec):
    """Which quota, and what it is to allow."""

    name: ObjectName = Field(description="The ResourceQuota.")
    namespace: DNSLabel = Field(description="Its namespace.")
    hard: dict[QualifiedName, Amount] = Field(
        min_length=1,
        description="What it is to allow, by resource: an amount (`10`, `64Gi`), or a share of what is used "
        "when the run is planned (`100%`: no more than now).",
    )


class Quota(Fault[QuotaSpec]):
    """A ResourceQuota's hard limits are lowered; put back where they still are what we wrote."""

    Spec: ClassVar[type[Spec]] = QuotaSpec
    example: ClassVar[str] = "quota: {name: compute, namespace: inference, hard: {pods: 100%}}"

    async def plan(self, spec: QuotaSpec, world: World) -> FaultPlan[QuotaSpec]:
        check_namespaces([spec.namespace], world)
        ref = Ref("v1", "ResourceQuota", spec.name, spec.namespace)
        quota = await world.kube.find(ref)
        if quota is None:
            raise PlanError(f"there is no {ref} in {world.kube.context}")
        before, used = quota["spec"].get("hard") or {}, _status(quota, "used")
        # A share is of what was used when the plan was approved: what it came to is what people read.
        wanted = spec.hard if world.approved is None else world.approved.data["after"]
        after = {name: _lower(ref, name, text, before, used) for name, text in wanted.items()}
        over = [n for n in after if parse_quantity(used.get(n, "0")) > parse_quantity(after[n])]
        return FaultPlan(
            spec,
            (Victim(Ref.of(quota), "object"),),
            changes=tuple(
                f"{ref}: {n} from {before[n]} to {a} ({used.get(n, '0')} used)" for n, a in after.items()
            ),
            needs=(f"patch resourcequotas {spec.namespace} {spec.name}",),
            warnings=tuple(
                f"{ref}: more {n} is used than it will allow; what runs stays, nothing new comes"
                for n in over
            ),
            data={"before": {n: before[n] for n in after}, "after": after},
            basis={f"{ref}: spec.hard.{n}": before[n] for n in after},
        )

    async def effects(self, plan: FaultPlan[QuotaSpec], world: World) -> tuple[Effect, ...]:
        """New pods of the whole namespace may be refused, whosever they are."""
        limits = ", ".join(f"{n} {a}" for n, a in plan.data["after"].items())
        text = f"new pods are refused beyond {limits}"
        return (named(Kind.NAMESPACE, plan.spec.namespace, text),)

    async def inject(self, plan: FaultPlan[QuotaSpec], step: Step) -> None:
        before = plan.data["before"]
        edits = [Edit(("spec", "hard", n), value, before[n]) for n, value in plan.data["after"].items()]
        await step.ledger.perform([await Patch.of(step.kube, plan.victims[0].ref, *edits)])

    async def settled(self, plan: FaultPlan[QuotaSpec], injected: Injected, world: World) -> Evidence:
        """By `status.hard`, which is what admission goes by: the quota's controller has taken it over."""
        quota = await world.kube.find(plan.victims[0].ref)
        if quota is None:
            return Evidence("out", (f"{plan.victims[0].ref} was deleted meanwhile",))
        hard, used = _status(quota, "hard"), _status(quota, "used")
        wanted = quota["spec"].get("hard") or {}
        facts = tuple(f"{n}: {used.get(n, '0')} used of {plain(hard.get(n))}" for n in plan.data["after"])
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
        raise Already(f"{ref} allows {before[name]} of {name}; {text} would be {after}, which is no less")
    return after
