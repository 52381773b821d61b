"""Drift: somebody changes a live object by hand. Does Argo CD notice, does it correct it, and how soon?"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gameday.experiment.model import DNSLabel, EndingSpec, Line
from gameday.experiment.values import checked
from gameday.extend import Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.argocd_rollback import ROLLED
from gameday.faults.nodes import node_victim
from gameday.faults.pods import check_namespaces
from gameday.faults.scale import resized
from gameday.faults.workloads import workload_victim
from gameday.ledger.edits import Edit, same
from gameday.ledger.operations import Patch
from gameday.platform.effect import Effect, Kind, of_victim
from gameday.platform.kinds import check_object
from gameday.platform.objects import Object, Ref
from gameday.platform.preemption import NEEDS
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.faults.argocd import ArgoCDSpec

LOOK = 0.2  # seconds between looks
# Fields of a workload's spec that change how its next rollout goes, and no pod. revisionHistoryLimit is none
# of them: a smaller one deletes old revisions, which no undo brings back.
HARMLESS = ("minReadySeconds", "progressDeadlineSeconds", "strategy")
_PART = re.compile(r"([^.\[\]]+)(?:\[([^.\[\]=]+)=([^\[\]]+)\])?")


class DriftSpec(EndingSpec):
    """Which field of which live object, and what it is to be."""

    resource: Annotated[str, checked(check_object)] = Field(
        description="The object, as `deployment/inference` or `configmap/settings`."
    )
    namespace: DNSLabel = Field(description="Its namespace.")
    path: Line = Field(
        description="The field: `spec.replicas`, `spec.template.spec.containers[name=server].image`, or with "
        "slashes where a name has dots: `/metadata/labels/app.kubernetes.io~1name`."
    )
    value: Any = Field(description="What it is to be; null takes it away.")


class Drift(Fault["ArgoCDSpec"]):
    """A live field is changed, and put back at the end if nobody did so before."""

    async def plan(self, spec: ArgoCDSpec, world: World) -> FaultPlan[ArgoCDSpec]:
        from gameday.platform.argocd import NoArgoCD, applications, automated, owner_in
        from gameday.platform.kinds import find_resource

        wanted = _wanted(spec)
        check_namespaces([wanted.namespace], world)
        obj = await _object(wanted, world)
        try:
            known = await applications(world.kube)
        except NoArgoCD as error:
            raise PlanError(str(error)) from error
        owner = owner_in(obj, known)
        if owner is None:
            raise PlanError(
                f"no Application deploys {Ref.of(obj)}: Argo CD will never notice that it changes"
                f"{_of_other_clusters(obj, known)}"
            )
        edit = field(wanted.path, wanted.value)
        _check_metadata(edit)
        before = edit.read(obj)
        if same(before, wanted.value):
            raise PlanError(
                f"{Ref.of(obj)}: {edit.name} is {edit.shown(before)} already: nothing would change"
            )
        policy = automated(owner) or {}
        resource = await find_resource(world.kube, wanted.resource.partition("/")[0])
        verb = (
            "notice and correct" if policy.get("selfHeal") else "notice, and not correct (self-heal is off),"
        )
        return FaultPlan(
            spec,
            (await _victim(obj, edit, world),),
            changes=(
                f"change {Ref.of(obj)}: {replace(edit, before=before)}; {Ref.of(owner)} is to {verb} it",
            ),
            needs=(
                f"patch {resource.plural}{'.' + resource.group if resource.group else ''} {wanted.namespace}"
                f" {obj['metadata']['name']}",
                *((NEEDS,) if _sizes(obj, edit) else ()),
            ),
            basis={
                f"{Ref.of(obj)}: {edit.name}": edit.shown(before),
                f"{Ref.of(obj)}: its Application": str(Ref.of(owner)),
            },
            data={
                "application": Ref.of(owner).to_data(),
                "before": before,
                "heals": bool(policy.get("selfHeal")),
            },
        )

    async def effects(self, plan: FaultPlan[ArgoCDSpec], world: World) -> tuple[Effect, ...]:
        """The pods that the object loses or starts; what else may follow must be allowed by name."""
        victim = plan.victims[0]
        if victim.role == "node":  # counted as a whole; DaemonSets and others choose nodes by their labels
            return (_whatever_follows(victim.ref, _edit(plan)),)
        if victim.ref.namespace is None:
            return (Effect(Kind.CLUSTER_SCOPED, victim.ref, "drifts, for the whole cluster"),)
        obj = await _object(_wanted(plan.spec), world)
        edit = _edit(plan)
        if _sizes(obj, edit):
            return await resized(victim.ref, obj, edit.after, world)
        now = await _victim(obj, edit, world)
        itself = of_victim(replace(now, ref=victim.ref), ends=bool(now.pods))
        if is_counted(obj, edit):
            return (itself,)
        return (itself, _whatever_follows(victim.ref, edit))

    async def inject(self, plan: FaultPlan[ArgoCDSpec], step: Step) -> None:
        step.record(since=time.monotonic())
        edit = replace(_edit(plan), before=plan.data["before"])
        await step.ledger.perform([await Patch.of(step.kube, plan.victims[0].ref, edit)])

    async def hold(self, plan: FaultPlan[ArgoCDSpec], step: Step, seconds: float) -> None:
        """Measure until it is corrected, or the hold is over."""
        from gameday.platform.errors import PlatformError

        edit, before = _edit(plan), plan.data["before"]
        ref, application = plan.victims[0].ref, Ref.from_data(plan.data["application"])
        noticed, end = False, time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(PlatformError):  # the API is away: the fault stays, and so do we
                obj, owner = await asyncio.gather(step.kube.find(ref), step.kube.find(application))
                value = edit.read(obj or {})
                if not noticed and (same(value, before) or _out_of_sync(owner, ref)):
                    noticed = True
                    _tell(f"Argo CD noticed the drift of {edit.name} after {_passed(step)}", step)
                if same(value, before):
                    _tell(f"Argo CD corrected the drift of {edit.name} after {_passed(step)}", step)
                    return
                if not same(value, edit.after) and not edit.strayed(obj or {}, [edit]):
                    _tell(f"somebody else ended the drift of {edit.name} after {_passed(step)}", step)
                    return
            await asyncio.sleep(LOOK)
        what = "did not correct" if noticed else "did not notice"
        _tell(f"Argo CD {what} the drift of {edit.name} within {_passed(step)}", step)

    def may_lose(self, spec: ArgoCDSpec) -> bool:
        return _wanted(spec).force

    def settle_within(self, spec: ArgoCDSpec) -> float:
        return 60.0

    async def settled(self, plan: FaultPlan[ArgoCDSpec], injected: Injected, world: World) -> Evidence:
        """In while the field holds our value; put right as soon as it does not, by whomever."""
        ref = plan.victims[0].ref
        edit, measured = _edit(plan), injected.data.get("measured", ())
        obj = await world.kube.find(ref)
        if obj is None:
            return Evidence("out", (f"{ref} is gone", *measured))
        if edit.strayed(obj, [edit]):
            where = f"another item holds {edit.shown(edit.after)}"
            return Evidence("partial", (f"{ref}: {edit.name} is not there any more, but {where}", *measured))
        value = edit.read(obj)
        state = "in" if same(value, edit.after) else "over"
        return Evidence(state, (f"{ref}: {edit.name} is {edit.shown(value)}", *measured))


def _wanted(spec: ArgoCDSpec) -> DriftSpec:
    assert spec.drift is not None
    return spec.drift


def _edit(plan: FaultPlan[ArgoCDSpec]) -> Edit:
    wanted = _wanted(plan.spec)
    return field(wanted.path, wanted.value)


def _passed(step: Step) -> str:
    """Since the change."""
    return f"{time.monotonic() - step.injected.data['since']:.1f} s"


def _tell(text: str, step: Step) -> None:
    """Say what was measured, now and in the evidence."""
    from gameday.events import Progress

    step.record(measured=[*step.injected.data.get("measured", ()), text])
    step.emit(Progress(step=step.world.step, message=text))


def field(path: str, value: Any) -> Edit:
    """The edit of a field by its path. Raises PlanError for one that can't be understood."""
    if path.startswith("/"):
        parts = [p.replace("~1", "/").replace("~0", "~") for p in path[1:].split("/")]
        return Edit(tuple(parts), value)
    outer: list[str] = []
    inside: list[str] = []
    item: tuple[tuple[str, Any], ...] = ()
    for part in re.split(r"\.(?![^\[]*\])", path.strip().removeprefix("{").removesuffix("}").lstrip(".")):
        match = _PART.fullmatch(part)
        if match is None or (item and match[2]):
            raise PlanError(
                f"{path!r} is not a path to a field, as spec.replicas or spec.ports[name=http].port"
            )
        (inside if item else outer).append(match[1])
        if match[2]:
            item = ((match[2], match[3]),)
    return Edit(tuple(outer), value, item=item, inside=tuple(inside))


