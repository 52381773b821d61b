"""`xid`: a GPU reports an error that it does not have, so that what watches it has something to react to.

Three ways in, since platforms listen in different places: DCGM's own injection, a line of the driver's in
the node's kernel log, and GPUd's fault injection. No way touches a GPU or its work: only reactions do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from gameday.experiment.model import Spec
from gameday.experiment.text import plural
from gameday.extend import Evidence, FaultPlan, Injected, PlanError, Step
from gameday.faults.gpu.way import GpuFault
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.faults.on_node import NodeProgramFault, OnNode, needs
from gameday.platform import dcgm, gpud, xids
from gameday.platform.devices import gpus
from gameday.platform.effect import NodeState
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.faults.gpu import GpuSpec
    from gameday.platform.world import World

Error = Annotated[
    int,
    PlainValidator(xids.number_of),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}],
            "examples": [79, "fell off the bus", "double bit ECC error"],
        }
    ),
]


class XidSpec(Spec):
    """Which error, on which GPUs, and where it is said."""

    error: Error | None = Field(
        None, description="The XID, by number or name: 79, `fell off the bus`, `row remap failure`."
    )
    field: int | None = Field(
        None, ge=1, description="In its place another DCGM field, by number: 202, PCIe replays, for instance."
    )
    value: float | None = Field(None, description="The value that this field is to have.")
    gpus: list[Annotated[int, Field(ge=0, le=63)]] = Field(
        [0], min_length=1, description="GPUs of each node, by index."
    )
    via: Literal["dcgm", "kernelLog", "gpud"] = Field(
        "dcgm",
        description="Where it is said: to DCGM, in the node's kernel log, or to GPUd (which logs it there).",
    )

    @model_validator(mode="after")
    def _one_error(self) -> XidSpec:
        if (self.error is None) == (self.field is None) or (self.field is None) != (self.value is None):
            raise ValueError("expected either `error`, or `field` and `value`")
        if self.field is not None and self.via != "dcgm":
            raise ValueError(f"`field` is one of DCGM's, and `via` is {self.via}: expected `via: dcgm`")
        if self.via == "gpud" and self.error is not None and not xids.xid(self.error).fatal:
            raise ValueError(
                f"GPUd stays healthy for {xids.xid(self.error)}, so nobody could tell that it is in: "
                "expected `via: dcgm` or `via: kernelLog`"
            )
        return self


def said(spec: XidSpec) -> str:
    """The error that the nodes are made to report."""
    return f"DCGM field {spec.field} = {spec.value:g}" if spec.error is None else str(xids.xid(spec.error))


def _plan(spec: GpuSpec, nodes: list[Object], **more: Any) -> FaultPlan[GpuSpec]:
    """Raises PlanError for a GPU that is not there."""
    for node in nodes:
        count = gpus(node)
        if beyond := [g for g in _xid(spec).gpus if g >= count]:
            raise PlanError(
                f"{node['metadata']['name']} has {plural(count, 'GPU')}: there is no GPU {beyond[0]}"
            )
    victims = tuple(map(node_victim, nodes))  # with all GPUs: what reacts to an XID drains the node
    which = ", ".join(map(str, _xid(spec).gpus))
    changes = [f"{v.ref.name} GPU {which}: {said(_xid(spec))} via {_xid(spec).via}" for v in victims]
    if (error := _xid(spec).error) is not None:
        changes.append(f"what should follow: {xids.xid(error).action}")
    return FaultPlan(spec, victims, changes=tuple(changes), **more)


class XidFault(GpuFault):
    """What all ways have in common: whoever watches takes the error for a real one."""

    heals: ClassVar[bool] = True

    def leaves(self, plan: FaultPlan[GpuSpec]) -> frozenset[NodeState]:
        return frozenset({NodeState.GPU_ERROR})


class ViaDcgm(XidFault):
    """`dcgmi test --inject` in the node's DCGM pod; taken back by injecting the value that was there."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        engines = await asyncio.gather(*(dcgm.engine(world.kube, n["metadata"]["name"]) for n in nodes))
        missing = [n["metadata"]["name"] for n, e in zip(nodes, engines, strict=True) if e is None]
        if missing:
            raise PlanError(
                f"{', '.join(missing)}: no DCGM pod runs there (looked for an image dcgm or dcgm-exporter): "
                "enable the operator's dcgm operand, or choose `via: kernelLog`"
            )
        spaces = sorted({e.pod.namespace or "" for e in engines if e})
        replaced = (
            "DCGM's own next sample replaces the value, where it polls the field: events and counters hold"
        )
        execs = (f"{verb} pods/exec {s}" for s in spaces for verb in ("create", "get"))
        return _plan(
            spec,
            nodes,
            irreversible=("a DCGM pod is restarted at the end where its health still holds the error",),
            warnings=(replaced,) if _xid(spec).field is not None else (),
            needs=("list pods", *execs, *(f"delete pods {s}" for s in spaces)),
            data={"problems": {n["metadata"]["name"]: sorted(_problems(n)) for n in nodes}},
        )

    async def inspect(self, plan: FaultPlan[GpuSpec], step: Step) -> list[str]:
        """Whether each engine answers: an exporter's own one does not, and the value must be another one."""
        field, value = _field(_xid(plan.spec))
        problems = []
        for node, gpu in _asked(plan):
            try:
                if await dcgm.value(step.kube, node, gpu, field) == value:
                    problems.append(f"{node} GPU {gpu}: DCGM field {field} is {value:g} already")
            except PlatformError as error:
                problems.append(f"{node}: {error}")
        return problems

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        from gameday.ledger.dcgm import DcgmInject

        field, value = _field(_xid(plan.spec))
        operations = await asyncio.gather(
            *(
                DcgmInject.of(step.kube, v.ref, gpu, field, value)
                for v in plan.victims
                for gpu in _xid(plan.spec).gpus
            )
        )
        await step.ledger.perform(operations)

    async def settled(self, plan: FaultPlan[GpuSpec], injected: Injected, world: World) -> Evidence:
        """In when DCGM itself reads the value back on every GPU, out when on none."""
        field, value = _field(_xid(plan.spec))
        asked = _asked(plan)
        now = await asyncio.gather(*(dcgm.value(world.kube, node, gpu, field) for node, gpu in asked))
        facts = tuple(
            f"{node} GPU {gpu}: DCGM field {field} is {'not there' if v is None else f'{v:g}'}"
            for (node, gpu), v in zip(asked, now, strict=True)
        )
        ours = [v == value for v in now]
        if any(ours):
            return Evidence("in" if all(ours) else "partial", facts)
        held = await asyncio.gather(*(_held(v.ref, plan, world) for v in plan.victims))
        more = tuple(fact for found in held for fact in found)
        return Evidence("partial" if more else "out", (*facts, *more))


