"""The `gpu` fault: GPUs leave a node, report an error, slow down, or are partitioned in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field, model_validator

from gameday.experiment.model import NodePick, PositiveDuration, Spec
from gameday.faults.base import Evidence, FaultPlan
from gameday.faults.gpu.device_loss import DeviceLoss, DeviceLossSpec
from gameday.platform.world import World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger


class Mode(Protocol):
    """One of the ways; each is a fault of its own in all but its key."""

    async def plan(self, spec: Any, world: World) -> FaultPlan: ...

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None: ...

    async def settled(self, plan: FaultPlan, world: World) -> Evidence: ...


MODES: dict[str, Mode] = {"device_loss": DeviceLoss()}


class GpuSpec(Spec):
    """Which nodes, and exactly one of the ways."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    device_loss: DeviceLossSpec | None = Field(
        None, description="`{}`: all GPUs leave the nodes' allocatable until the fault is undone."
    )
    settle_within: PositiveDuration = Field(
        "3m", validate_default=True, description="How long it may take to get in, and out."
    )

    @model_validator(mode="after")
    def _one_way(self) -> GpuSpec:
        found = [mode for mode in MODES if getattr(self, mode) is not None]
        if len(found) != 1:
            known = ", ".join(f"`{type(self).model_fields[m].alias}`" for m in MODES)
            raise ValueError(f"expected exactly one of {known}, found {len(found)}")
        return self

    @property
    def mode(self) -> Mode:
        return next(mode for key, mode in MODES.items() if getattr(self, key) is not None)


class Gpu:
    """GPUs leave nodes, report an error, run slower, or are partitioned in another way."""

    Spec: ClassVar[type[Spec]] = GpuSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "gpu: {nodes: {names: [gpu-0]}, deviceLoss: {}}"

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan:
        return await spec.mode.plan(spec, world)

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        await plan.spec.mode.inject(plan, world, ledger)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        evidence: Evidence = await plan.spec.mode.settled(plan, world)
        return evidence
