"""Scale: a workload runs with fewer or more replicas, and back."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, EndingSpec, Spec
from gameday.experiment.names import dns_subdomain
from gameday.experiment.text import describe, plural
from gameday.experiment.values import checked
from gameday.extend import Already, Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import check_namespaces
from gameday.faults.workloads import template_of
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.devices import gpus
from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import ApiError, NotServed
from gameday.platform.objects import Object, Ref, controller
from gameday.platform.preemption import NEEDS, preemption
from gameday.platform.world import Victim, World

_KINDS = {
    "deployment": "Deployment",
    "deploy": "Deployment",
    "statefulset": "StatefulSet",
    "sts": "StatefulSet",
    "replicaset": "ReplicaSet",
    "rs": "ReplicaSet",
}


# By readiness, the annotation pod-deletion-cost, how many share a node, and age (ActivePodsWithRanks in
# pkg/controller/controller_utils.go); a StatefulSet ends those with the highest ordinals.
CHOSEN = "when it is scaled back its controller chooses which pods end, and may choose pods of before"


def _workload(text: str) -> None:
    kind, slash, name = text.partition("/")
    if not slash or kind.lower() not in _KINDS:
        raise ValueError(f"expected kind/name, as deployment/queue, found {describe(text)}")
    dns_subdomain(name)


class ScaleSpec(EndingSpec):
    """Which workload, and to how many replicas."""

    workload: Annotated[str, checked(_workload)] = Field(
        description="Kind and name, as `deployment/queue`: deployment, statefulset, replicaset."
    )
    namespace: DNSLabel = Field(description="Its namespace.")
    replicas: int = Field(ge=0, le=10_000, description="How many replicas it is to have.")


class Scale(Fault[ScaleSpec]):
    """A workload is set to another number of replicas; undone if it still has that number."""

    Spec: ClassVar[type[Spec]] = ScaleSpec
    example: ClassVar[str] = (
        "scale: {workload: deployment/job-queue-controller, namespace: platform, replicas: 0}"
    )

    async def plan(self, spec: ScaleSpec, world: World) -> FaultPlan[ScaleSpec]:
        from gameday.faults.lost import claims_left  # late: not loaded to validate a file

        check_namespaces([spec.namespace], world)
        obj = await self._read(_ref(spec), world)
        before = int(obj["spec"].get("replicas", 1))
        if before == spec.replicas:
            raise Already(f"{_ref(spec)} has {plural(before, 'replica')} already: nothing would change")
        made_by = _made_by(obj)
        fewer = spec.replicas < before
        pods = abs(spec.replicas - before)
        held = gpus(obj["spec"]["template"]) * pods
        return FaultPlan(
            spec,
            (Victim(Ref.of(obj), "workload", gpus=held, pods=pods),),
            ends_pods=fewer,
            changes=(f"scale {_ref(spec)} from {before} to {spec.replicas}",),
            needs=(
                f"patch {obj['kind'].lower()}s.apps {spec.namespace} {obj['metadata']['name']}",
                *(() if fewer else (NEEDS,)),
            ),
            warnings=(
                *([f"{Ref.of(obj)}: {made_by}, and may set its replicas back"] if made_by else ()),
                *await self._autoscalers(obj, spec.replicas, world),
                *claims_left(obj, spec.replicas),
                *([] if fewer or obj["kind"] == "StatefulSet" else [f"{Ref.of(obj)}: {CHOSEN}"]),
            ),
            data={"before": before, "ready": int(obj.get("status", {}).get("readyReplicas", 0))},
            basis={f"{_ref(spec)}: spec.replicas": before},
        )

    async def effects(self, plan: FaultPlan[ScaleSpec], world: World) -> tuple[Effect, ...]:
        """The pods that the workload loses, or starts, beside those that it is to have now."""
        ref = plan.victims[0].ref
        obj = await self._read(ref, world)
        return await resized(ref, obj, plan.spec.replicas, world)

    async def inject(self, plan: FaultPlan[ScaleSpec], step: Step) -> None:
        edit = Edit(("spec", "replicas"), plan.spec.replicas, plan.data["before"])
        await step.ledger.perform([await Patch.of(step.kube, plan.victims[0].ref, edit)])

    async def settled(self, plan: FaultPlan[ScaleSpec], injected: Injected, world: World) -> Evidence:
        """In when the controller runs that many and no more; out when those that were ready are back.

        And what it ran more is gone: until then nobody knows which pods its controller chooses.
        """
        obj = await self._read(plan.victims[0].ref, world)
        wanted, status = int(obj["spec"].get("replicas", 1)), obj.get("status", {})
        have, ready = int(status.get("replicas", 0)), int(status.get("readyReplicas", 0))
        fact = f"{plan.victims[0].ref}: {ready} of {wanted} replicas ready"
        observed = status.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
        if wanted == plan.spec.replicas:
            return Evidence("in" if observed and have == wanted else "partial", (fact,))
        more = plan.spec.replicas > plan.data["before"] and have > wanted
        back = observed and ready >= min(plan.data["ready"], wanted) and not more
        return Evidence("out" if back else "partial", (fact,))

    async def _read(self, ref: Ref, world: World) -> Object:
        try:
            return await world.kube.get(ref)
        except ApiError as error:
            if error.status == 404:
                if ref.uid and await world.kube.find(ref.named):
                    raise PlanError(f"{ref} was replaced by another of that name") from error
                raise PlanError(f"there is no {ref} in {world.kube.context}") from error
            raise

    async def _autoscalers(self, obj: Object, replicas: int, world: World) -> list[str]:
        """Who would set the number of replicas back under us, once it is `replicas`.

        At 0 replicas nobody would: Kubernetes' controller calls scaling disabled (ScalingDisabled in
        pkg/controller/podautoscaler/horizontal.go) but where it went down to 0 by itself (HPAScaleToZero, of
        which its condition ScaledToZero tells).
        """
        from gameday.platform.objects import Resource, condition

        meta = obj["metadata"]
        resource = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        try:
            found = await world.kube.list(resource, meta["namespace"])
        except NotServed:  # an older API server
            return []
        except ApiError as error:
            if error.status != 403:
                raise
            text = "could not be seen: allow `list horizontalpodautoscalers.autoscaling`"
            return [f"whether a HorizontalPodAutoscaler fights over the replicas of {meta['name']} {text}"]
        wakes = (
            "" if obj["spec"].get("replicas", 1) else "wakes up (at 0 replicas its scaling is disabled), and "
        )
        fights = f"{wakes}will fight over the replicas of {meta['name']}"
        target = (obj["kind"], meta["name"])
        return [
            f"HorizontalPodAutoscaler {h['metadata']['name']} {fights}"
            for h in found
            if (h["spec"]["scaleTargetRef"]["kind"], h["spec"]["scaleTargetRef"]["name"]) == target
            and (replicas or condition(h, "ScaledToZero").get("status") == "True")
        ]


def _made_by(workload: Object) -> str:
    """Who keeps a workload as it wants it, "" for nobody. Raises PlanError where that would undo the fault.

    A Deployment's controller gives its ReplicaSets the replicas that it wants (pkg/controller/deployment,
    rolling.go); of others, as prometheus-operator, nobody knows.
    """
    owner = controller(workload)
    if owner is None:
        return ""
    if (owner["kind"], workload["kind"]) == ("Deployment", "ReplicaSet"):
        raise PlanError(
            f"{Ref.of(workload)}: Deployment {owner['name']} sets its replicas back at once: scale "
            f"deployment/{owner['name']}"
        )
    return f"{owner['kind']} {owner['name']} made it"


async def resized(ref: Ref, workload: Object, replicas: int, world: World) -> tuple[Effect, ...]:
    """What another number of replicas does: new pods take GPUs and room as lost ones give them up."""
    from gameday.faults.lost import claims_scaled_away  # late: not loaded to validate a file

    more = replicas - int(workload["spec"].get("replicas", 1))
    template = await template_of(workload, world)
    held = gpus(template) * abs(more)
    claims = await claims_scaled_away(workload, replicas, world.kube)
    if more <= 0:
        return (Effect(Kind.WORKLOAD, ref, "", gpus=held, pods=-more, ends=True), *claims)
    started = Effect(Kind.WORKLOAD, ref, f"starts {plural(more, 'pod')}", gpus=held, pods=more)
    return (started, *claims, *await preemption(world.kube, ref, template))


def _ref(spec: ScaleSpec) -> Ref:
    kind, _, name = spec.workload.partition("/")
    return Ref("apps/v1", _KINDS[kind.lower()], name, spec.namespace)
