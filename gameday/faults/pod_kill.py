"""Pod kill: pods are deleted, and their controllers must replace them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, EndingSpec, LabelSelector, Pick, Spec
from gameday.extend import Evidence, Fault, FaultPlan, Injected, Step
from gameday.faults.pods import pick_pods, pod_victim, pods_now, what_keeps
from gameday.ledger.operations import Delete
from gameday.platform.objects import Object

if TYPE_CHECKING:
    from gameday.platform.world import World


class PodKillSpec(EndingSpec):
    """Which pods, how many, and how."""

    selector: LabelSelector = Field(description="The pods, by label selector.")
    namespace: DNSLabel = Field(description="Their namespace.")
    pick: Pick = Field(1, description="How many of them: a number, a share such as 20%, or `all`.")
    grace: int | None = Field(
        None, ge=0, description="Seconds to end in; 0 kills at once; else the pod's own grace period."
    )


class PodKill(Fault[PodKillSpec]):
    """Pods are deleted whatever their budgets say. Not undone: their controllers make new ones."""

    Spec: ClassVar[type[Spec]] = PodKillSpec
    instant: ClassVar[bool] = True
    ends_by_hand: ClassVar[bool] = True
    example: ClassVar[str] = "podKill: {selector: app=trainer, namespace: training, pick: 1, grace: 0}"

    async def plan(self, spec: PodKillSpec, world: World) -> FaultPlan[PodKillSpec]:
        chosen = await pick_pods(spec, world)
        names = [f"{spec.namespace}/{p['metadata']['name']}" for p in chosen]
        return FaultPlan(
            spec,
            tuple(pod_victim(p) for p in chosen),
            changes=tuple(f"delete pod {n}" for n in names),
            needs=(f"delete pods {spec.namespace}",),
            ends_pods=True,
        )

    async def inject(self, plan: FaultPlan[PodKillSpec], step: Step) -> None:
        """Kills the pods that were approved; for those replaced since, as many of their successors."""
        victims = [pod_victim(p) for p in await pods_now(plan.spec, plan, step.world)]
        await step.ledger.perform(Delete(v.ref, plan.spec.grace) for v in victims)

    async def settled(self, plan: FaultPlan[PodKillSpec], injected: Injected, world: World) -> Evidence:
        """In when every pod that was killed is gone, by UID; one that does not go is named with the cause."""
        refs = [made.ref for made in injected.of(Delete.kind)]
        found = await asyncio.gather(*(world.kube.find(r) for r in refs))
        facts = tuple(f"{r} {_fate(o)}" for r, o in zip(refs, found, strict=True))
        state = "out" if not refs else "partial" if any(found) else "in"
        return Evidence(state, facts)


def _fate(pod: Object | None) -> str:
    """What became of a pod that was killed, and what keeps one that does not go."""
    if pod is None:
        return "is gone"
    why = what_keeps(pod)
    return f"was asked to go, and still ends{f' ({why})' if why else ''}"
