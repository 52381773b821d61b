"""Work that a cancellation must not cut short, and what becomes of its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from gameday.platform.errors import Failure
from gameday.platform.shield import Exited, Overdue, at_most, or_leave, run, to_its_own_end, to_the_end

pytestmark = pytest.mark.fast


async def cancelled_over(work_ends_with: Exception | None) -> asyncio.Task[str]:
    """A task that was cancelled twice while it waited for work that ends so."""
    go_on = asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        if work_ends_with is not None:
            raise work_ends_with
        return "done"

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    await asyncio.wait({task})
    return task


async def test_a_cancellation_takes_effect_when_the_work_is_done() -> None:
    assert (await cancelled_over(None)).cancelled()


async def test_a_failure_of_the_world_gives_way_to_the_cancellation() -> None:
    assert (await cancelled_over(Failure("no answer"))).cancelled()


async def test_a_defect_is_not_lost_in_a_cancellation() -> None:
    task = await cancelled_over(ZeroDivisionError("ours"))
    assert not task.cancelled()
    assert isinstance(task.exception(), ZeroDivisionError)


async def test_a_failure_that_nobody_waits_for_shows_no_trace() -> None:
    """As of a record that can't be written, when its run was stopped meanwhile."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    go_on, over = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        over.set()
        raise Failure("no answer")

    task = asyncio.create_task(to_its_own_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not over.is_set(), "the work goes on by itself"
    go_on.set()
    await over.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert said == []


@pytest.mark.parametrize("obeys", [True, False])
async def test_work_that_is_told_to_end_gets_the_time_for_it_and_no_more(obeys: bool) -> None:
    over, let_go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0)
            over.set()
        while not (obeys or let_go.is_set()):
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    task = asyncio.create_task(or_leave(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
    assert over.is_set()
    let_go.set()


async def test_work_that_wants_to_end_the_process_fails_alone() -> None:
    async def work() -> None:
        raise SystemExit(3)

    with pytest.raises(Exited, match="SystemExit: 3"):
        await or_leave(work())


async def test_a_time_out_of_the_works_own_is_not_taken_for_ours() -> None:
    async def work(own: bool) -> None:
        if own:
            raise TimeoutError
        await asyncio.Event().wait()

    with pytest.raises(Overdue, match=r"within 0\.01 s"):
        await at_most(0.01, work(False))
    with pytest.raises(TimeoutError) as raised:
        await at_most(60, work(True))
    assert not isinstance(raised.value, Overdue)


def test_an_event_loop_ends_though_one_of_its_tasks_does_not() -> None:
    async def stays() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def work() -> str:
        kept.append(asyncio.create_task(stays()))
        await asyncio.sleep(0)
        return "done"

    kept: list[asyncio.Task[None]] = []
    assert run(work()) == "done"
