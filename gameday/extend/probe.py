"""Probes: a spec from the file, and a measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic

from gameday.experiment.model import Spec
from gameday.extend.fault import S

if TYPE_CHECKING:
    from gameday.platform.world import World

Value = float | str | bool


@dataclass(frozen=True)
class Measurement:
    """A probe's answer: a value for each series. No series at all means no data, never "healthy".

    `series` names each value by its labels, "" where there is one value only.
    """

    series: tuple[tuple[str, Value], ...]
    message: str = ""


class Probe(ABC, Generic[S]):
    """One way to ask. `Spec` is its part of the experiment file, `example` one as YAML."""

    Spec: ClassVar[type[Spec]]
    example: ClassVar[str] = ""
    needs_prometheus: ClassVar[bool] = False  # so that preflight sees that Prometheus answers
    needs_slurm: ClassVar[bool] = False  # the same of Slurm
    asks_cluster: ClassVar[bool] = True  # an experiment in which nothing does needs no kubeconfig

    @abstractmethod
    async def measure(self, spec: S, world: World) -> Measurement:
        """Ask once. Raises PlatformError when the system could not be asked; may be cancelled."""
