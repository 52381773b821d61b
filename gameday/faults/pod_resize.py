"""Pod resize: running pods get less CPU or memory, in place, and back.

The semantics are Kubernetes' own (in-place pod resize, GA in 1.35):
https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, LabelSelector, Pick, Spec
from gameday.experiment.quantity import parse_quantity
from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.faults.pods import pick_pods, pod_victim, pods_now
from gameday.ledger.operations import Edit, Patch
from gameday.platform.amounts import Amount, amount
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, condition
from gameday.platform.world import World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger

SUBRESOURCE = "resize"


class PodResizeSpec(Spec):
    """Which pods, and how much is left to their containers."""

    selector: LabelSelector = Field(description="The pods, by label selector.")
    namespace: DNSLabel = Field(description="Their namespace.")
    pick: Pick = Field(1, description="How many of them: a number, a share such as 20%, or `all`.")
    container: DNSLabel | None = Field(None, description="The container; else all of the pod's.")
    cpu: Amount | None = Field(None, description="CPU that is left: `500m`, `2`, or a share such as 50%.")
    memory: Amount | None = Field(
        None, description="Memory that is left: `512Mi`, `1Gi`, or a share such as 50%."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.cpu is None and self.memory is None:
            raise ValueError("expected `cpu`, `memory` or both")
        return self


class PodResize:
    """Containers' requests and limits are lowered in running pods; put back where they are still ours."""

    Spec: ClassVar[type[Spec]] = PodResizeSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "podResize: {selector: app=inference, namespace: inference, pick: 2, cpu: 50%}"

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        await _check_served(world)
        pods = await pick_pods(spec, world)
        edits = {p["metadata"]["name"]: _edits(p, spec) for p in pods}
        refused = await asyncio.gather(*(_refusal(p, edits[p["metadata"]["name"]], world) for p in pods))
        if any(refused):
            raise PlanError("; ".join(r for r in refused if r))
        return FaultPlan(
            spec,
            tuple(pod_victim(p) for p in pods),
            changes=tuple(f"resize pod {spec.namespace}/{n}: {_words(es)}" for n, es in edits.items()),
            needs=(f"patch pods/{SUBRESOURCE} {spec.namespace}",),
            warnings=tuple(dict.fromkeys(w for p in pods for w in _warnings(p, spec))),
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        pods = await pods_now(plan, world)
        asked = [(pod_victim(p).ref, _edits(p, plan.spec)) for p in pods]
        patches = await asyncio.gather(
            *(Patch.of(world.kube, ref, *edits, subresource=SUBRESOURCE) for ref, edits in asked)
        )
        resized = [p for p in patches if p is not None]
        plan.data["pods"] = [p.ref.to_data() for p in resized]
        plan.data["resized"] = {
            p.ref.uid: [[e.item[0][1], *e.inside[1:], e.after] for e in p.edits] for p in resized
        }
        await ledger.perform(resized)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """By what the kubelet reports of each container, not by what was asked for."""
        refs = [Ref.from_data(data) for data in plan.data.get("pods", ())]
        pods = await asyncio.gather(*(world.kube.find(r) for r in refs))
        facts, states = [], set()
        for ref, pod in zip(refs, pods, strict=True):
            if pod is None or "deletionTimestamp" in pod["metadata"]:
                facts.append(f"{ref} is gone; its successor has what its controller says")
                continue
            state, fact = _state(ref, pod, plan)
            states.add(state)
            facts.append(fact)
        state = states.pop() if len(states) == 1 else "partial" if states else "out"
        return Evidence(state, tuple(facts))


async def _check_served(world: World) -> None:
    from pydantic_core import from_json

    listed = from_json(await world.kube.request("GET", "/api/v1", verb="discover", what="v1"))
    if not any(r["name"] == f"pods/{SUBRESOURCE}" for r in listed["resources"]):
        raise PlanError(
            f"{world.kube.context} serves no pods/{SUBRESOURCE}: pods are resized in place from Kubernetes "
            f"1.33 on, and this is {await world.kube.version()}"
        )


def _edits(pod: Object, spec: Any) -> list[Edit]:
    """What is to change in a pod. Raises PlanError where nothing would become less."""
    name = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
    containers = [c for c in pod["spec"]["containers"] if spec.container in (None, c["name"])]
    if not containers:
        there = ", ".join(c["name"] for c in pod["spec"]["containers"])
        raise PlanError(f"{name} has no container {spec.container}, only {there}")
    edits = [edit for c in containers for edit in _of_container(c, spec)]
    larger = [e for e in edits if parse_quantity(e.after) > parse_quantity(e.before)]
    if larger:
        raise PlanError(f"{name}: {larger[0]} would be more; podResize takes away")
    less = [e for e in edits if parse_quantity(e.after) < parse_quantity(e.before)]
    if not less:
        raise PlanError(f"{name} has no request and no limit that would become less: nothing would change")
    return less


def _of_container(container: Object, spec: Any) -> Iterator[Edit]:
    """A limit becomes what is asked for; a request too, where the limit would be below it."""
    resources = container.get("resources") or {}
    for resource, text in (("cpu", spec.cpu), ("memory", spec.memory)):
        if text is None:
            continue
        limit = (resources.get("limits") or {}).get(resource)
        request = (resources.get("requests") or {}).get(resource)
        for section, before in (("limits", limit), ("requests", request)):
            if before is None:
                continue
            after = amount(text, resource, before)
            if section == "requests" and limit and parse_quantity(after) > parse_quantity(before):
                continue  # the limit alone is lowered, and not below the request
            field = _field(("spec", "containers"), container["name"], section, resource)
            yield replace(field, after=after, before=before)


def _words(edits: list[Edit]) -> str:
    return ", ".join(f"{'.'.join(e.inside[1:])} of {e.item[0][1]} {e.before} → {e.after}" for e in edits)


async def _refusal(pod: Object, edits: list[Edit], world: World) -> str:
    """What the server says to the resize, asked without making it; "" when it takes it."""
    ref = pod_victim(pod).ref
    try:
        await world.kube.dry_patch(ref, [e.write(pod, e.after) for e in edits], subresource=SUBRESOURCE)
    except ApiError as error:
        if error.status in (403, 422):
            return f"{ref} can't be resized: {error.message}"
        raise
    return ""


def _warnings(pod: Object, spec: Any) -> Iterator[str]:
    for container in pod["spec"]["containers"]:
        if spec.container not in (None, container["name"]):
            continue
        policies = {p["resourceName"]: p["restartPolicy"] for p in container.get("resizePolicy") or ()}
        for resource in ("cpu", "memory"):
            if getattr(spec, resource) and policies.get(resource) == "RestartContainer":
                yield (
                    f"container {container['name']} restarts, now and when it is put back: its resizePolicy "
                    f"for {resource} is RestartContainer"
                )
    if spec.memory:
        yield "a memory limit below what is in use is not applied by the kubelet until usage falls below it"


def _state(ref: Ref, pod: Object, plan: FaultPlan) -> tuple[str, str]:
    """Whether a pod's containers have what we asked for, or what its spec said before."""
    for kind in ("PodResizePending", "PodResizeInProgress"):
        found = condition(pod, kind)
        if found.get("status") == "True":
            told = " ".join(t for t in (kind, found.get("reason"), found.get("message")) if t)
            if found.get("reason") == "Infeasible":
                raise FaultError(f"{ref} can't be resized: {told}")
            return "partial", f"{ref}: {told}"
    generation = pod["metadata"].get("generation", 0)
    seen = pod["status"].get("observedGeneration", generation) >= generation
    asked, ours = True, True
    fields = []
    for container, section, resource, after in plan.data["resized"][ref.uid]:
        field = _field(("containers",), container, section, resource)
        has = field.read({"containers": pod["status"].get("containerStatuses")})
        asked = asked and has == field.read(pod["spec"])
        ours = ours and has == after
        fields.append(f"{section}.{resource} of {container} {has}")
    fact = f"{ref}: {', '.join(fields)}"
    if not (seen and asked):
        return "partial", fact
    return ("in" if ours else "out"), fact


def _field(path: tuple[str, ...], container: str, section: str, resource: str) -> Edit:
    return Edit(path, None, item=(("name", container),), inside=("resources", section, resource))