async def _object(wanted: Any, world: World) -> Object:
    from gameday.platform.errors import PlatformError
    from gameday.platform.kinds import find_resource

    kind, _, name = wanted.resource.partition("/")
    try:
        resource = await find_resource(world.kube, kind)
    except PlatformError as error:
        raise PlanError(f"drift: {error}") from error
    if resource.kind == "Secret":
        raise PlanError(
            f"drift: {wanted.resource} is a Secret, whose value would have to be written down: "
            "choose another object"
        )
    ref = Ref(resource.api_version, resource.kind, name, wanted.namespace if resource.namespaced else None)
    obj = await world.kube.find(ref)
    if obj is None:
        raise PlanError(f"there is no {ref} in {world.kube.context}")
    return obj


def _check_metadata(edit: Edit) -> None:
    """Raises PlanError for what decides whether the object itself, and all that it owns, goes on existing."""
    if edit.path[0] == "metadata" and edit.path[1:2] not in (("labels",), ("annotations",)):
        raise PlanError(
            f"drift: {edit.name} decides what becomes of the object and of what it owns; of the metadata, "
            "only labels and annotations may drift"
        )


def _sizes(obj: Object, edit: Edit) -> bool:
    """Whether the number of a workload's pods drifts."""
    return obj["kind"] in ROLLED and edit.path == ("spec", "replicas") and isinstance(edit.after, int)


