"""Drift: somebody changes a live object by hand. Does Argo CD notice, does it correct it, and how soon?"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gameday.experiment.model import DNSLabel, Spec, Text
from gameday.faults.argocd_rollback import ROLLED, workload_victim
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.pods import check_namespaces
from gameday.ledger.operations import Edit, Patch
from gameday.platform.objects import Object, Ref, gpus
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger

LOOK = 0.2  # seconds between looks
_PART = re.compile(r"([^.\[\]]+)(?:\[([^.\[\]=]+)=([^\[\]]+)\])?")


class DriftSpec(Spec):
    """Which field of which live object, and what it is to be."""

    resource: Text = Field(description="The object, as `deployment/inference` or `configmap/settings`.")
    namespace: DNSLabel = Field(description="Its namespace.")
    path: Text = Field(
        description="The field: `spec.replicas`, `spec.template.spec.containers[name=server].image`, or with "
        "slashes where a name has dots: `/metadata/labels/app.kubernetes.io~1name`."
    )
    value: Any = Field(description="What it is to be; null takes it away.")


class Drift:
    """A live field is changed, and put back at the end if nobody did so before."""

    def __init__(self) -> None:
        self._measured: tuple[str, ...] = ()
        self._since = 0.0  # time.monotonic() of the change

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        from gameday.platform.argocd import NoArgoCD, applications, automated, owner_in
        from gameday.platform.kinds import find_resource

        wanted = spec.drift
        check_namespaces([wanted.namespace], world)
        obj = await _object(wanted, world)
        try:
            owner = owner_in(obj, await applications(world.kube))
        except NoArgoCD as error:
            raise PlanError(str(error)) from error
        if owner is None:
            raise PlanError(
                f"no Application deploys {Ref.of(obj)}: Argo CD will never notice that it changes"
            )
        edit = field(wanted.path, wanted.value)
        before = edit.read(obj)
        if before == wanted.value:
            raise PlanError(f"{Ref.of(obj)}: {edit.name} is {before!r} already: nothing would change")
        policy = automated(owner) or {}
        resource = await find_resource(world.kube, wanted.resource.partition("/")[0])
        verb = (
            "notice and correct" if policy.get("selfHeal") else "notice, and not correct (self-heal is off),"
        )
        return FaultPlan(
            spec,
            (_victim(obj, edit, before),),
            changes=(
                f"change {Ref.of(obj)}: {replace(edit, before=before)}; {Ref.of(owner)} is to {verb} it",
            ),
            needs=(
                f"patch {resource.plural}{'.' + resource.group if resource.group else ''} {wanted.namespace}",
            ),
            data={
                "application": Ref.of(owner).to_data(),
                "before": before,
                "heals": bool(policy.get("selfHeal")),
            },
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        wanted = plan.spec.drift
        edit = field(wanted.path, wanted.value)
        self._since = time.monotonic()
        await ledger.perform([await Patch.of(world.kube, plan.victims[0].ref, edit)])

    async def hold(self, plan: FaultPlan, world: World, seconds: float) -> None:
        """Measure until it is corrected, or the hold is over."""
        from gameday.platform.errors import PlatformError

        edit, before = field(plan.spec.drift.path, plan.spec.drift.value), plan.data["before"]
        ref, application = plan.victims[0].ref, Ref.from_data(plan.data["application"])
        noticed, end = False, time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(PlatformError):  # the API is away: the fault stays, and so do we
                obj, owner = await asyncio.gather(world.kube.find(ref), world.kube.find(application))
                value = edit.read(obj or {})
                if not noticed and (value == before or _out_of_sync(owner, ref)):
                    noticed = True
                    self._tell(f"Argo CD noticed the drift of {edit.name} after {self._passed}", world)
                if value == before:
                    self._tell(f"Argo CD corrected the drift of {edit.name} after {self._passed}", world)
                    return
                if value != edit.after:
                    self._tell(f"somebody else ended the drift of {edit.name} after {self._passed}", world)
                    return
            await asyncio.sleep(LOOK)
        what = "did not correct" if noticed else "did not notice"
        self._tell(f"Argo CD {what} the drift of {edit.name} within {self._passed}", world)

    @property
    def _passed(self) -> str:
        return f"{time.monotonic() - self._since:.1f} s"

    def _tell(self, text: str, world: World) -> None:
        from gameday.events import Progress

        self._measured = (*self._measured, text)
        world.emit(Progress(step=world.step, message=text))

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In while the field holds our value; put right as soon as it does not, by whomever."""
        ref = plan.victims[0].ref
        edit = field(plan.spec.drift.path, plan.spec.drift.value)
        obj = await world.kube.find(ref)
        if obj is None:
            return Evidence("out", (f"{ref} is gone", *self._measured))
        value = edit.read(obj)
        state = "in" if value == edit.after else "over"
        return Evidence(state, (f"{ref}: {edit.name} is {value!r}", *self._measured))


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

    kind, slash, name = wanted.resource.partition("/")
    if not slash or not name:
        raise PlanError(f"drift: {wanted.resource!r} is not kind/name, as deployment/inference")
    try:
        resource = await find_resource(world.kube, kind)
    except PlatformError as error:
        raise PlanError(f"drift: {error}") from error
    ref = Ref(resource.api_version, resource.kind, name, wanted.namespace)
    obj = await world.kube.find(ref)
    if obj is None:
        raise PlanError(f"there is no {ref} in {world.kube.context}")
    return {"apiVersion": ref.api_version, "kind": ref.kind} | obj


def _victim(obj: Object, edit: Edit, before: Any) -> Victim:
    """The object; with the pods that it loses, where they are replaced or fewer than before."""
    if obj["kind"] not in ROLLED:
        return Victim(Ref.of(obj), "object")
    if edit.path[:2] == ("spec", "template"):
        return workload_victim(obj)
    if edit.path == ("spec", "replicas") and isinstance(edit.after, int):
        lost = max(int(before or 1) - edit.after, 0)
        return Victim(
            Ref.of(obj), "workload", gpus=gpus({"spec": obj["spec"]["template"]["spec"]}) * lost, pods=lost
        )
    return Victim(Ref.of(obj), "workload")


def _out_of_sync(application: Object | None, ref: Ref) -> bool:
    from gameday.platform.argocd import identity, status_of

    wanted = (ref.api_version.rpartition("/")[0], ref.kind, ref.namespace or "", ref.name)
    entries = status_of(application or {}).get("resources") or ()
    return any(identity(r) == wanted and r.get("status") == "OutOfSync" for r in entries)
