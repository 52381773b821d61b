"""Keeps a storm out of the log: what is new is told at once, repeats and floods in numbers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from gameday.events import ConditionChanged, Emit, ObjectEvent

WINDOW = 10.0  # seconds after which what was held back is told
AT_ONCE = 30  # told in a window one by one
MOST_KEPT = 100  # sorts of things held back in a window

Told = ObjectEvent | ConditionChanged


@dataclass
class _Held:
    """Things of one sort that were held back: the newest, on how many objects, and how many."""

    event: Told
    objects: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, event: Told) -> None:
        self.event = event
        self.objects.add(event.object)
        self.count += event.count if isinstance(event, ObjectEvent) else 1

    def told(self) -> Told:
        event = self.event
        if others := len(self.objects) - 1:
            event = replace(event, object=f"{event.object} and {others} other{'s' * (others > 1)}")
        return replace(event, count=self.count) if isinstance(event, ObjectEvent) else event


class Digest:
    """Emits what it is told: the first of a kind on an object at once, the rest when its window ends."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._recent: set[tuple[str, ...]] = set()
        self._held: dict[tuple[str, ...], _Held] = {}

    async def run(self) -> None:
        """End a window again and again, and a last time when cancelled."""
        try:
            while True:
                await asyncio.sleep(WINDOW)
                self.flush()
        finally:
            self.flush()

    def tell(self, event: Told) -> None:
        what = event.reason if isinstance(event, ObjectEvent) else event.condition
        key: tuple[str, ...] = (event.type, event.object, what)
        if key not in self._recent and len(self._recent) < AT_ONCE:
            self._recent.add(key)
            self._emit(event)
            return
        if key not in self._recent:  # a flood: by sort, not by object
            kind, _, name = event.object.partition(" ")
            how = event.level if isinstance(event, ObjectEvent) else event.status
            key = (event.type, kind, name.rpartition("/")[0], what, how)
        if key not in self._held and len(self._held) >= MOST_KEPT:
            key = (event.type,)
        self._held.setdefault(key, _Held(event)).add(event)

    def flush(self) -> None:
        """End the window: tell what was held back."""
        held, self._held = self._held, {}
        self._recent.clear()
        for one in held.values():
            self._emit(one.told())
