"""Tasks beside the phases of a run: guards, without which the run aborts, and tellers, which only tell.

Not a task group: leaving one waits for its tasks for as long as they please, and the undo, which comes
after, depends on nothing else. Here the helpers are cancelled, waited for a moment, and left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self

from gameday.events import Emit, Warn

LEAVE_WITHIN = 5.0  # seconds that helpers have to end when they are told to


class Beside:
    """Helpers that live as long as its context. `on_death` gets the reason when a guard ended before that.

    A guard keeps the run safe (abort conditions, Lease, lever): however it ends, by an error, by a
    cancellation or by having nothing more to do, the run must abort. A teller (observer, sampler) that
    fails is reported.
    """

    def __init__(self, emit: Emit, on_death: Callable[[str], None]) -> None:
        self._emit, self._on_death = emit, on_death
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    def guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._start(name, work, self._guard_ended)

    def teller(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._start(name, work, self._teller_ended)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            return
        _, hanging = await asyncio.wait(self._tasks, timeout=LEAVE_WITHIN)
        for task in hanging:
            self._emit(Warn(source=task.get_name(), message="does not end, and is left behind"))

    def _start(
        self, name: str, work: Coroutine[Any, Any, None], ended: Callable[[asyncio.Task[None]], None]
    ) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        self._tasks.add(task)

    def _guard_ended(self, task: asyncio.Task[None]) -> None:
        why = _why(task) or "had nothing more to do"
        if not self._leaving:
            self._on_death(f"the {task.get_name()} ended, and without it nobody keeps this run safe: {why}")

    def _teller_ended(self, task: asyncio.Task[None]) -> None:
        why = _why(task)
        if why and not self._leaving:
            self._emit(Warn(source=task.get_name(), message=why))


def _why(task: asyncio.Task[None]) -> str:
    """The reason for which a task ended, "" when it came to its end."""
    if task.cancelled():
        return "it was cancelled"
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if error else ""
