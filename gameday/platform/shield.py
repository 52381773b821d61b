"""Work that a cancellation must not cut short, as an undo, and work that must not delay one, as a look."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gameday.platform.errors import Failure

T = TypeVar("T")
LEAVE_WITHIN = 0.5  # seconds that work which changes nothing has to end when it is told to


async def to_the_end(work: Coroutine[Any, Any, T], *, interrupt: bool = False) -> T:
    """Await work to its end, however often the caller is cancelled meanwhile; then let that take effect.

    With `interrupt` the first cancellation is passed on to the work, whose own ending is still awaited.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if interrupt and not cancelled:
                task.cancel()
            cancelled = True
    if not cancelled or task.cancelled():
        return task.result()
    error = task.exception()
    if error is not None and not isinstance(error, Failure):
        raise error  # a defect of ours is not lost in a cancellation
    raise asyncio.CancelledError from error


async def to_its_own_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on when the caller is cancelled, who does not wait for it then.

    Whoever left can't hear that it failed: asyncio alone would say so at last, with a trace at the terminal.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_hear)
    return await asyncio.shield(task)


async def or_leave(work: Coroutine[Any, Any, T]) -> T:
    """Await work that changes nothing. When cancelled pass that on, and leave behind what does not end then.

    Whoever asks may hang on for as long as it pleases: a connection that is closed in a friendly way, code of
    another package that swallows its cancellation.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_hear)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=LEAVE_WITHIN)
    return task.result()


def _hear(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
