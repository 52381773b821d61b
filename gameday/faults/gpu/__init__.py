"""The `gpu` fault: GPUs leave a node, report an error, slow down, get tainted, or are partitioned anew."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gameday.experiment.model import NodePick, PositiveDuration, Spec
from gameday.extend import OneOf, OneOfSpec
from gameday.faults.gpu.device_loss import DeviceLoss, DeviceLossSpec
from gameday.faults.gpu.device_taint import DeviceTaint, DeviceTaintSpec
from gameday.faults.gpu.mig import LEAST_PATIENCE, Mig, MigSpec
from gameday.faults.gpu.throttle import Throttle, ThrottleSpec
from gameday.faults.gpu.xid import WAYS, XidSpec

USUAL_PATIENCE = 180.0  # seconds


class GpuSpec(OneOfSpec):
    """Which nodes, and exactly one of the ways."""

    ways: ClassVar[tuple[str, ...]] = ("device_loss", "xid", "throttle", "mig", "device_taint")

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    device_loss: DeviceLossSpec | None = Field(
        None, description="`{}`: all GPUs leave the nodes' allocatable, as when the device plugin dies."
    )
    xid: XidSpec | None = Field(None, description="A GPU reports an error, as 79, `fell off the bus`.")
    throttle: ThrottleSpec | None = Field(None, description="GPUs get less power, or lower clocks.")
    mig: MigSpec | None = Field(None, description="The MIG manager partitions the GPUs in another way.")
    device_taint: DeviceTaintSpec | None = Field(
        None, description="Devices of dynamic resource allocation are tainted, by DeviceTaintRules."
    )
    patience: PositiveDuration | None = Field(
        None,
        alias="settleWithin",
        description="How long it may take to get in, and out; 3m when left out, 10m with `mig`.",
    )

    @property
    def settle_within(self) -> float:
        """Seconds."""
        return self.patience or (LEAST_PATIENCE if self.mig is not None else USUAL_PATIENCE)


class Xid(OneOf[GpuSpec]):
    """The ways in which nodes can be made to report an error."""

    variants = WAYS

    def chosen(self, spec: GpuSpec) -> str:
        assert spec.xid is not None
        return spec.xid.via


class Gpu(OneOf[GpuSpec]):
    """GPUs leave nodes, report an error, run slower, get tainted, or are partitioned in another way."""

    Spec: ClassVar[type[Spec]] = GpuSpec
    example: ClassVar[str] = "gpu: {nodes: {names: [gpu-0]}, xid: {error: fell off the bus, via: dcgm}}"
    variants = {  # noqa: RUF012
        "device_loss": DeviceLoss,
        "xid": Xid,
        "throttle": Throttle,
        "mig": Mig,
        "device_taint": DeviceTaint,
    }
