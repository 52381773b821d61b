"""Ways of the `gpu` fault: the family's spec says how patient to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.extend import Fault

if TYPE_CHECKING:
    from gameday.faults.gpu import GpuSpec


class GpuFault(Fault["GpuSpec"]):
    """One way in which GPUs fail."""

    def settle_within(self, spec: GpuSpec) -> float:
        return spec.settle_within
