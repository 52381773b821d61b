"""Chaos Mesh: any of its kinds as a fault, on targets that are known, pinned and counted beforehand."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, PositiveDuration, Spec, Text
from gameday.faults import chaos_manifest, chaos_targets
from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.faults.chaos_targets import Targets
from gameday.ledger.operations import Create
from gameday.platform.chaos_mesh import API_VERSION, PAUSE, complaints, progress, started
from gameday.platform.complaints import warnings_about
from gameday.platform.errors import ApiError, PlatformError, not_found
from gameday.platform.objects import Object, Ref, is_ready

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.world import World


NAME_LIMIT = 57  # Schedule and Workflow add 6 characters and use the result as a label's value


class ChaosMeshSpec(Spec):
    """A fault of Chaos Mesh: its kind and its manifest's own `spec`, or a file with a whole manifest."""

    kind: Text | None = Field(None, description="NetworkChaos, PodChaos, …, Schedule or Workflow.")
    spec: dict[str, Any] | None = Field(None, description="The manifest's own `spec`.")
    manifest: Text | None = Field(None, description="A file with a whole manifest, instead of kind and spec.")
    namespace: DNSLabel | None = Field(
        None, description="Where the object is made; else the manifest's, else the target's first namespace."
    )
    name: DNSLabel | None = Field(None, description="The object's name; else made of the run and the step.")
    force: bool = Field(
        False,
        description="Remove finalizers of an object that does not go; the fault may stay in its targets.",
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


class ChaosMesh:
    """Any Chaos Mesh fault. In when it says AllInjected; out when its object is gone and its pods well."""

    Spec: ClassVar[type[Spec]] = ChaosMeshSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = (
        "chaosMesh:\n"
        "  kind: NetworkChaos\n"
        "  spec:\n"
        "    action: delay\n"
        "    mode: all\n"
        "    selector: {namespaces: [inference], labelSelectors: {app: inference}}\n"
        "    delay: {latency: 100ms}"
    )

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        document = await asyncio.to_thread(_document, spec, world)
        await _dry_run(_object(document, spec, world), world)  # from here on its shape can be relied on
        draft = await _draft(document, spec, world)
        await _dry_run(draft.manifest, world)
        kind, targets = document["kind"], draft.targets
        return FaultPlan(
            spec,
            targets.victims,
            changes=(f"create {kind} {draft.manifest['metadata']['name']}: {targets.summary}",),
            irreversible=targets.irreversible,
            warnings=(*draft.warnings, *targets.warnings),
            needs=await _needs(draft.manifest, spec, world),
            ends_pods=targets.ends_pods,
            data={"document": document, "manifest": draft.manifest},
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        """Creates the object for the targets that are there now, the approved ones first."""
        keep = {v.ref.uid for v in plan.victims if v.ref.uid}
        try:
            draft = await _draft(plan.data["document"], plan.spec, world, keep)
        except PlanError as error:
            raise FaultError(f"not injected, the cluster has changed since the plan: {error}") from error
        world.admit(draft.targets.victims)
        plan.data.update(manifest=draft.manifest, pods=draft.targets.ready)
        inner = draft.manifest["kind"] in ("Schedule", "Workflow")
        options = {"within": plan.spec.settle_within, "propagation": "Foreground" if inner else "Background"}
        await ledger.perform([Create.of(draft.manifest, ledger.run, plan.spec.force, **options)])

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        ref = Ref.of(plan.data["manifest"])
        obj = await world.kube.find(ref)
        if obj is None:
            return await _out(ref, plan.data.get("pods", []), world)
        if "deletionTimestamp" in obj["metadata"]:
            why = [f"{ref} is being deleted: {progress(obj)}"]
        elif started(obj):
            return Evidence("in", (f"{ref}: {_evidence(obj)}",))
        else:
            why = [f"{ref}: {progress(obj)}"]
        said = complaints(obj) or await warnings_about(world.kube, Ref.of(obj))
        return Evidence("partial", (*why, *said))


def _document(spec: ChaosMeshSpec, world: World) -> Object:
    """What the file says: kind, metadata and spec, all ours to change."""
    if spec.manifest is not None:
        document = chaos_manifest.read(spec.manifest, world.folder)
    else:
        chaos_manifest.check_kind(str(spec.kind))
        document = {"kind": spec.kind, "metadata": {}, "spec": copy.deepcopy(spec.spec)}
    if (document["metadata"].get("annotations") or {}).get(PAUSE) == "true":
        raise PlanError(f"the manifest is paused by its annotation {PAUSE}: it would never get in")
    return document


def _object(document: Object, spec: ChaosMeshSpec, world: World) -> Object:
    """The object as the file says it, with a name and a namespace."""
    namespace = spec.namespace or document["metadata"].get("namespace") or next(iter(world.namespaces), None)
    if namespace is None:
        raise PlanError("nothing says in which namespace: name one in target.namespaces")
    meta = document["metadata"] | {"name": spec.name or _name(world), "namespace": namespace}
    return {"apiVersion": API_VERSION, **copy.deepcopy(document), "metadata": meta}


async def _draft(document: Object, spec: ChaosMeshSpec, world: World, keep: Collection[str] = ()) -> _Draft:
    """The object with an end to all that lasts, for the targets that are there now. Raises PlanError."""
    manifest = _object(document, spec, world)
    warnings = chaos_manifest.set_ends(manifest["kind"], manifest["spec"], world.hold)
    own = spec.namespace or document["metadata"].get("namespace")
    targets = await chaos_targets.resolve(manifest, own, world, keep)
    await chaos_targets.check_daemons(targets.on_nodes, world)
    return _Draft(manifest, targets, warnings)


def _name(world: World) -> str:
    """A name for the object: of the run and the step, short enough for the labels made from it."""
    whole = f"gameday-{world.run or 'plan'}-{world.step or '0'}".lower()
    whole = re.sub(r"[^a-z0-9]+", "-", whole).strip("-")
    if len(whole) <= NAME_LIMIT:
        return whole
    return f"{whole[: NAME_LIMIT - 9].rstrip('-')}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


async def _dry_run(manifest: Object, world: World) -> None:
    """Let the cluster judge the manifest by its own CRD and webhooks. Raises PlanError with its words."""
    kind = manifest["kind"]
    try:
        await world.kube.resource(API_VERSION, kind)
    except ApiError as error:
        if not not_found(error):
            raise
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
    resource = await world.kube.resource(API_VERSION, manifest["kind"])
    what = f"{resource.plural}.{resource.group} {manifest['metadata']['namespace']}"
    return tuple(f"{verb} {what}" for verb in ("create", "get", "delete", *(["patch"] if spec.force else [])))


def _evidence(obj: Object) -> str:
    status = obj.get("status", {})
    match obj["kind"]:
        case "Schedule":
            active = ", ".join(r.get("name", "") for r in status.get("active") or ()) or "none"
            return f"last fired {status.get('time') or 'just now'}, active: {active}"
        case "Workflow":
            return f"running since {status.get('startTime') or 'just now'}"
    return f"AllInjected, {progress(obj)}"


async def _out(ref: Ref, pods: list[Object], world: World) -> Evidence:
    """Out once the targets that were ready, and still exist, are ready again."""
    found = await asyncio.gather(*(world.kube.find(Ref.from_data(p)) for p in pods))
    unready = [Ref.of(p) for p in found if p is not None and not is_ready(p)]
    if unready:
        facts = tuple(f"{pod} was ready before and is not ready yet" for pod in unready[:5])
        return Evidence("partial", (f"{ref} is gone", *facts))
    left = sum(p is not None for p in found)
    return Evidence("out", (f"{ref} is gone", f"{left} target pods are as before"))
