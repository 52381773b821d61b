"""The writer of a run's log: gives each event its number and time, appends it, and tells who listens.

Events are emitted from where a run is aborted and undone, so emitting never raises and never waits: a disk
that is full or hangs and a listener that fails are reported, once, to all others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gameday.events import Event, Samples, Warn, encode, masked
from gameday.sink import Sink

Listener = Callable[[Event], None]
BLOCK = 2**16  # bytes that are read at once
PATIENCE = 5.0  # seconds that the end waits for a disk which takes nothing


class Log:
    """Appends to events.jsonl, whole lines at a time. Listeners are the live projections.

    `after` is the number of the last event that is in the file.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, after: int = 0) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._name = path.name
        if path.is_file():
            _drop_cut_line(path)
        self._file = Sink(os.open(path, flags, 0o600), lasting=True)
        self._clock = clock
        self._seq = after
        self._troubled = False
        self._failed: set[Listener] = set()  # listeners of which a failure was reported
        self.listeners: list[Listener] = []

    def emit(self, event: Event) -> None:
        """Write an event, secrets masked. One that carries its own time keeps it. Never raises."""
        self._seq += 1
        event = replace(event, seq=self._seq, at=event.at or self._clock())
        try:
            event = masked(event)
            line = encode(event)
        except Exception as error:  # data that no log can hold: that they came is told all the same
            text = f"an event of the type {event.type} could not be written: {type(error).__name__}: {error}"
            event = Warn(seq=event.seq, at=event.at, source="log", message=text)
            line = encode(event)
        chunk = line.encode(errors="backslashreplace") + b"\n"
        self._file.put(chunk, expendable=isinstance(event, Samples))
        for listener in [*self.listeners]:
            self._tell(listener, event)
        self._watch_the_file()

    def close(self) -> None:
        """Wait for what is not written yet, as long as the disk takes it."""
        if not self._file.close(PATIENCE):
            self._troubled = False  # it is worth a second word now
            text = f"the end of {self._name} is lost: {self._file.trouble}"
            for listener in [*self.listeners]:
                self._tell(listener, Warn(at=self._clock(), source="log", message=text))

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            listener(event)
        except Exception as error:
            if listener not in self._failed:
                self._failed.add(listener)
                name = getattr(listener, "__qualname__", type(listener).__name__)
                text = f"{name} failed and may miss events: {type(error).__name__}: {error}"
                self.emit(Warn(source="log", message=text))

    def _watch_the_file(self) -> None:
        """Report once that the file can't be written, and once that it can again."""
        trouble = self._file.trouble
        if bool(trouble) == self._troubled:
            return
        self._troubled = bool(trouble)
        text = f"{self._name} can't be written ({trouble}): events are kept in memory until there is room"
        if not trouble:
            lost = f"; {self._file.lost} events were lost" if self._file.lost else ""
            text = f"{self._name} can be written again{lost}"
        self.emit(Warn(source="log", message=text))


def _drop_cut_line(path: Path) -> None:
    """Take away a last line that was not written to its end: readers drop it, and nothing is to join it."""
    with path.open("r+b") as file:
        place = file.seek(0, os.SEEK_END)
        while place:
            start = max(0, place - BLOCK)
            file.seek(start)
            if (end := file.read(place - start).rfind(b"\n")) >= 0:
                file.truncate(start + end + 1)
                return
            place = start
        file.truncate(0)
