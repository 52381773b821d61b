"""A work queue like controller-runtime's: one key is worked on once at a time, and again after a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from gameday.platform.errors import PlatformError

log = logging.getLogger("gameday.sandbox")
K = TypeVar("K", bound=Hashable)
FIRST_RETRY, LAST_RETRY = 0.02, 5.0  # seconds


class Work(Generic[K]):
    """`reconcile(key)` is called for every key added; what it returns is when to call again, in seconds.

    It must look at the state anew each time, since several additions of a key become one call.
    """

    def __init__(
        self, name: str, reconcile: Callable[[K], Awaitable[float | None]], workers: int = 4
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K, after: float = 0.0) -> None:
        """Ask for a call, now or later; the earliest of several wishes counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if after > 0:
            if timer is None or timer.when() > loop.time() + after:
                if timer is not None:
                    timer.cancel()
                self._timers[key] = loop.call_later(after, self._due, key)
            return
        if timer is not None:
            timer.cancel()
            del self._timers[key]
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                wanted = await self._reconcile(key)
                self._failures.pop(key, None)
            except PlatformError as error:  # a conflict, a vanished object, a server that is away
                wanted = self._later(key)
                log.debug("%s %s: %s; again in %.2f s", self.name, key, error, wanted)
            except Exception:  # an object that this code doesn't understand must not end the platform
                wanted = self._later(key)
                log.exception("%s cannot handle %s", self.name, key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if wanted is not None:
                self.add(key, after=max(wanted, 0.001))

    def _later(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(FIRST_RETRY * 2.0 ** min(failures, 20), LAST_RETRY)
