"""An API server in this process that misbehaves when told to, for tests of who owns a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.unruly import Unruly, unruly


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Unruly]:
    async with unruly(tmp_path) as running:
        yield running


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Awaitable[object]]]:
    """What arrives while the ledger waits for it: that minute is over when all of it has."""
    deliveries: list[Callable[[], Awaitable[object]]] = []
    sleep = asyncio.sleep

    async def over(seconds: float) -> None:
        if seconds < 12:  # nothing else waits for so long
            await sleep(seconds)
            return
        while deliveries:
            await deliveries.pop()()

    monkeypatch.setattr(asyncio, "sleep", over)
    return deliveries
