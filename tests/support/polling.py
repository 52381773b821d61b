"""Waits for a condition with a deadline, so that no test sleeps for a guessed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool] = bool,
    *,
    within: float = 30.0,
    every: float = 0.1,
) -> T:
    """The first answer that holds; fails with the last answer when there is none `within` seconds."""
    deadline = time.monotonic() + within
    while not holds(answer := await ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:.0f} s; the last answer was {answer!r}")
        await asyncio.sleep(every)
    return answer


async def left_at_once(task: asyncio.Task[Any], turns: int = 50) -> bool:
    """Whether a task that waits for others ends when it is cancelled: within so many turns of the loop."""
    task.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    return task.cancelled()


def until(holds: Callable[[], bool], what: str, *, within: float = 30.0, every: float = 0.05) -> None:
    """As `eventually` for code that blocks: returns when it holds, fails naming what did not come."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:.0f} s: {what}")
        time.sleep(every)