def _whatever_follows(ref: Ref, edit: Edit) -> Effect:
    return Effect(Kind.OTHER, ref, f"what follows from a drift of {edit.name}")


def is_counted(obj: Object, edit: Edit) -> bool:
    """Whether all that follows is known: nothing of labels, annotations, data and how a rollout goes.

    Of a custom resource nothing is known: operators scale and restart by annotations, too.
    """
    group = obj["apiVersion"].rpartition("/")[0]
    custom = "." in group and not group.endswith(".k8s.io")
    if edit.path[0] == "metadata":
        return not custom and obj["kind"] != "Pod"  # one that no selector finds any more gets a successor
    if obj["kind"] == "ConfigMap":
        return True
    if obj["kind"] not in ROLLED or edit.path[0] != "spec":
        return False
    return _rolls(edit) or _pauses(edit) or (not custom and edit.path[1] in HARMLESS)


def _rolls(edit: Edit) -> bool:
    """Whether a rollout may follow, of the template that drifts or of one that waited until now."""
    return edit.path[:2] in (("spec", "template"), ("spec", "workloadRef")) or (
        edit.path[:2] == ("spec", "paused") and not edit.after
    )


def _pauses(edit: Edit) -> bool:
    return edit.path == ("spec", "paused") and edit.after is True


async def _victim(obj: Object, edit: Edit, world: World) -> Victim:
    """The object; with the pods that it loses, where they are replaced or fewer than before."""
    if obj["kind"] == "Node" and obj["apiVersion"] == "v1":
        return node_victim(obj)
    if obj["kind"] not in ROLLED:
        return Victim(Ref.of(obj), "object")
    if _rolls(edit):
        return await workload_victim(obj, world)
    if _sizes(obj, edit):
        return await workload_victim(obj, world, abs(int(obj["spec"].get("replicas", 1)) - edit.after))
    return Victim(Ref.of(obj), "workload")


def _of_other_clusters(obj: Object, known: list[Object]) -> str:
    """Which Applications deploy an object of that name, and not here; "" without one."""
    from gameday.platform.argocd import elsewhere, lists

    named = [f"{Ref.of(a)} (to {elsewhere(a)})" for a in known if elsewhere(a) and lists(a, obj)]
    return f"; one of that name is deployed to another cluster by {', '.join(named)}" if named else ""


def _out_of_sync(application: Object | None, ref: Ref) -> bool:
    from gameday.platform.argocd import identity, status_of

    wanted = (ref.api_version.rpartition("/")[0], ref.kind, ref.namespace or "", ref.name)
    entries = status_of(application or {}).get("resources") or ()
    return any(identity(r) == wanted and r.get("status") == "OutOfSync" for r in entries)
