"""Restoring every run that died: at the same time, each for itself, once or for ever.

What fails for one run, its record, its Slurm or a race that another janitor won, is that run's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from gameday.events import Emit
from gameday.ledger.observer import Observer
from gameday.ledger.recovery import How, Recovered, recover
from gameday.ledger.survey import survey
from gameday.platform.errors import PlatformError
from gameday.platform.fence import Lost
from gameday.platform.kube import Kube

EVERY = 5.0  # seconds between two looks
LONGEST_PAUSE = 300.0  # seconds until a run that could not be restored is tried again


@dataclass(frozen=True)
class Attempt:
    """How it went with one run. `lost`: it is alive, or another's; `failure`: it could not be tried."""

    run: str
    result: Recovered | None = None
    lost: str = ""
    failure: str = ""

    @property
    def left(self) -> bool:
        """Whether something may be in force still that nobody else looks after."""
        return bool(self.failure) or (self.result is not None and not self.result.restored)


async def attempt(kube: Kube, run: str, how: How, emit: Emit = lambda _: None) -> Attempt:
    """Restore one run. Never raises."""
    try:
        return Attempt(run, await recover(kube, run, emit, how=how))
    except Lost as lost:
        return Attempt(run, lost=str(lost))
    except PlatformError as error:
        return Attempt(run, failure=str(error))
    except Exception as error:  # a record that breaks us must not keep the others from being restored
        return Attempt(run, failure=f"{type(error).__name__}: {error}")


class Janitor:
    """Looks at the cluster, and restores what died.

    `tell` hears of every attempt, `trouble` of what is wrong, `looked` of how many runs each look found.
    """

    def __init__(
        self,
        kube: Kube,
        tell: Callable[[Attempt], None],
        trouble: Callable[[str], None],
        looked: Callable[[int], None] = lambda _: None,
        *,
        by: str = "a janitor",
    ) -> None:
        self._by = by
        self._kube, self._tell, self._trouble, self._looked = kube, tell, trouble, looked
        self._observer = Observer(gap=2 * EVERY)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}  # run: not before, seconds of the last pause
        self._told: set[str] = set()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Look no more, and end when what is under way is restored."""
        self._stopped.set()

    async def run(self) -> None:
        """Until it is stopped; a cancellation leaves what is under way as it is."""
        try:
            while not self._stopped.is_set():
                try:
                    await self.look()
                except PlatformError as error:
                    self._trouble(str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), EVERY)
            await asyncio.gather(*self._busy.values())
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def look(self) -> None:
        """Begin to restore every run that died and is not under way already."""
        found = await survey(self._kube)
        self._looked(len(found.runs))
        for text in found.strangers:
            if text not in self._told:
                self._told.add(text)
                self._trouble(text)
        self._observer.forget(run.lease for run in found.runs if run.lease)
        now = asyncio.get_running_loop().time()
        for run in found.runs:
            dead = run.lease is None or self._observer.look(run.lease)
            if dead and run.run not in self._busy and now >= self._pauses.get(run.run, (0.0, 0.0))[0]:
                self._busy[run.run] = asyncio.create_task(self._restore(run.run))

    async def _restore(self, run: str) -> None:
        try:
            done = await attempt(self._kube, run, How(observer=self._observer, by=self._by))
            if done.left:
                pause = min(2 * self._pauses.get(run, (0.0, EVERY))[1], LONGEST_PAUSE)
                self._pauses[run] = (asyncio.get_running_loop().time() + pause, pause)
            else:
                self._pauses.pop(run, None)
            self._tell(done)
        finally:
            self._busy.pop(run, None)
