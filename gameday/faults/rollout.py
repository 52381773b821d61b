"""The `rollout` fault: an update by Argo Rollouts is aborted, undone, paused or promoted.

What each changes is what `kubectl argo rollouts` of 1.9 changes (pkg/kubectl-argo-rollouts/cmd there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, ObjectName, PositiveDuration, Spec
from gameday.experiment.problems import did_you_mean
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.pods import check_namespaces
from gameday.ledger.operations import Edit, Patch
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, Resource, gpus
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger

API_VERSION = "argoproj.io/v1alpha1"
ROLLOUTS = Resource(API_VERSION, "Rollout", "rollouts")
REPLICA_SETS = Resource("apps/v1", "ReplicaSet", "replicasets")
HASH = "rollouts-pod-template-hash"
REVISION = "rollout.argoproj.io/revision"
AT_REST = ("Healthy", "Paused", "Degraded")


class RolloutSpec(Spec):
    """Which Rollout, and what happens to it."""

    name: ObjectName = Field(description="The Rollout's name.")
    namespace: DNSLabel = Field(description="Its namespace.")
    action: Literal["abort", "undo", "pause", "promote"] = Field(
        description="`abort` the update under way (afterwards retried from its first step), `undo` the last "
        "one (an older template, and back), `pause` it, or `promote` it past its pause (not undone)."
    )
    revision: int | None = Field(None, ge=1, description="With `undo`: the revision; else the one before.")
    full: bool = Field(False, description="With `promote`: past all steps, and not only the one it waits at.")
    settle_within: PositiveDuration = Field(300.0, description="How long it may take to get in, and out.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.revision is not None and self.action != "undo":
            raise ValueError("`revision` is for `action: undo`")
        if self.full and self.action != "promote":
            raise ValueError("`full` is for `action: promote`")
        return self


class Rollout:
    """An update by Argo Rollouts is aborted and retried, undone and redone, paused, or promoted."""

    Spec: ClassVar[type[Spec]] = RolloutSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "rollout: {name: gateway, namespace: inference, action: abort}"

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        check_namespaces([spec.namespace], world)
        rollout = await _read(spec, world)
        ref, status = Ref.of(rollout), rollout.get("status") or {}
        change, pods, data = await getattr(self, f"_{spec.action}")(spec, rollout, world)
        template = (rollout["spec"].get("template") or {}).get("spec") or {}
        resource = "rollouts.argoproj.io" + ("/status" if spec.action in ("abort", "promote") else "")
        promoted = f"{ref}: the promotion; its new pods stay" if spec.action == "promote" else ""
        return FaultPlan(
            spec,
            (Victim(ref, "workload", gpus=gpus({"spec": template}) * pods, pods=pods),),
            changes=(change,),
            irreversible=(promoted,) if promoted else (),
            needs=(f"patch {resource} {spec.namespace}",),
            data={
                "hash": status.get("currentPodHash"),
                "phase": status.get("phase"),
                "step": status.get("currentStepIndex", 0),
                **data,
            },
        )

    # -- what each action means: its words, the pods that it replaces, and data for later ----------

    async def _pause(self, spec: Any, rollout: Object, world: World) -> tuple[str, int, Object]:
        if rollout["spec"].get("paused"):
            raise PlanError(f"{Ref.of(rollout)} is paused already: nothing would change")
        return f"pause {Ref.of(rollout)}", 0, {}

    async def _abort(self, spec: Any, rollout: Object, world: World) -> tuple[str, int, Object]:
        status = rollout.get("status") or {}
        if status.get("abort"):
            raise PlanError(f"{Ref.of(rollout)} is aborted already: nothing would change")
        _check_under_way(rollout, "abort")
        words = f"abort the update of {Ref.of(rollout)}; afterwards it is retried from its first step"
        return words, int(status.get("updatedReplicas") or 0), {}

    async def _promote(self, spec: Any, rollout: Object, world: World) -> tuple[str, int, Object]:
        _check_under_way(rollout, "promote")
        if rollout["spec"].get("paused"):
            raise PlanError(f"{Ref.of(rollout)} is paused by hand (spec.paused): resume it first")
        status, far = rollout["status"], "past all its steps" if spec.full else "past the step it is at"
        left = int(rollout["spec"].get("replicas", 1)) - int(status.get("updatedReplicas") or 0)
        return f"promote the update of {Ref.of(rollout)} {far}", max(left, 0), {}

    async def _undo(self, spec: Any, rollout: Object, world: World) -> tuple[str, int, Object]:
        ref = Ref.of(rollout)
        if rollout["spec"].get("workloadRef"):
            raise PlanError(
                f"{ref} takes its template from another workload (spec.workloadRef): undo that one"
            )
        sets = await world.kube.list(REPLICA_SETS, spec.namespace)
        owned = [s for s in sets if _owned_by(s, rollout)]
        by_revision = {int(s["metadata"]["annotations"][REVISION]): s for s in owned}
        there = ", ".join(map(str, sorted(by_revision))) or "none"
        older = sorted(by_revision)[:-1]
        wanted = spec.revision or (older[-1] if older else None)
        if wanted is None:
            raise PlanError(f"{ref} has no revision before this one (there are: {there})")
        if wanted not in by_revision:
            raise PlanError(f"{ref} has no revision {wanted} (there are: {there})")
        target = by_revision[wanted]
        labels = target["metadata"]["labels"]
        if labels[HASH] == (rollout.get("status") or {}).get("currentPodHash"):
            raise PlanError(f"{ref}: revision {wanted} is what it runs: nothing would change")
        data = {"template": _template(target), "target": labels[HASH]}
        return f"undo {ref} to its revision {wanted}", int(rollout["spec"].get("replicas", 1)), data

    # ----------------------------------------------------------------------------------------------

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        from gameday.ledger.rollout import Promote

        ref, spec = plan.victims[0].ref, plan.spec
        match spec.action:
            case "pause":
                change = await Patch.of(world.kube, ref, Edit(("spec", "paused"), True))
            case "undo":
                change = await Patch.of(world.kube, ref, Edit(("spec", "template"), plan.data["template"]))
            case "abort":
                edit = Edit(("status", "abort"), True)
                change = await Patch.of(world.kube, ref, edit, subresource="status")
            case _:
                edit = _promotion(await world.kube.get(ref), full=spec.full)
                change = await Promote.of(world.kube, ref, edit, subresource="status")
        await ledger.perform([change])

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        ref, data = plan.victims[0].ref, plan.data
        rollout = await world.kube.find(ref)
        if rollout is None:
            return Evidence("out", (f"{ref} is gone",))
        status = rollout.get("status") or {}
        phase, current = status.get("phase"), status.get("currentPodHash")
        facts = (f"{ref}: {phase} {status.get('message') or ''}".rstrip(),)
        rests = phase in AT_REST and str(status.get("observedGeneration")) == str(
            rollout["metadata"].get("generation")
        )
        match plan.spec.action:
            case "pause":
                paused = bool(rollout["spec"].get("paused"))
                state = ("in" if phase == "Paused" else "partial") if paused else "out"
            case "abort":
                aborted = bool(status.get("abort"))
                state = ("in" if phase == "Degraded" else "partial") if aborted else "out"
                state = "partial" if not aborted and phase == "Degraded" else state
            case "undo":
                back = phase in ("Healthy", data["phase"])
                state = "in" if current == data["target"] else "out" if back else "partial"
                state = state if rests else "partial"
            case _:
                beyond = int(status.get("currentStepIndex") or 0) > int(data["step"] or 0)
                done = status.get("stableRS") == current
                state = "over" if done or (beyond and not plan.spec.full) else "partial"
        return Evidence(state, facts)


def _promotion(rollout: Object, *, full: bool) -> Edit:
    """The one field that a promotion changes as things stand."""
    status = rollout["status"]
    if full:
        return Edit(("status", "promoteFull"), True)
    if status.get("pauseConditions"):
        return Edit(("status", "pauseConditions"), None)
    return Edit(("status", "currentStepIndex"), int(status.get("currentStepIndex") or 0) + 1)


def _check_under_way(rollout: Object, action: str) -> None:
    status = rollout.get("status") or {}
    if status.get("currentPodHash") == status.get("stableRS"):
        phase = status.get("phase") or "no phase yet"
        raise PlanError(f"{Ref.of(rollout)} has no update under way to {action} ({phase})")


def _owned_by(replica_set: Object, rollout: Object) -> bool:
    meta = replica_set["metadata"]
    owners = {o["uid"] for o in meta.get("ownerReferences") or ()}
    return rollout["metadata"]["uid"] in owners and REVISION in (meta.get("annotations") or {})


def _template(replica_set: Object) -> Object:
    """A ReplicaSet's template as the Rollout had it: without the label that tells its pods apart."""
    template = replica_set["spec"]["template"]
    meta = {k: v for k, v in template["metadata"].items() if v is not None}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


async def _read(spec: Any, world: World) -> Object:
    ref = Ref(API_VERSION, "Rollout", spec.name, spec.namespace)
    try:
        await world.kube.resource(API_VERSION, "Rollout")
    except ApiError as error:
        if error.status != 404:
            raise
        text = "the cluster serves no Rollouts (argoproj.io/v1alpha1): is Argo Rollouts installed?"
        raise PlanError(text) from error
    found = await world.kube.find(ref)
    if found is None:
        names = [r["metadata"]["name"] for r in await world.kube.list(ROLLOUTS, spec.namespace)]
        hint = did_you_mean(spec.name, names) or f"there are: {', '.join(sorted(names)) or 'none'}"
        raise PlanError(f"there is no {ref} in {world.kube.context}: {hint}")
    return found
