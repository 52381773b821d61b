"""What a benchmark row says: our figure, the others' from the same run, and what was to be reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One line. All figures have the same `unit`, and smaller is better."""

    what: str
    ours: float
    unit: str
    reach: str  # in words, as the requirement says it
    reached: bool
    others: dict[str, float] = field(default_factory=dict)  # name -> figure
    note: str = ""

    @property
    def ratios(self) -> dict[str, float]:
        """How many times smaller ours is."""
        return {name: round(figure / self.ours, 1) for name, figure in self.others.items() if self.ours > 0}

    def to_data(self) -> dict[str, Any]:
        return asdict(self) | {"ratios": self.ratios}


def times_faster(what: str, ours: float, others: dict[str, float], factor: float) -> Measured:
    """Seconds, to be at least `factor` times faster than each of the others."""
    reached = all(figure >= factor * ours for figure in others.values())
    return Measured(what, ours, "s", f"{factor:g} times faster than each", reached, others)
