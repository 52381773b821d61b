"""The `rollout` fault: an update by Argo Rollouts is aborted, undone, paused or promoted.

What each changes is what `kubectl argo rollouts` of 1.9 changes (pkg/kubectl-argo-rollouts/cmd there).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, EndingSpec, ObjectName, PositiveDuration, Spec
from gameday.experiment.problems import did_you_mean
from gameday.experiment.text import plain
from gameday.extend import Already, Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import check_namespaces
from gameday.faults.workloads import observed, workload_victim
from gameday.ledger.edits import Edit, Where
from gameday.ledger.operations import Patch
from gameday.ledger.rollout import SERVING, STEP, WHICH, ChangeVersion, Promote
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, Resource, annotations_of, labels_of
from gameday.platform.world import World

API_VERSION = "argoproj.io/v1alpha1"
ROLLOUTS = Resource(API_VERSION, "Rollout", "rollouts")
REPLICA_SETS = Resource("apps/v1", "ReplicaSet", "replicasets")
HASH = "rollouts-pod-template-hash"
REVISION = "rollout.argoproj.io/revision"
AT_REST = ("Healthy", "Paused", "Degraded")


class RolloutSpec(EndingSpec):
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


class Rollout(Fault[RolloutSpec]):
    """An update by Argo Rollouts is aborted and retried, undone and redone, paused, or promoted."""

    Spec: ClassVar[type[Spec]] = RolloutSpec
    example: ClassVar[str] = "rollout: {name: gateway, namespace: inference, action: abort}"

    async def plan(self, spec: RolloutSpec, world: World) -> FaultPlan[RolloutSpec]:
        check_namespaces([spec.namespace], world)
        rollout = await _read(spec, world)
        ref, status = Ref.of(rollout), rollout.get("status") or {}
        change, pods, data = await getattr(self, f"_{spec.action}")(spec, rollout, world)
        # For a change of the status, too: the undo of one without an answer gives the object a new version.
        changed = ["", "/status"] if spec.action in ("abort", "promote") else [""]
        irreversible = _irreversible(rollout, spec.action)
        return FaultPlan(
            spec,
            (await workload_victim(rollout, world, pods),),
            ends_pods=pods > 0,
            changes=(change,),
            irreversible=(irreversible,) if irreversible else (),
            warnings=_warnings(rollout, spec.action),
            needs=(
                *(f"patch rollouts.argoproj.io{part} {spec.namespace} {spec.name}" for part in changed),
                *_reads(rollout),
            ),
            basis=_basis(ref, status, spec)
            | ({f"{ref}: the template to go back to": data["target"]} if data else {}),
            data={
                "phase": status.get("phase"),
                "step": status.get("currentStepIndex", 0),
                "serving": await _serving(rollout, world) if _stays(rollout) else {},
                **data,
            },
        )

    # -- what each action means: its words, the pods that it replaces, and data for later ----------

    async def _pause(self, spec: RolloutSpec, rollout: Object, world: World) -> tuple[str, int, Object]:
        if rollout["spec"].get("paused"):
            raise Already(f"{Ref.of(rollout)} is paused already: nothing would change")
        return f"pause {Ref.of(rollout)}", 0, {}

    async def _abort(self, spec: RolloutSpec, rollout: Object, world: World) -> tuple[str, int, Object]:
        status = rollout.get("status") or {}
        if status.get("abort"):
            raise Already(f"{Ref.of(rollout)} is aborted already: nothing would change")
        _check_under_way(rollout, "abort")
        _check_comes_back(rollout, "abort")
        words = f"abort the update of {Ref.of(rollout)}; afterwards it is retried from its first step"
        return words, int(status.get("updatedReplicas") or 0), {}

    async def _promote(self, spec: RolloutSpec, rollout: Object, world: World) -> tuple[str, int, Object]:
        _check_under_way(rollout, "promote")
        if rollout["spec"].get("paused"):
            raise PlanError(f"{Ref.of(rollout)} is paused by hand (spec.paused): resume it first")
        status, far = rollout["status"], "past all its steps" if spec.full else "past the step it is at"
        left = int(rollout["spec"].get("replicas", 1)) - int(status.get("updatedReplicas") or 0)
        return f"promote the update of {Ref.of(rollout)} {far}", max(left, 0), {}

    async def _undo(self, spec: RolloutSpec, rollout: Object, world: World) -> tuple[str, int, Object]:
        ref = Ref.of(rollout)
        if rollout["spec"].get("workloadRef"):
            raise PlanError(
                f"{ref} takes its template from another workload (spec.workloadRef): undo that one"
            )
        _check_comes_back(rollout, "undo")
        sets = await world.kube.list(REPLICA_SETS, spec.namespace)
        owned = [s for s in sets if _owned_by(s, rollout)]
        by_revision = {int(annotations_of(s)[REVISION]): s for s in owned}
        there = ", ".join(map(str, sorted(by_revision))) or "none"
        older = sorted(by_revision)[:-1]
        wanted = spec.revision or (older[-1] if older else None)
        if wanted is None:
            raise PlanError(f"{ref} has no revision before this one (there are: {there})")
        if wanted not in by_revision:
            raise PlanError(f"{ref} has no revision {wanted} (there are: {there})")
        target = by_revision[wanted]
        labels = labels_of(target)
        if labels[HASH] == (rollout.get("status") or {}).get("currentPodHash"):
            raise PlanError(f"{ref}: revision {wanted} is what it runs: nothing would change")
        if _is_blue_green(rollout) and _waits_for_a_person(rollout):
            raise PlanError(
                f"{ref} switches to no version without a person (blueGreen.autoPromotionEnabled: false): all "
                "requests would still go to the present one; undo one that promotes by itself"
            )
        data = {"template": _template(target), "target": labels[HASH]}
        return f"undo {ref} to its revision {wanted}", int(rollout["spec"].get("replicas", 1)), data

    # ----------------------------------------------------------------------------------------------

    async def inject(self, plan: FaultPlan[RolloutSpec], step: Step) -> None:
        ref, spec = plan.victims[0].ref, plan.spec
        follows = _follows(await step.kube.get(ref))
        match spec.action:
            case "pause":
                change = await Patch.of(step.kube, ref, Edit(("spec", "paused"), True))
            case "undo":
                edit = Edit(("spec", "template"), plan.data["template"])
                change = await ChangeVersion.of(step.kube, ref, edit, follows=follows)
            case "abort":
                edit = Edit(("status", "abort"), True)
                change = await ChangeVersion.of(step.kube, ref, edit, subresource="status", follows=follows)
            case _:
                edit = _promotion(await step.kube.get(ref), full=spec.full)
                change = await Promote.of(step.kube, ref, edit)
        await step.ledger.perform([change])

    def settle_within(self, spec: RolloutSpec) -> float:
        return spec.settle_within

    async def settled(self, plan: FaultPlan[RolloutSpec], injected: Injected, world: World) -> Evidence:
        ref, data = plan.victims[0].ref, plan.data
        rollout = await world.kube.find(ref)
        if rollout is None:
            return Evidence("out", (f"{ref} is gone",))
        status = rollout.get("status") or {}
        phase, current = status.get("phase"), status.get("currentPodHash")
        facts = [f"{ref}: {phase} {status.get('message') or ''}".rstrip()]
        serving = await _serving(rollout, world)
        as_before = not data["serving"] or serving == data["serving"]
        if not as_before:
            facts.append(f"served by {_shown(serving)}, before by {_shown(data['serving'])}")
        seen = _seen(rollout)
        rests = seen and phase in AT_REST
        match plan.spec.action:
            case "pause":
                # An update that waits at a step is Paused before, and after: the phase alone says nothing.
                state = "in" if phase == "Paused" and rollout["spec"].get("paused") else "out"
                state = state if seen else "partial"
            case "abort":
                aborted, since = bool(status.get("abort")), status.get("abortedAt")
                state = ("in" if phase == "Degraded" and since else "partial") if aborted else "out"
                unfinished = phase == "Degraded" or since or not as_before
                state = "partial" if not aborted and unfinished else state
            case "undo":
                there = set(serving.values()) == {data["target"]}
                pods = int(status.get("updatedReplicas") or 0)
                if current == data["target"] and not there:
                    facts.append(f"{pods} of its {status.get('replicas') or 0} pods are the older version's")
                    there = pods > 0 and not _is_blue_green(rollout)
                back = phase in ("Healthy", data["phase"]) and as_before and current != data["target"]
                state = "in" if current == data["target"] and there else "out" if back else "partial"
                state = state if rests else "partial"
            case _:
                beyond = int(status.get("currentStepIndex") or 0) > int(data["step"] or 0)
                promoted = (Promote.from_data(m.operation) for m in injected.of(Promote.kind))
                done = status.get("stableRS") == current or any(p.replaced_in(rollout) for p in promoted)
                state = "over" if done or (beyond and not plan.spec.full) else "partial"
        return Evidence(state, tuple(facts))


# -- which version serves, and what an update waits for ------------------------------------------------


def _is_blue_green(rollout: Object) -> bool:
    return "blueGreen" in (rollout["spec"].get("strategy") or {})


def _strategy(rollout: Object) -> Object:
    strategy = rollout["spec"].get("strategy") or {}
    return strategy.get("blueGreen") or strategy.get("canary") or {}


def _waits_for_a_person(rollout: Object) -> bool:
    """Whether no update of it ends without a person: a pause without an end, or no promotion by itself."""
    strategy = _strategy(rollout)
    pauses = [s["pause"] or {} for s in strategy.get("steps") or () if "pause" in s]
    return strategy.get("autoPromotionEnabled") is False or any(p.get("duration") is None for p in pauses)


def _stays(rollout: Object) -> bool:
    """Whether the version that serves now has to serve after an undo: no update replaces it by itself."""
    status = rollout.get("status") or {}
    return status.get("currentPodHash") == status.get("stableRS") or _waits_for_a_person(rollout)


async def _serving(rollout: Object, world: World) -> Object:
    """The hashes of the stable version, and of the one that the active Service selects."""
    serving = {"status.stableRS": (rollout.get("status") or {}).get("stableRS")}
    if _is_blue_green(rollout):
        name = _strategy(rollout)["activeService"]
        service = await world.kube.find(Ref("v1", "Service", name, rollout["metadata"]["namespace"]))
        selector = ((service or {}).get("spec") or {}).get("selector") or {}
        serving[f"Service {name}"] = selector.get(HASH)
    return serving


def _reads(rollout: Object) -> tuple[str, ...]:
    """The permissions to read what serves, beside the Rollout itself."""
    namespace = rollout["metadata"]["namespace"]
    if not _is_blue_green(rollout):
        return ()
    return (f"get services {namespace} {_strategy(rollout)['activeService']}",)


def _shown(serving: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(value)} ({name})" for name, value in serving.items())


def _irreversible(rollout: Object, action: str) -> str:
    ref = Ref.of(rollout)
    if action == "promote":
        return f"{ref}: the promotion; its new pods stay"
    if action in ("abort", "undo") and _passed_a_pause(rollout):
        done = f"{rollout['status']['currentStepIndex']} of {len(_strategy(rollout)['steps'])}"
        return f"{ref}: its update has passed a pause (steps done: {done}), and starts again before that one"
    return ""


def _passed_a_pause(rollout: Object) -> bool:
    """Whether an update is under way, and beyond a pause among its steps."""
    status, steps = rollout.get("status") or {}, _strategy(rollout).get("steps") or []
    passed = steps[: int(status.get("currentStepIndex") or 0)]
    return status.get("currentPodHash") != status.get("stableRS") and any("pause" in s for s in passed)


def _warnings(rollout: Object, action: str) -> tuple[str, ...]:
    if action != "undo" or not _waits_for_a_person(rollout):
        return ()
    text = "an older version goes through the steps, too, and waits at the first pause without a duration"
    return (f"{Ref.of(rollout)}: {text}: the present one serves beside it",)


def _check_comes_back(rollout: Object, action: str) -> None:
    """Refuse to leave an update of a blue-green Rollout that is not to be promoted yet.

    Its ReplicaSet gets a deadline to be scaled down once it is left, and one that comes back with a deadline
    skips pause and analysis before the promotion (argo-rollouts 1.9, rollout/bluegreen.go,
    isBlueGreenFastTracked).
    """
    status, strategy = rollout.get("status") or {}, _strategy(rollout)
    if not _is_blue_green(rollout) or status.get("currentPodHash") == status.get("stableRS"):
        return
    why = [
        text
        for text, found in (
            ("autoPromotionEnabled: false", strategy.get("autoPromotionEnabled") is False),
            ("autoPromotionSeconds", strategy.get("autoPromotionSeconds")),
            ("prePromotionAnalysis", strategy.get("prePromotionAnalysis")),
            ("it is paused", status.get("pauseConditions")),
        )
        if found
    ]
    if why:
        raise PlanError(
            f"{Ref.of(rollout)}: its blue-green update is not to be promoted yet ({', '.join(why)}), and the "
            f"end of this {action} would promote it: Argo Rollouts lets a version that comes back skip what "
            "it waited for. Promote or abort it by hand first, or take a Rollout that promotes by itself"
        )


def _follows(rollout: Object) -> tuple[Where, ...]:
    """What has to be as before once the change is undone."""
    serving, step = SERVING if _stays(rollout) else (), (STEP,) if _passed_a_pause(rollout) else ()
    return (WHICH[0], *serving, *step)


# -- the update ----------------------------------------------------------------------------------------


def _basis(ref: Ref, status: Object, spec: RolloutSpec) -> dict[str, Any]:
    """The update that is meant; of a promotion that ends at the next step, also the step that it is from."""
    step = {f"{ref}: the step that it is at": int(status.get("currentStepIndex") or 0)}
    one_step = spec.action == "promote" and not spec.full
    return {f"{ref}: the template that it updates to": status.get("currentPodHash")} | (
        step if one_step else {}
    )


def _seen(rollout: Object) -> bool:
    """Whether the status is of the spec as it is now, and of no pause that was ended since.

    As GetRolloutPhase judges it: argo-rollouts 1.9, utils/rollout/rolloututil.go.
    """
    status = rollout.get("status") or {}
    return observed(rollout) and (bool(status.get("pauseConditions")) or not status.get("controllerPause"))


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
    owners = {o["uid"] for o in replica_set["metadata"].get("ownerReferences") or ()}
    return rollout["metadata"]["uid"] in owners and REVISION in annotations_of(replica_set)


def _template(replica_set: Object) -> Object:
    """A ReplicaSet's template as the Rollout had it: without the label that tells its pods apart."""
    template = replica_set["spec"]["template"]
    meta = {k: v for k, v in template["metadata"].items() if v is not None}
    labels = {k: v for k, v in labels_of(template).items() if k != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


async def _read(spec: RolloutSpec, world: World) -> Object:
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
