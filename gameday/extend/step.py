"""A step as its fault gets it: its surroundings, the ledger for its changes, a place for its records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gameday.extend.fault import Injected, Made
from gameday.extend.plain import freeze

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.events import Event
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.kube import Kube
    from gameday.platform.world import T, World


@dataclass
class Step:
    """One execution of one step; a step that is repeated gets another one each time."""

    world: World
    ledger: StepLedger
    _recorded: dict[str, Any] = field(default_factory=dict)

    @property
    def kube(self) -> Kube:
        """The cluster. What changes anything there goes through the ledger instead."""
        return self.world.kube

    @property
    def seconds(self) -> float | None:
        """How long the fault will be kept in force; None: not said."""
        return self.world.hold

    def emit(self, event: Event) -> None:
        """Put an event into the run's log."""
        self.world.emit(event)

    def sample(self, items: Sequence[T], count: int, place: str = "") -> list[T]:
        """`count` items, the same for the same seed, step, place and items; each choice has its own place."""
        return self.world.sample(items, count, place)

    def record(self, **data: Any) -> None:
        """Keep plain data for `settled`, whatever comes next. Raises TypeError for what is none."""
        self._recorded |= freeze(data)

    @property
    def injected(self) -> Injected:
        """The injection as far as it is known by now."""
        made = (Made(freeze(e.operation.to_data()), e.state, freeze(e.learned)) for e in self.ledger.entries)
        return Injected(freeze(self._recorded), tuple(made))
