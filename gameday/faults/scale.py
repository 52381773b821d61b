"""Scale: a workload runs with fewer or more replicas, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, Spec, Text
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.pods import check_namespaces
from gameday.ledger.operations import Edit, Patch
from gameday.platform.errors import not_found
from gameday.platform.objects import Object, Ref, gpus
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger


_KINDS = {
    "deployment": "Deployment",
    "deploy": "Deployment",
    "statefulset": "StatefulSet",
    "sts": "StatefulSet",
    "replicaset": "ReplicaSet",
    "rs": "ReplicaSet",
}


class ScaleSpec(Spec):
    """Which workload, and to how many replicas."""

    workload: Text = Field(
        description="Kind and name, as `deployment/queue`: deployment, statefulset, replicaset."
    )
    namespace: DNSLabel = Field(description="Its namespace.")
    replicas: int = Field(ge=0, le=10_000, description="How many replicas it is to have.")


class Scale:
    """A workload is set to another number of replicas; undone if it still has that number."""

    Spec: ClassVar[type[Spec]] = ScaleSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = (
        "scale: {workload: deployment/job-queue-controller, namespace: platform, replicas: 0}"
    )

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        check_namespaces([spec.namespace], world)
        obj = await self._read(_ref(spec), world)
        before = int(obj["spec"].get("replicas", 1))
        if before == spec.replicas:
            raise PlanError(f"{_ref(spec)} has {before} replicas already: nothing would change")
        lost = max(before - spec.replicas, 0)
        each = gpus({"spec": obj["spec"]["template"]["spec"]})
        return FaultPlan(
            spec,
            (Victim(Ref.of(obj), "workload", gpus=each * lost, pods=lost),),
            changes=(f"scale {_ref(spec)} from {before} to {spec.replicas}",),
            needs=(f"patch {obj['kind'].lower()}s.apps {spec.namespace}",),
            warnings=tuple(await self._autoscalers(obj, world)),
            data={"before": before, "ready": int(obj.get("status", {}).get("readyReplicas", 0))},
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        ref = plan.victims[0].ref
        await ledger.perform(
            [await Patch.of(world.kube, ref, Edit(("spec", "replicas"), plan.spec.replicas))]
        )

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In when the controller runs that many and no more; out when those that were ready are back."""
        obj = await self._read(plan.victims[0].ref, world)
        wanted, status = int(obj["spec"].get("replicas", 1)), obj.get("status", {})
        have, ready = int(status.get("replicas", 0)), int(status.get("readyReplicas", 0))
        fact = f"{plan.victims[0].ref}: {ready} of {wanted} replicas ready"
        observed = status.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
        if wanted == plan.spec.replicas:
            return Evidence("in" if observed and have == wanted else "partial", (fact,))
        back = observed and ready >= min(plan.data["ready"], wanted)
        return Evidence("out" if back else "partial", (fact,))

    async def _read(self, ref: Ref, world: World) -> Object:
        try:
            return await world.kube.get(ref)
        except Exception as error:
            if not_found(error):
                raise PlanError(f"there is no {ref} in {world.kube.context}") from error
            raise

    async def _autoscalers(self, obj: Object, world: World) -> list[str]:
        """Who would set the number of replicas back under us."""
        from gameday.platform.errors import ApiError
        from gameday.platform.objects import Resource

        meta = obj["metadata"]
        resource = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        try:
            found = await world.kube.list(resource, meta["namespace"])
        except ApiError:
            return []
        return [
            f"HorizontalPodAutoscaler {h['metadata']['name']} will fight over the replicas of {meta['name']}"
            for h in found
            if (h["spec"]["scaleTargetRef"]["kind"], h["spec"]["scaleTargetRef"]["name"])
            == (obj["kind"], meta["name"])
        ]


def _ref(spec: Any) -> Ref:
    kind, slash, name = spec.workload.partition("/")
    if not slash or kind.lower() not in _KINDS:
        raise PlanError(f"scale: {spec.workload!r} is not kind/name, as deployment/{name or kind}")
    return Ref("apps/v1", _KINDS[kind.lower()], name, spec.namespace)
