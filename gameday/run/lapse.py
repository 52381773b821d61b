"""Whether a fault stays in while it is held: others may end it, and a report must not call it in then.

The ledger's changes say whether they still stand, and who changed the field since. Where they can't, the
fault's own evidence decides, when it was out in two looks in a row. What can't be seen is no end. A look
comes as soon as the observer hears of one of the objects, and in any case every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday import events, states
from gameday.extend import Evidence, Fault, Step
from gameday.ledger.operations import Ended
from gameday.platform.errors import Failure
from gameday.platform.objects import Object, Ref
from gameday.platform.shield import or_leave
from gameday.states import Presence

if TYPE_CHECKING:
    from gameday.ledger.ledger import Entry
    from gameday.safety.plan import StepPlan

SOONEST, LATEST = 0.5, 3.0  # seconds between two looks
SHARE = 10  # of a look that takes long: so many times as long passes until the next
NOBODY_KNOWN = "somebody else"

Name = tuple[str, str, str]  # kind, namespace, name


class Heard:
    """Wakes whoever looks at an object when a watch brings it."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Event, frozenset[Name]] = {}

    def of(self, obj: Object) -> None:
        """A watch brought this object."""
        meta = obj["metadata"]
        name = (obj.get("kind", ""), meta.get("namespace") or "", meta.get("name", ""))
        for changed, names in self._waiting.items():
            if name in names:
                changed.set()

    @contextmanager
    def about(self, refs: Iterable[Ref]) -> Iterator[asyncio.Event]:
        """Set whenever one of these objects comes by, until the block ends."""
        changed = asyncio.Event()
        self._waiting[changed] = frozenset((r.kind, r.namespace or "", r.name) for r in refs)
        try:
            yield changed
        finally:
            del self._waiting[changed]


@dataclass(frozen=True)
class Lapse:
    """The end of a fault that its run did not bring about. `foreseen`: by its kind it may end so."""

    by: str
    how: str
    after: float  # seconds from the evidence that it was in
    of: float  # seconds for which it should have been
    foreseen: bool

    def __str__(self) -> str:
        return f"was ended by {self.by} after {self.after:.0f} s of {self.of:g} s ({self.how})"


class Look:
    """Looks at one fault that is in, until somebody else ends it."""

    def __init__(self, fault: Fault[Any], planned: StepPlan, here: Step) -> None:
        self._fault, self._planned, self._here = fault, planned, here
        self._since = time.monotonic()
        self._told: set[int] = set()  # entries of which was said that somebody ended them
        self._out = False  # at the last look

    async def until_ended(self, heard: Heard) -> Lapse:
        """Wait for that; cancel it where the run itself ends the fault."""
        entries = self._here.ledger.entries
        with heard.about(
            [*(v.ref for v in self._planned.fault.victims), *(e.operation.ref for e in entries)]
        ) as changed:
            while True:
                begun = time.monotonic()
                changed.clear()
                if lapse := await self._look():
                    return lapse
                pause = max(SOONEST, SHARE * (time.monotonic() - begun))
                await asyncio.sleep(pause)
                if self._out:  # a second look decides
                    continue
                try:
                    async with asyncio.timeout(max(0.0, LATEST - pause)):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def _look(self) -> Lapse | None:
        was_out, self._out = self._out, False
        mine = [e for e in self._here.ledger.entries if e.state is states.Change.MADE]
        laid = {e.number: self._here.ledger.over(e) for e in mine}
        bare = [e for e in mine if not laid[e.number]]
        if mine and not bare:  # nothing of what a later step did is somebody else's
            return None
        lasting = [e for e in bare if not e.operation.irreversible]
        try:
            kube = self._here.kube
            ends = [(e, await or_leave(e.operation.ended_by_others(kube))) for e in lasting]
        except Failure:
            return None
        over = [end for _, end in ends if end is not None]
        # What a later step deleted is out for good; what it changed is in as long as that lies on it.
        covered = any(not e.operation.irreversible for later in laid.values() for e in later)
        if over and len(over) == len(lasting) and not covered:
            return self._lapse(
                over[0], foreseen=self._fault.heals or (await self._seen()).state is Presence.OVER
            )
        self._tell((e, end) for e, end in ends if end is not None)
        if covered:
            return None
        seen = await self._seen()
        self._out = seen.state in (Presence.OUT, Presence.OVER)
        if not (self._out and was_out):
            return None
        ended = all(e.operation.irreversible for e in mine)
        foreseen = seen.state is Presence.OVER or ended or self._fault.heals
        how = "; ".join(seen.facts) or "nothing of it is seen any more"
        return self._lapse(over[0] if over else Ended(how), foreseen=foreseen)

    async def _seen(self) -> Evidence:
        """The fault's evidence now; partial where no look was possible."""
        here = self._here
        try:
            evidence = await or_leave(self._fault.settled(self._planned.fault, here.injected, here.world))
        except Failure as error:
            evidence = Evidence(Presence.PARTIAL, (str(error),))
        here.record(**evidence.noted)
        return evidence

    def _lapse(self, end: Ended, *, foreseen: bool) -> Lapse:
        by = end.by or (events.THE_PLATFORM if foreseen else NOBODY_KNOWN)
        return Lapse(by, end.how, time.monotonic() - self._since, self._here.seconds or 0.0, foreseen)

    def _tell(self, ends: Iterable[tuple[Entry, Ended]]) -> None:
        """Say once of each change that it ended, while others of the fault still stand."""
        for entry, end in ends:
            if entry.number not in self._told:
                self._told.add(entry.number)
                by = end.by or NOBODY_KNOWN
                text = (
                    f"step {self._planned.path} ({self._planned.name}) was ended in part by {by}: {end.how}"
                )
                self._here.emit(events.Warn(source="fault", message=text))
