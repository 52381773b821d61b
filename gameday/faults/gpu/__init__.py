"""The `gpu` fault: GPUs leave a node, report an error, slow down, or are partitioned in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from gameday.experiment.model import NodePick, PositiveDuration, Spec
from gameday.faults.base import Evidence, Fault, FaultPlan
from gameday.faults.gpu.device_loss import DeviceLoss, DeviceLossSpec
from gameday.faults.gpu.mig import LEAST_PATIENCE, Mig, MigSpec
from gameday.faults.gpu.throttle import Throttle, ThrottleSpec
from gameday.faults.gpu.xid import WAYS, XidSpec
from gameday.platform.world import World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger

USUAL_PATIENCE = 180.0  # seconds
MODES = ("device_loss", "xid", "throttle", "mig")


class GpuSpec(Spec):
    """Which nodes, and exactly one of the ways."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    device_loss: DeviceLossSpec | None = Field(
        None, description="`{}`: all GPUs leave the nodes' allocatable, as when the device plugin dies."
    )
    xid: XidSpec | None = Field(None, description="A GPU reports an error, as 79, `fell off the bus`.")
    throttle: ThrottleSpec | None = Field(None, description="GPUs get less power, or lower clocks.")
    mig: MigSpec | None = Field(None, description="The MIG manager partitions the GPUs in another way.")
    patience: PositiveDuration | None = Field(
        None,
        alias="settleWithin",
        description="How long it may take to get in, and out; 3m when left out, 10m with `mig`.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> GpuSpec:
        found = [mode for mode in MODES if getattr(self, mode) is not None]
        if len(found) != 1:
            known = ", ".join(f"`{type(self).model_fields[m].alias}`" for m in MODES)
            raise ValueError(f"expected exactly one of {known}, found {len(found) or 'none'}")
        return self

    @property
    def settle_within(self) -> float:
        """Seconds."""
        return self.patience or (LEAST_PATIENCE if self.mig is not None else USUAL_PATIENCE)


def _way(spec: GpuSpec) -> Any:
    if spec.xid is not None:
        return WAYS[spec.xid.via]()
    if spec.throttle is not None:
        return Throttle()
    return Mig() if spec.mig is not None else DeviceLoss()


class Gpu:
    """GPUs leave nodes, report an error, run slower, or are partitioned in another way."""

    Spec: ClassVar[type[Spec]] = GpuSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "gpu: {nodes: {names: [gpu-0]}, xid: {error: fell off the bus, via: dcgm}}"
    _fault: Fault | None = None  # one for the whole step: it may remember what it started

    def _of(self, spec: GpuSpec) -> Any:
        self._fault = self._fault or _way(spec)
        return self._fault

    async def plan(self, spec: GpuSpec, world: World) -> FaultPlan:
        plan: FaultPlan = await self._of(spec).plan(spec, world)
        return plan

    async def inspect(self, plan: FaultPlan, world: World, ledger: StepLedger) -> list[str]:
        """Ask the nodes, where the fault is a program there, what speaks against it."""
        inspect = getattr(self._of(plan.spec), "inspect", None)
        problems: list[str] = await inspect(plan, world, ledger) if inspect else []
        return problems

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        await self._of(plan.spec).inject(plan, world, ledger)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        evidence: Evidence = await self._of(plan.spec).settled(plan, world)
        return evidence
