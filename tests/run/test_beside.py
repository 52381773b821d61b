"""Helpers beside a run: the end of a guard is the end of the run, that of a teller a warning."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from gameday.events import Event, Warn
from gameday.run import beside as module
from gameday.run.beside import Beside

pytestmark = pytest.mark.fast


async def _fails() -> None:
    raise KeyError("items")


async def _fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fails())


async def _ends() -> None:
    """Has nothing more to do."""


async def _is_cancelled() -> None:
    raise asyncio.CancelledError


async def _lives() -> None:
    await asyncio.Event().wait()


ENDS = [
    (_fails, "KeyError: 'items'"),
    (_fails_in_a_group, "KeyError: 'items'"),
    (_ends, "had nothing more to do"),
    (_is_cancelled, "it was cancelled"),
]


class Told:
    """What is heard of helpers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reasons: list[str] = []
        self.something = asyncio.Event()

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.something.set()

    def on_death(self, reason: str) -> None:
        self.reasons.append(reason)
        self.something.set()

    @property
    def warnings(self) -> list[tuple[str, str]]:
        return [(e.source, e.message) for e in self.events if isinstance(e, Warn)]


@pytest.mark.parametrize(("work", "why"), ENDS, ids=lambda p: getattr(p, "__name__", ""))
async def test_a_guard_that_ends_is_the_end_of_the_run(work: Callable[[], Awaitable[None]], why: str) -> None:
    told = Told()
    async with Beside(told.emit, told.on_death) as beside, asyncio.timeout(30):
        beside.guard("watch", work())  # type: ignore[arg-type]
        beside.teller("observer", _lives())
        await told.something.wait()
    assert told.reasons == [f"the watch ended, and without it nobody keeps this run safe: {why}"]
    assert not told.warnings


async def test_a_teller_that_fails_is_a_warning_and_one_that_ends_is_nothing() -> None:
    told = Told()
    async with Beside(told.emit, told.on_death) as beside, asyncio.timeout(30):
        beside.teller("ended", _ends())
        beside.teller("observer", _fails_in_a_group())
        await told.something.wait()
    assert told.warnings == [("observer", "KeyError: 'items'")]
    assert not told.reasons


async def test_leaving_is_no_death_and_waits_for_nobody_long(monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def clings() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    monkeypatch.setattr(module, "LEAVE_WITHIN", 0.05)
    told = Told()
    async with asyncio.timeout(30), Beside(told.emit, told.on_death) as beside:
        beside.guard("watch", _lives())
        beside.guard("lever", clings())
        await asyncio.sleep(0)
    assert told.warnings == [("lever", "does not end, and is left behind")]
    assert not told.reasons
    released.set()
