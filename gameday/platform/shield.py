"""Work that a cancellation must not cut short, as an undo, and work that must not delay one, as a hook."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from gameday.platform.errors import Failure

T = TypeVar("T")
LEAVE_WITHIN = 0.5  # seconds that work which may be left behind has to end when it is told to


class Overdue(TimeoutError):
    """Work did not end in the time that it had, and was left behind: it may go on."""


class Exited(Exception):
    """Work asked for the end of the whole process (SystemExit), which asyncio would obey at once."""


async def to_the_end(work: Coroutine[Any, Any, T], *, interrupt_after: float = math.inf) -> T:
    """Await work to its end, however often the caller is cancelled meanwhile; then let that take effect.

    The first cancellation is passed on to the work `interrupt_after` seconds later, and the work's own
    ending is still awaited.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not cancelled and interrupt_after < math.inf:
                asyncio.get_running_loop().call_later(interrupt_after, task.cancel)
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
    task.add_done_callback(hear)
    return await asyncio.shield(task)


async def or_leave(work: Coroutine[Any, Any, T], *, within: float = LEAVE_WITHIN) -> T:
    """Await work that may hang. When cancelled pass that on, and leave behind what goes on `within` s later.

    Work may hang on for as long as it pleases: a connection that is closed in a friendly way, code of
    another package that swallows its cancellation. Its changes are made by the ledger, which ends them.
    """
    task = asyncio.ensure_future(_in_process(work))
    task.add_done_callback(hear)
    if asyncio.iscoroutine(work):  # which another package may not give
        task.add_done_callback(lambda _: work.close())  # of what was cancelled before it began
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=within)
    return task.result()


async def at_most(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await work for so long, and leave behind what goes on then. Raises Overdue.

    asyncio.timeout alone waits for ever for work that swallows its cancellation.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            return await or_leave(work)
    except TimeoutError:
        if limit.expired():
            raise Overdue(f"did not end within {seconds:g} s") from None
        raise  # the work's own


async def _in_process(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except SystemExit as error:
        raise Exited(f"it wanted to end the process (SystemExit: {error})") from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, but leave behind all tasks that go on when they are cancelled: it would never end."""
    return asyncio.run(_then_leave(work))


async def _then_leave(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        _, hanging = await asyncio.wait(left, timeout=LEAVE_WITHIN) if left else (left, left)
        for task in hanging:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # that it was left is known
            asyncio._unregister_task(task)  # documented for those who extend asyncio


def told_to_end() -> bool:
    """Whether somebody cancelled this task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def hear(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended that nobody awaits: else asyncio says so, with a trace."""
    if not task.cancelled():
        task.exception()
