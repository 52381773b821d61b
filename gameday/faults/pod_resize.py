"""Pod resize: running pods get less CPU or memory, in place, and back.

The semantics are Kubernetes' own (in-place pod resize, GA in 1.35):
https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, LabelSelector, Pick, Spec
from gameday.experiment.quantity import parse_quantity
from gameday.experiment.text import some
from gameday.extend import Already, Evidence, Fault, FaultError, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import pick_pods, pod_victim, pods_now
from gameday.ledger.edits import Edit, patch_body
from gameday.ledger.operations import Patch
from gameday.platform.amounts import Amount, amount
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, condition, version_path
from gameday.platform.world import World

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


class PodResize(Fault[PodResizeSpec]):
    """Containers' requests and limits are lowered in running pods; put back where they are still ours."""

    Spec: ClassVar[type[Spec]] = PodResizeSpec
    example: ClassVar[str] = "podResize: {selector: app=inference, namespace: inference, pick: 2, cpu: 50%}"

    async def plan(self, spec: PodResizeSpec, world: World) -> FaultPlan[PodResizeSpec]:
        await _check_served(world)
        pods = await pick_pods(spec, world)
        approved = world.approved.data["after"] if world.approved else {}
        edits = [_edits(p, spec, approved) for p in pods]
        made = [(p, less) for p, es in zip(pods, edits, strict=True) if (less := _less(es))]
        resized = [p for p, _ in made]
        if not made:
            raise Already(f"{some([_name(p) for p in pods])}: resized so already, nothing would change")
        refused = await asyncio.gather(*(_refusal(p, less, world) for p, less in made))
        if any(refused):
            raise PlanError("; ".join(r for r in refused if r))
        return FaultPlan(
            spec,
            tuple(pod_victim(p) for p in pods),
            changes=tuple(f"resize {_name(p)}: {_words(less)}" for p, less in made),
            # The second one makes a request that was not answered land nowhere: see `renew_version`.
            needs=(f"patch pods/{SUBRESOURCE} {spec.namespace}", f"patch pods {spec.namespace}"),
            warnings=(
                *dict.fromkeys(w for p in pods for w in _warnings(p, spec)),
                *(f"{_name(p)} is resized so already, and will be left so" for p in pods if p not in resized),
            ),
            basis={f"{_name(p)}: {e.name}": e.before for p, es in zip(pods, edits, strict=True) for e in es},
            data={
                "after": {
                    p["metadata"]["uid"]: {e.name: e.after for e in es}
                    for p, es in zip(pods, edits, strict=True)
                }
            },
        )

    async def inject(self, plan: FaultPlan[PodResizeSpec], step: Step) -> None:
        pods = await pods_now(plan.spec, plan, step.world)
        asked = [(pod_victim(p).ref, _less(_edits(p, plan.spec, plan.data["after"]))) for p in pods]
        patches = await asyncio.gather(
            *(Patch.of(step.kube, ref, *less, subresource=SUBRESOURCE) for ref, less in asked if less)
        )
        await step.ledger.perform(patches)

    async def settled(self, plan: FaultPlan[PodResizeSpec], injected: Injected, world: World) -> Evidence:
        """By what the kubelet reports of each container, not by what was asked for."""
        patches = [Patch.from_data(made.operation) for made in injected.of(Patch.kind)]
        pods = await asyncio.gather(*(world.kube.find(p.ref) for p in patches))
        facts, states = [], set()
        for patch, pod in zip(patches, pods, strict=True):
            if pod is None or "deletionTimestamp" in pod["metadata"]:
                facts.append(f"{patch.ref} is gone; its successor has what its controller says")
                continue
            state, fact = _state(patch, pod)
            states.add(state)
            facts.append(fact)
        state = states.pop() if len(states) == 1 else "partial" if states else "out"
        return Evidence(state, tuple(facts))


