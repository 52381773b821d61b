"""Chaos Mesh: any of its kinds as a fault, on targets that are known, pinned and counted beforehand."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, Line, PositiveDuration, Spec
from gameday.experiment.text import describe
from gameday.experiment.values import checked
from gameday.extend import Evidence, Fault, FaultError, FaultPlan, Injected, PlanError, Step
from gameday.faults import chaos_evidence, chaos_manifest, chaos_targets
from gameday.faults.chaos_targets import Chosen, Targets
from gameday.faults.pods import check_namespaces
from gameday.ledger.chaos_mesh import CreateChaos
from gameday.platform.chaos_mesh import API_VERSION, PAUSE, complaints, ended, is_paused, progress
from gameday.platform.complaints import warnings_about
from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import ApiError, NotServed, PlatformError
from gameday.platform.objects import Object, Ref, Resource

if TYPE_CHECKING:
    from gameday.platform.world import World


NAME_LIMIT = 57  # Schedule and Workflow add 6 characters and use the result as a label's value


def _kind(text: str) -> None:
    if not re.fullmatch("[A-Z][A-Za-z]{0,60}", text):
        raise ValueError(f"expected a kind of Chaos Mesh, as NetworkChaos, found {describe(text)}")


class ChaosMeshSpec(Spec):
    """A fault of Chaos Mesh: its kind and its manifest's own `spec`, or a file with a whole manifest."""

    kind: Annotated[str, checked(_kind)] | None = Field(
        None, description="NetworkChaos, PodChaos, …, Schedule or Workflow."
    )
    spec: dict[str, Any] | None = Field(None, description="The manifest's own `spec`.")
    manifest: Line | None = Field(None, description="A file with a whole manifest, instead of kind and spec.")
    namespace: DNSLabel | None = Field(
        None, description="Where the object is made; else the manifest's, else the target's first namespace."
    )
    name: DNSLabel | None = Field(None, description="The object's name; else made of the run and the step.")
    force: bool = Field(
        False,
        description="Remove finalizers of an object that does not go; the fault may stay in its targets.",
    )
    lose_pods: bool = Field(
        False, description="Also end pods that nothing makes again, and delete claims that go with pods."
    )
    settle_within: PositiveDuration = Field(60.0, description="How long it may take to get in, and out.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        inline = self.kind is not None and self.spec is not None
        if inline == (self.manifest is not None) or (self.kind is None) != (self.spec is None):
            raise ValueError("expected either `kind` and `spec`, or `manifest`")
        return self


@dataclass
class _Draft:
    """The object to create, its targets, and what is to be said about it."""

    manifest: Object
    targets: Targets = field(default_factory=Targets)
    warnings: list[str] = field(default_factory=list)


class ChaosMesh(Fault[ChaosMeshSpec]):
    """Any Chaos Mesh fault. In when it says so and its pods show it; out when all that it made is gone."""

    Spec: ClassVar[type[Spec]] = ChaosMeshSpec
    loses_by: ClassVar[str] = "losePods"
    example: ClassVar[str] = (
        "chaosMesh:\n"
        "  kind: NetworkChaos\n"
        "  spec:\n"
        "    action: delay\n"
        "    mode: all\n"
        "    selector: {namespaces: [inference], labelSelectors: {app: inference}}\n"
        "    delay: {latency: 100ms}"
    )

    async def plan(self, spec: ChaosMeshSpec, world: World) -> FaultPlan[ChaosMeshSpec]:
        approved = world.approved
        document = approved.data["document"] if approved else await asyncio.to_thread(_document, spec, world)
        await _dry_run(_object(document, spec, world), world)  # from here on its shape can be relied on
        draft = await _draft(document, spec, world, approved.data.get("chosen") if approved else None)
        await _dry_run(draft.manifest, world)
        kind, targets = document["kind"], draft.targets
        return FaultPlan(
            spec,
            targets.victims,
            changes=(f"create {kind} {draft.manifest['metadata']['name']}: {targets.summary}",),
            irreversible=targets.irreversible,
            warnings=tuple(draft.warnings),
            needs=await _needs(draft.manifest, spec, world),
            ends_pods=bool(targets.ended),
            data={"document": document, "manifest": draft.manifest, "chosen": targets.chosen},
        )

    async def effects(self, plan: FaultPlan[ChaosMeshSpec], world: World) -> tuple[Effect, ...]:
        """Its object, the targets that Chaos Mesh would find now, and what can't be counted."""
        draft = await _draft(plan.data["document"], plan.spec, world, plan.data.get("chosen"))
        made = Effect(Kind.CREATED, Ref.of(draft.manifest), draft.targets.summary)
        return (made, *draft.targets.effects)

    async def inject(self, plan: FaultPlan[ChaosMeshSpec], step: Step) -> None:
        """Creates the object for the targets that are there now, the approved ones first."""
        try:
            draft = await _draft(plan.data["document"], plan.spec, step.world, plan.data.get("chosen"))
        except PlanError as error:
            raise FaultError(f"not injected, the cluster has changed since the plan: {error}") from error
        await step.world.admit(draft.targets.victims)
        step.record(pods=draft.targets.ready, containers=draft.targets.containers)
        spec, run = plan.spec, step.world.run
        await step.ledger.perform(
            [CreateChaos.of(draft.manifest, run, spec.force, within=spec.settle_within)]
        )

    def may_lose(self, spec: ChaosMeshSpec) -> bool:
        return spec.lose_pods

    def settle_within(self, spec: ChaosMeshSpec) -> float:
        return spec.settle_within

    async def settled(self, plan: FaultPlan[ChaosMeshSpec], injected: Injected, world: World) -> Evidence:
        created = injected.of(CreateChaos.kind)
        if not created:
            return Evidence("out", ("nothing was created",))
        ref, operation = created[0].ref, CreateChaos.from_data(dict(created[0].operation))
        obj = await world.kube.find(ref)
        pods = chaos_evidence.Pods.of(injected.data)
        if obj is None:
            return await pods.out(ref, str(await operation.left(world.kube)), world)
        if "deletionTimestamp" in obj["metadata"]:
            facts = (f"{ref} is being deleted: {progress(obj)}", *complaints(obj))
            seen = Evidence("partial", facts)
        elif operation.makes:
            left = await operation.left(world.kube)
            if ended(obj) and injected.data.get("wasIn") and not left.injecting:
                return await pods.over(obj, world)
            seen = await pods.made(obj, left.experiments, world)
            seen = replace(seen, noted={"wasIn": True}) if seen.state == "in" else seen
        elif ended(obj):
            return await pods.over(obj, world)
        else:
            seen = await pods.hit(obj, world)
        if seen.state == "in" or complaints(obj):
            return seen
        return replace(seen, facts=(*seen.facts, *await warnings_about(world.kube, Ref.of(obj))))


def _document(spec: ChaosMeshSpec, world: World) -> Object:
    """The manifest of the file: kind, metadata and spec, all ours to change."""
    if spec.manifest is not None:
        document = chaos_manifest.read(spec.manifest, world.folder)
    else:
        chaos_manifest.check_kind(str(spec.kind))
        document = {"kind": spec.kind, "metadata": {}, "spec": copy.deepcopy(spec.spec)}
    if is_paused(document):
        raise PlanError(f"the manifest is paused by its annotation {PAUSE}: it would never get in")
    return document


def _object(document: Object, spec: ChaosMeshSpec, world: World) -> Object:
    """The object as the file says it, with a name and a namespace."""
    namespace = spec.namespace or document["metadata"].get("namespace") or next(iter(world.namespaces), None)
    if namespace is None:
        raise PlanError("nothing says in which namespace: name one in target.namespaces")
    check_namespaces([namespace], world)
    meta = document["metadata"] | {"name": spec.name or _name(world), "namespace": namespace}
    return {"apiVersion": API_VERSION, **copy.deepcopy(document), "metadata": meta}


async def _draft(document: Object, spec: ChaosMeshSpec, world: World, keep: Chosen | None) -> _Draft:
    """The object with an end to all that lasts, for the targets that are there now. Raises PlanError."""
    manifest = _object(document, spec, world)
    warnings = chaos_manifest.set_ends(manifest["kind"], manifest["spec"], world.hold)
    chaos_manifest.keep_the_last(manifest["kind"], manifest["spec"])
    own = spec.namespace or document["metadata"].get("namespace")
    if spec.name is not None and manifest["kind"] == "Schedule":
        warnings += await _check_name(Ref.of(manifest), world)
    lives = (world.hold or 0.0) + spec.settle_within  # until it is seen in, and from then on
    targets = await chaos_targets.resolve(manifest, own, world, lives, keep)
    await chaos_targets.check_daemons(targets.on_nodes, world)
    return _Draft(manifest, targets, warnings)


def _name(world: World) -> str:
    """A name for the object: of the run and the step, short enough for the labels made from it."""
    whole = f"gameday-{world.run or 'plan'}-{world.step or '0'}".lower()
    whole = re.sub(r"[^a-z0-9]+", "-", whole).strip("-")
    if len(whole) <= NAME_LIMIT:
        return whole
    return f"{whole[: NAME_LIMIT - 9].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


async def _check_name(ref: Ref, world: World) -> list[str]:
    """Warnings; raises PlanError where another namespace has a Schedule of that name.

    Chaos Mesh finds what a Schedule made by its name alone, in every namespace (controllers/schedule/utils,
    ListActiveJobs): where one is paused, the other's experiments are, and the history of both is cut as one.
    """
    resource = await world.kube.resource(API_VERSION, ref.kind)
    try:
        found = await world.kube.list(resource, fields={"metadata.name": ref.name})
    except ApiError as error:
        if error.status != 403:
            raise
        return [f"whether another namespace has a Schedule {ref.name} could not be seen: {error.message}"]
    others = sorted({o["metadata"]["namespace"] for o in found} - {ref.namespace})
    if others:
        raise PlanError(
            f"namespace {', '.join(others)} has a Schedule {ref.name} too, and Chaos Mesh mixes up what "
            "Schedules of one name made: pausing ours would pause theirs. Give another `name`"
        )
    return []


async def _dry_run(manifest: Object, world: World) -> None:
    """Let the cluster judge the manifest by its own CRD and webhooks. Raises PlanError with its words."""
    kind = manifest["kind"]
    try:
        await world.kube.resource(API_VERSION, kind)
    except NotServed as error:
        raise PlanError(
            f"Chaos Mesh does not serve {kind} here: install it, or check the kind's name ({error.message})"
        ) from error
    try:
        await world.kube.dry_run(manifest)
    except ApiError as error:
        if error.status == 409:
            raise PlanError(
                f"{kind} {manifest['metadata']['name']} is there already: give another `name`"
            ) from error
        raise PlanError(f"the cluster refuses the {kind}: {error}") from error
    except PlatformError as error:
        raise PlanError(f"the {kind} cannot be checked: {error}") from error


async def _needs(manifest: Object, spec: ChaosMeshSpec, world: World) -> tuple[str, ...]:
    """What may be made must also be seen and taken away again."""
    place = manifest["metadata"]["namespace"]
    operation = CreateChaos.of(manifest, "", spec.force)
    wanted = [("create get list delete", manifest["kind"], place)]
    if spec.force or operation.makes:
        wanted.append(("patch", manifest["kind"], place))
    for kind in operation.makes:
        stopped = spec.force or kind == "Workflow"
        wanted.append(("list patch" if stopped else "list", kind, place))
    wanted += [("list patch", kind, space) for kind in operation.books for space in operation.spaces]
    found: dict[str, None] = {}
    for verbs, kind, space in wanted:
        if (resource := await _served(kind, world)) is not None:
            found |= {f"{v} {resource.plural}.{resource.group} {space}": None for v in verbs.split()}
    return tuple(found)


async def _served(kind: str, world: World) -> Resource | None:
    try:
        return await world.kube.resource(API_VERSION, kind)
    except NotServed:
        return None  # an older Chaos Mesh has no such kind
