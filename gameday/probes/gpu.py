"""The `gpu` probe: GPUs that nodes give out or have lost, that pods wait for, and how healthy they are."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, LabelSelector, Line, PositiveDuration, Spec
from gameday.extend import Measurement, Probe, Value
from gameday.platform.devices import allocatable_gpus, gpus
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, condition, is_finished

if TYPE_CHECKING:
    from gameday.platform.world import World


class GpuSpec(Spec):
    """One question, asked of each node or of each namespace."""

    count: Literal["allocatable", "lost", "requested", "unschedulable"] | None = Field(
        None,
        description="GPUs of each node that are `allocatable` or `lost` (its capacity without those), or of "
        "each namespace that running pods have `requested`, or that pods wait for (`unschedulable`).",
    )
    condition: Line | None = Field(
        None, description="A node condition, such as a Node Problem Detector's; `True`, `False` or `Unknown`."
    )
    gpud: Literal["states", "events"] | None = Field(
        None, description="GPUd's worst health state of each node, or the number of its events."
    )
    component: Line | None = Field(None, description="One of GPUd's components; all when left out.")
    since: PositiveDuration = Field("10m", validate_default=True, description="How far back `events` counts.")
    nodes: LabelSelector | None = Field(None, description="The nodes by labels; else the target's.")
    namespaces: list[DNSLabel] | None = Field(None, min_length=1, description="Else the target's.")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if sum(q is not None for q in (self.count, self.condition, self.gpud)) != 1:
            raise ValueError("expected one of `count`, `condition` and `gpud`")
        if self.component is not None and self.gpud is None:
            raise ValueError("`component` is one of GPUd's: expected `gpud` beside it")
        return self


class Gpu(Probe[GpuSpec]):
    """GPUs that nodes give out or have lost, that pods wait for, and what nodes say of their health."""

    Spec: ClassVar = GpuSpec
    example: ClassVar[str] = """\
name: no GPU is lost
gpu: {count: lost, nodes: nvidia.com/gpu.present=true}
is: 0
"""

    async def measure(self, spec: GpuSpec, world: World) -> Measurement:
        """A value for each node, or for each namespace."""
        if spec.count in ("requested", "unschedulable"):
            return await _pods(spec, world)
        nodes = await _nodes(spec, world)
        if not nodes:
            return Measurement((), "no node matches")
        if spec.gpud is not None:
            return await _gpud(spec, nodes)
        if spec.condition is not None:
            found = [(_name(n), condition(n, spec.condition)) for n in nodes]
            said = [
                f"{name}: {c.get('message') or 'no message'}"
                for name, c in found
                if c.get("status") == "True"
            ]
            series = tuple((name, str(c["status"])) for name, c in found if c)
            return Measurement(series, "; ".join(said[:5]))
        ask = allocatable_gpus if spec.count == "allocatable" else _lost
        return Measurement(tuple((_name(n), float(ask(n))) for n in nodes))


def _name(node: Object) -> str:
    return str(node["metadata"]["name"])


async def _nodes(spec: GpuSpec, world: World) -> list[Object]:
    from gameday.platform.resources import NODES

    selector = spec.nodes or world.node_selector
    if not selector:
        raise PlatformError("which nodes? Name them in the probe's `nodes`, or in the target's")
    return await world.kube.list(NODES, labels=selector)


def _lost(node: Object) -> int:
    return max(0, gpus(node) - allocatable_gpus(node))


async def _pods(spec: GpuSpec, world: World) -> Measurement:
    """GPUs by namespace; a namespace without any counts 0, so that the series does not come and go."""
    from gameday.platform.resources import PODS

    namespaces = spec.namespaces or world.namespaces
    listed = await asyncio.gather(*(world.kube.list(PODS, namespace) for namespace in namespaces))
    total = Counter(dict.fromkeys(namespaces, 0))
    waiting = spec.count == "unschedulable"
    for namespace, pods in zip(namespaces, listed, strict=True):
        total[namespace] += sum(gpus(p) for p in pods if not is_finished(p) and _waits(p) == waiting)
    return Measurement(tuple((namespace, float(count)) for namespace, count in total.items()))


def _waits(pod: Object) -> bool:
    return not pod["spec"].get("nodeName")


async def _gpud(spec: GpuSpec, nodes: list[Object]) -> Measurement:
    from gameday.platform import gpud

    since = int(time.time() - spec.since)
    said: list[str] = []

    async def one(node: Object) -> tuple[str, Value]:
        url = gpud.url_of(node)
        asked = gpud.states(url) if spec.gpud == "states" else gpud.events(url, since)
        entries = [e for e in await asked if spec.component in (None, e["component"])]
        if spec.component and not entries:
            raise gpud.GpudError(f"GPUd at {url} has no component {spec.component}")
        if spec.gpud == "events":
            return _name(node), float(sum(len(e.get("events") or ()) for e in entries))
        ill = [(e["component"], h) for e in entries if (h := gpud.worst(e)) != "Healthy"]
        said.extend(f"{_name(node)}: {component} is {health}" for component, health in ill)
        return _name(node), ill[0][1] if ill else "Healthy"

    series = await asyncio.gather(*map(one, nodes))
    return Measurement(tuple(series), "; ".join(said[:5]))