async def _held(ref: Ref, plan: FaultPlan[GpuSpec], world: World) -> list[str]:
    """What the platform holds against a node still, by its conditions: these are later than DCGM's health."""
    node = await world.kube.find(ref)
    new = _problems(node) - set(plan.data["problems"].get(ref.name, ())) if node else set()
    return [f"{ref.name}: condition {kind} is True" for kind in sorted(new)]


def _problems(node: Object) -> set[str]:
    """The types of a node's conditions that say that something is wrong."""
    said = (node.get("status") or {}).get("conditions") or ()
    return {str(c["type"]) for c in said if c.get("status") == "True" and c["type"] != "Ready"}


def _xid(spec: GpuSpec) -> XidSpec:
    assert spec.xid is not None
    return spec.xid


def _error(spec: GpuSpec) -> int:
    error = _xid(spec).error
    assert error is not None, "only DCGM takes fields that are no XID"
    return error


def _asked(plan: FaultPlan[GpuSpec]) -> list[tuple[str, int]]:
    """Each GPU, with its node's name."""
    return [(v.ref.name, gpu) for v in plan.victims for gpu in _xid(plan.spec).gpus]


def _field(spec: XidSpec) -> tuple[int, float]:
    if spec.field is not None and spec.value is not None:
        return spec.field, spec.value
    return dcgm.XID_FIELD, float(spec.error or 0)


