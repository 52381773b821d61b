"""The work queue: once at a time, never forgotten, again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gameday.platform.errors import PlatformError
from gameday.sandbox.work import Work

pytestmark = pytest.mark.fast


@asynccontextmanager
async def working(reconcile: Callable[[str], Awaitable[float | None]]) -> AsyncIterator[Work[str]]:
    work = Work("test", reconcile)
    task = asyncio.create_task(work.run())
    yield work
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_additions_meanwhile_become_one_more_call() -> None:
    calls: list[str] = []
    at_once = [0]
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> None:
        calls.append(key)
        at_once[0] += 1
        assert at_once[0] == 1
        begun.set()
        await go.wait()
        at_once[0] -= 1
        if len(calls) == 2:
            done.set()

    async with working(reconcile) as work:
        work.add("a")
        await begun.wait()
        for _ in range(5):
            work.add("a")
        go.set()
        await asyncio.wait_for(done.wait(), 5)
    assert calls == ["a", "a"]


async def test_a_failure_is_tried_again_and_so_is_what_asks_for_it() -> None:
    outcomes: list[object] = [PlatformError("away"), ValueError("a defect"), 0.01, None]
    done = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        outcome = outcomes.pop(0)
        if not outcomes:
            done.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]

    async with working(reconcile) as work:
        work.add("a")
        await asyncio.wait_for(done.wait(), 10)
    assert not outcomes
