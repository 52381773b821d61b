"""The writer of a run's log: gives each event its number and time, appends it, and tells who listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gameday.events import Event, encode

Listener = Callable[[Event], None]


class Log:
    """Appends to events.jsonl, a whole line at a time. Listeners are the live projections."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = path.open("ab", buffering=0)  # one write a line: a crash cuts off the last one at most
        self._clock = clock
        self._seq = 0
        self.listeners: list[Listener] = []

    def emit(self, event: Event) -> None:
        """Write an event. One that carries its own time keeps it."""
        self._seq += 1
        event = replace(event, seq=self._seq, at=event.at or self._clock())
        self._file.write(encode(event).encode() + b"\n")
        for listener in self.listeners:
            listener(event)

    def close(self) -> None:
        self._file.close()