class ViaKernelLog(XidFault, NodeProgramFault["GpuSpec"]):
    """The driver's line in the node's kernel log, written by a program on the node.

    The line stays. What GPUd, where there is one, makes of it is taken back.
    """

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        urls = {n["metadata"]["name"]: gpud.url_of(n) for n in nodes}
        watched = await asyncio.gather(*(gpud.is_healthy(url, gpud.XID_COMPONENT) for url in urls.values()))
        return _plan(
            spec,
            nodes,
            irreversible=("a line of the kernel log stays there until the node restarts; it does no harm",),
            needs=needs(world),
            data={
                "nodes": list(urls),
                "gpud": {n: url for (n, url), on in zip(urls.items(), watched, strict=True) if on},
            },
        )

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        from gameday.ledger.gpud import GpudInject

        urls, spec = plan.data["gpud"], _xid(plan.spec)
        watched = [
            GpudInject.of(v.ref, urls[v.ref.name], _error(plan.spec), len(spec.gpus), reads=True)
            for v in plan.victims
            if v.ref.name in urls
        ]
        await step.ledger.perform(await asyncio.gather(*watched))
        await super().inject(plan, step)

    def programs(self, plan: FaultPlan[GpuSpec]) -> list[OnNode]:
        error, gpus = _error(plan.spec), list(_xid(plan.spec).gpus)
        options = {"xid": error, "text": xids.xid(error).name, "gpus": gpus}
        return [OnNode(Ref("v1", "Node", n), "xid-line", options) for n in plan.data["nodes"]]


class ViaGpud(XidFault):
    """GPUd's own fault injection; taken back by telling it that the component is healthy."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        urls = {n["metadata"]["name"]: gpud.url_of(n) for n in nodes}
        healths = await asyncio.gather(*(gpud.health(url, gpud.XID_COMPONENT) for url in urls.values()))
        ill = [name for name, health in zip(urls, healths, strict=True) if health != "Healthy"]
        if ill:
            raise PlanError(
                f"{', '.join(ill)}: GPUd's {gpud.XID_COMPONENT} is not Healthy already: nothing would change"
            )
        return _plan(
            spec,
            nodes,
            irreversible=("GPUd's event and its line of the kernel log stay in their histories",),
            warnings=("GPUd injects on the node, not on one GPU",) if _xid(spec).gpus != [0] else (),
            data={"urls": urls},
        )

    async def inject(self, plan: FaultPlan[GpuSpec], step: Step) -> None:
        from gameday.ledger.gpud import GpudInject

        urls, number = plan.data["urls"], _error(plan.spec)
        told = (GpudInject.of(v.ref, urls[v.ref.name], number) for v in plan.victims)
        await step.ledger.perform(await asyncio.gather(*told))

    async def settled(self, plan: FaultPlan[GpuSpec], injected: Injected, world: World) -> Evidence:
        """In when every node's GPUd holds the XID against it, out when each is Healthy."""
        asked = [(v.ref.name, plan.data["urls"][v.ref.name]) for v in plan.victims]
        now = await asyncio.gather(*(gpud.health(url, gpud.XID_COMPONENT) for _, url in asked))
        facts = tuple(
            f"{n}: GPUd says {gpud.XID_COMPONENT} is {h}" for (n, _), h in zip(asked, now, strict=True)
        )
        if all(h == "Healthy" for h in now):
            return Evidence("out", facts)
        return Evidence("in" if all(h not in ("Healthy", gpud.UNKNOWN) for h in now) else "partial", facts)


WAYS = {"dcgm": ViaDcgm, "kernelLog": ViaKernelLog, "gpud": ViaGpud}
