"""`throttle`: GPUs run slower, by a lower power limit or lower clocks, as with a power cap or a hot aisle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from gameday.experiment.model import Spec
from gameday.experiment.text import describe
from gameday.experiment.values import share
from gameday.extend import FaultPlan
from gameday.faults.gpu.way import GpuFault
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.faults.on_node import NodeProgramFault, OnNode, needs
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.faults.gpu import GpuSpec
    from gameday.platform.world import World


class ThrottleSpec(Spec):
    """How slow, and which GPUs."""

    power_limit: int | str | None = Field(
        None, description="The power limit: W, or a share of the highest one, as `50%`."
    )
    clocks: Annotated[int, Field(ge=1)] | None = Field(None, description="The highest SM clock, in MHz.")
    gpus: list[Annotated[int, Field(ge=0, le=63)]] | None = Field(
        None, min_length=1, description="GPUs of each node, by index; all of them when left out."
    )

    @model_validator(mode="after")
    def _one_limit(self) -> ThrottleSpec:
        if (self.power_limit is None) == (self.clocks is None):
            raise ValueError("expected either `powerLimit` or `clocks`")
        _limit(self)
        return self


def _limit(spec: ThrottleSpec) -> dict[str, float]:
    """The limit as the program on the node takes it. Raises ValueError."""
    if spec.clocks is not None:
        return {"clock": spec.clocks}
    text = str(spec.power_limit).strip().removesuffix("W").strip()
    if (part := share(text)) is not None and part > 0:
        return {"percent": part * 100}
    if text.isascii() and text.isdigit() and int(text) > 0:
        return {"watts": int(text)}
    raise ValueError(
        f"`powerLimit`: expected W or a share, as 300 or `50%`, found {describe(spec.power_limit)}"
    )


class Throttle(GpuFault, NodeProgramFault["GpuSpec"]):
    """`nvidia-smi -pl` or `-lgc` on the nodes, and back."""

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan[GpuSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        gpus = _throttle(spec).gpus
        which = "all GPUs" if gpus is None else f"GPU {', '.join(map(str, gpus))}"
        limit = _limit(_throttle(spec))
        words = {"clock": "clocks of at most {:g} MHz", "percent": "{:g}% of the highest power limit"}
        how = next(words.get(k, "a power limit of {:g} W").format(v) for k, v in limit.items())
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{n['metadata']['name']}, {which}: {how}" for n in nodes),
            warnings=("clocks that were limited before are not limited afterwards: nvidia-smi does not tell",)
            if "clock" in limit
            else (),
            needs=needs(world),
            data={"nodes": [n["metadata"]["name"] for n in nodes]},
        )

    def programs(self, plan: FaultPlan[GpuSpec]) -> list[OnNode]:
        spec = _throttle(plan.spec)
        options = {**_limit(spec), "gpus": list(spec.gpus or ())}
        return [OnNode(Ref("v1", "Node", n), "gpu-throttle", options) for n in plan.data["nodes"]]


def _throttle(spec: GpuSpec) -> ThrottleSpec:
    assert spec.throttle is not None
    return spec.throttle