async def _check_served(world: World) -> None:
    listed = await world.kube.ask("GET", version_path("v1"), verb="discover", what="v1")
    if not any(r["name"] == f"pods/{SUBRESOURCE}" for r in listed["resources"]):
        raise PlanError(
            f"{world.kube.context} serves no pods/{SUBRESOURCE}: pods are resized in place from Kubernetes "
            f"1.33 on, and this is {await world.kube.version()}"
        )


def _name(pod: Object) -> str:
    return f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _edits(pod: Object, spec: PodResizeSpec, approved: Mapping[str, Mapping[str, str]]) -> list[Edit]:
    """The changes to a pod. Raises PlanError where something would become more, or nothing less.

    `approved` is what the fields of each pod were to become, by UID: a share is of what was there then, which
    another step may have made less since. A field that is so already is among the changes.
    """
    name, wanted = _name(pod), approved.get(pod["metadata"]["uid"])
    containers = [c for c in pod["spec"]["containers"] if spec.container in (None, c["name"])]
    if not containers:
        there = ", ".join(c["name"] for c in pod["spec"]["containers"])
        raise PlanError(f"{name} has no container {spec.container}, only {there}")
    edits = [edit for c in containers for edit in _of_container(c, spec)]
    if wanted is not None:
        edits = [replace(e, after=wanted[e.name]) for e in edits if e.name in wanted]
    larger = [e for e in edits if parse_quantity(e.after) > parse_quantity(e.before)]
    if larger:
        raise PlanError(f"{name}: {larger[0]} would be more; podResize takes away")
    if wanted is None and not (edits := _less(edits)):
        raise PlanError(f"{name} has no request and no limit that would become less: nothing would change")
    return edits


def _less(edits: Iterable[Edit]) -> list[Edit]:
    return [e for e in edits if parse_quantity(e.after) < parse_quantity(e.before)]


def _of_container(container: Object, spec: PodResizeSpec) -> Iterator[Edit]:
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
    return ", ".join(
        f"{'.'.join(e.inside[1:])} of {e.item[0][1]} {e.shown(e.before)} → {e.shown(e.after)}" for e in edits
    )


async def _refusal(pod: Object, edits: list[Edit], world: World) -> str:
    """The server's objection to the resize, asked without making it; "" when it takes it."""
    ref = pod_victim(pod).ref
    try:
        body = patch_body(pod, [(e, e.after) for e in edits])
        await world.kube.dry_patch(ref, body, subresource=SUBRESOURCE)
    except ApiError as error:
        if error.status in (403, 422):
            return f"{ref} can't be resized: {error.message}"
        raise
    return ""


def _warnings(pod: Object, spec: PodResizeSpec) -> Iterator[str]:
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


def _state(patch: Patch, pod: Object) -> tuple[str, str]:
    """Whether a pod's containers have what we asked for, or what its spec said before."""
    for kind in ("PodResizePending", "PodResizeInProgress"):
        found = condition(pod, kind)
        if found.get("status") == "True":
            told = " ".join(t for t in (kind, found.get("reason"), found.get("message")) if t)
            if found.get("reason") == "Infeasible":
                raise FaultError(f"{patch.ref} can't be resized: {told}")
            return "partial", f"{patch.ref}: {told}"
    generation = pod["metadata"].get("generation", 0)
    seen = pod["status"].get("observedGeneration", generation) >= generation
    asked, ours = True, True
    fields = []
    for edit in patch.edits:
        container, section, resource = edit.item[0][1], *edit.inside[1:]
        field = _field(("containers",), container, section, resource)
        has = field.read({"containers": pod["status"].get("containerStatuses")})
        asked = asked and has == field.read(pod["spec"])
        ours = ours and has == edit.after
        fields.append(f"{section}.{resource} of {container} {has}")
    fact = f"{patch.ref}: {', '.join(fields)}"
    if not (seen and asked):
        return "partial", fact
    return ("in" if ours else "out"), fact


def _field(path: tuple[str, ...], container: str, section: str, resource: str) -> Edit:
    return Edit(path, None, item=(("name", container),), inside=("resources", section, resource))
