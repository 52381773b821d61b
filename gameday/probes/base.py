"""What a probe is: a spec from the file, and a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from gameday.experiment.model import Spec as BaseSpec
from gameday.platform.world import World

Value = float | str | bool


@dataclass(frozen=True)
class Measurement:
    """What a probe saw: a value for each series. No series at all means no data, never "healthy".

    `series` names each value by its labels, "" where there is one value only.
    """

    series: tuple[tuple[str, Value], ...]
    message: str = ""


class Probe(Protocol):
    """One way to ask. `Spec` is its part of the experiment file."""

    Spec: ClassVar[type[BaseSpec]]
    needs_prometheus: ClassVar[bool]

    async def measure(self, spec: Any, world: World) -> Measurement:
        """Ask once. Raises PlatformError when the system could not be asked; may be cancelled."""
        ...
