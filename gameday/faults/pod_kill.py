"""Pod kill: pods are deleted, and their controllers must replace them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, LabelSelector, Pick, Spec
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.pods import pick_pods, pod_victim, pods_now
from gameday.ledger.operations import Delete
from gameday.platform.objects import controller

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.world import World


class PodKillSpec(Spec):
    """Which pods, how many, and how."""

    selector: LabelSelector = Field(description="The pods, by label selector.")
    namespace: DNSLabel = Field(description="Their namespace.")
    pick: Pick = Field(1, description="How many of them: a number, a share such as 20%, or `all`.")
    grace: int | None = Field(
        None, ge=0, description="Seconds to end in; 0 kills at once; else the pod's own grace period."
    )


class PodKill:
    """Pods are deleted whatever their budgets say. Not undone: their controllers make new ones."""

    Spec: ClassVar[type[Spec]] = PodKillSpec
    instant: ClassVar[bool] = True
    example: ClassVar[str] = "podKill: {selector: app=trainer, namespace: training, pick: 1, grace: 0}"

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        chosen = await pick_pods(spec, world)
        orphans = [p["metadata"]["name"] for p in chosen if controller(p) is None]
        if orphans:
            raise PlanError(f"pod {', '.join(orphans)} has no controller: nothing would make it again")
        names = [f"{spec.namespace}/{p['metadata']['name']}" for p in chosen]
        return FaultPlan(
            spec,
            tuple(pod_victim(p) for p in chosen),
            changes=tuple(f"delete pod {n}" for n in names),
            needs=(f"delete pods {spec.namespace}",),
            ends_pods=True,
            irreversible=tuple(f"pod {n} is replaced by its controller, not restored" for n in names),
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        """Kills the pods that were approved; for those replaced since, as many of their successors."""
        victims = [pod_victim(p) for p in await pods_now(plan, world)]
        plan.data["killed"] = [v.ref.to_data() for v in victims]
        await ledger.perform(Delete(v.ref, plan.spec.grace) for v in victims)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In when every pod that was killed is gone, by UID."""
        from gameday.platform.objects import Ref

        refs = [Ref.from_data(data) for data in plan.data.get("killed", ())]
        found = await asyncio.gather(*(world.kube.find(r) for r in refs))
        gone = [str(r) for r, obj in zip(refs, found, strict=True) if obj is None]
        state = "in" if len(gone) == len(refs) else "partial"
        return Evidence(state, tuple(f"{g} is gone" for g in gone))
