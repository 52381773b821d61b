"""The time in which one execution of a step may change anything: from its beginning until its undo."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gameday.ledger.operations import Refused
from gameday.platform.shield import hear

T = TypeVar("T")


class Turn:
    """What a step writes down and makes, whoever asks for it and from whichever task, until it is over.

    The code of a fault may go on after it was told to end, or have tasks that nobody knows: what it changed
    after the undo has looked would be left behind.
    """

    def __init__(self, step: str) -> None:
        self._step, self._over = step, False
        self._under_way: set[asyncio.Future[Any]] = set()

    async def take(self, change: Coroutine[Any, Any, T]) -> T:
        """Await a change. Raises Refused once the turn is over."""
        if self._over:
            change.close()
            await asyncio.sleep(0)  # else who tries again and again would leave the undo no time
            raise Refused(f"step {self._step}: its undo has begun, and the step may change nothing more")
        task = asyncio.ensure_future(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(hear)
        return await task

    async def end(self) -> None:
        """Refuse every change from now on, and cancel and await those under way."""
        self._over = True
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
