"""Restoring one run from its record alone: what a machine that never saw the run can do.

The run's Lease is taken first, then our epoch is written into its record, and only what that write replaced
is undone: from then on nobody else can write the record, and nobody else may change the world for this run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gameday.events import Audited, Emit, Warn
from gameday.ledger import locks, restorations
from gameday.ledger.acceptance import accepted, what
from gameday.ledger.folder import FolderLedger
from gameday.ledger.keeping import check_is_of, ensure_namespace
from gameday.ledger.key import read_key, read_marked, remove_key
from gameday.ledger.lease import DEFAULTS, RunLease, Timing
from gameday.ledger.ledger import Entry, Ledger
from gameday.ledger.mark import NONE
from gameday.ledger.observer import Observer
from gameday.ledger.operations import LATE
from gameday.ledger.restorations import Restoration
from gameday.ledger.seal import Seal
from gameday.ledger.store import BEGUN, ClusterStore, record_ref
from gameday.ledger.survey import bounded, entries_of
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.states import Audit
from gameday.states import Change as State


@dataclass(frozen=True)
class Recovered:
    """How the restoration of a run ended."""

    run: str
    undone: tuple[Entry, ...]
    audits: tuple[Audited, ...]

    @property
    def restored(self) -> bool:
        return not any(a.state == Audit.LEFT for a in self.audits)


@dataclass(frozen=True)
class How:
    """Options of a restoration.

    `force`: also a run that may be alive. `allow_unverified`: execute also what nobody can prove to be the
    run's own. `observer` has watched the Lease before. `clock` is monotonic.
    """

    force: bool = False
    allow_unverified: bool = False
    observer: Observer | None = None
    timing: Timing = DEFAULTS
    clock: Callable[[], float] = time.monotonic
    by: str = "gameday recover"  # who says so, for who asks later
    late: float = LATE  # seconds in which the record of a run that died while it made one may still arrive


PLAIN = How()


async def recover(
    kube: Kube, run: str, emit: Emit, *, how: How = PLAIN, local: FolderLedger | None = None
) -> Recovered:
    """Take a run over and undo its ledger. Raises fence.Lost when it is alive, or another's by now.

    `local` is the ledger of the run's folder: what the record lacks of it is written there first.
    """
    async with taken(kube, run, how) as lease:
        store = ClusterStore(kube, run, {}, lease, local.scope if local else None)
        entries = await claimed(kube, store, run, lease, how, believe=local is not None, emit=emit)
        if local is not None:
            entries = await _with_folder(kube, store, local, entries)
        ledger = Ledger.taken(kube, run, store, entries, emit, lease)
        closed = {e.number for e in ledger.entries if not e.open}
        audits = await ledger.restore()
        undone = [e for e in reversed(ledger.entries) if e.open or e.number not in closed]
        await lease.sure(undoing=True)
        result = Recovered(run, tuple(undone), tuple(audits))
        await _note(kube, result, how.by, emit)
        await ledger.close(restored=result.restored)
        await end(kube, run, lease, result.restored)
    return result


async def _note(kube: Kube, result: Recovered, by: str, emit: Emit) -> None:
    """Keep who did what, before the record goes. What was restored is restored without that, too."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    undone = sum(e.state is State.UNDONE for e in result.undone)
    left = tuple(a.object for a in result.audits if a.state == Audit.LEFT)
    try:
        await restorations.keep(kube, result.run, Restoration(by, at, undone, left))
    except PlatformError as error:
        emit(Warn(source="ledger", message=f"who restored {result.run} could not be kept: {error}"))


async def forget(kube: Kube, run: str, *, how: How = PLAIN) -> list[Entry]:
    """Drop the record of a run that a person has restored by hand; what was open in it. Raises fence.Lost."""
    async with taken(kube, run, how) as lease:
        store = ClusterStore(kube, run, {}, lease, None)
        entries = await claimed(kube, store, run, lease, how, believe=True)
        await store.remove()
        await end(kube, run, lease, True)
    return [e for e in entries if e.open]


@asynccontextmanager
async def taken(kube: Kube, run: str, how: How) -> AsyncIterator[RunLease]:
    """The run's Lease, renewed while the block lasts, and given back when it fails."""
    await ensure_namespace(kube)
    lease = RunLease(kube, run, timing=how.timing, clock=how.clock)
    await lease.take(least=await _epoch(kube, run), force=how.force, observer=how.observer)
    keeper = asyncio.create_task(lease.keep(lambda _: None))  # the fence stops us
    try:
        yield lease
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        with contextlib.suppress(PlatformError):
            await lease.release(restored=False)


async def end(kube: Kube, run: str, lease: RunLease, restored: bool) -> None:
    """The Lease goes last: as long as it is there, others find what a run left."""
    if restored:
        await remove_key(kube, run)
        await locks.release(kube, run)
    await lease.release(restored=restored)


async def _epoch(kube: Kube, run: str) -> int:
    """The epoch that a run's record stands at, if the record can be believed.

    Raises PlatformError where what has the record's name is no record.
    """
    record = await kube.find(record_ref(run))
    if record is not None:
        check_is_of(record, run)
    seal = Seal.of(record) if record else None
    if seal is None or not seal.holds(await read_key(kube, run), run):
        return 0
    return seal.epoch


async def claimed(
    kube: Kube,
    store: ClusterStore,
    run: str,
    lease: RunLease,
    how: How = PLAIN,
    *,
    believe: bool = False,
    emit: Emit = lambda _: None,
) -> list[Entry]:
    """The entries of a run's record, which only its new owner writes from now on. Raises fence.Lost.

    The record must be the newest, by the mark beside its key, unless whoever asks can `believe` an older one.
    """
    key, mark = await read_marked(kube, run)
    found = await store.claim(key, mark, whole=not believe)
    begun = mark.digest == NONE if mark else key is None and lease.said == BEGUN
    if found is None and not believe and begun:
        await _outwait(run, how.late, emit)
        key, mark = await read_marked(kube, run)
        found = await store.claim(key, mark)
    return entries_of(*found, key, allow_unverified=how.allow_unverified) if found else []


async def _outwait(run: str, late: float, emit: Emit) -> None:
    """Wait until neither the key nor the record of a run that died while it made them can come any more."""
    text = f"run {run} died while it made its record, which may still arrive: looked at again in {late:.0f} s"
    emit(Warn(source="ledger", message=text))
    await asyncio.sleep(late)


async def _with_folder(
    kube: Kube, store: ClusterStore, local: FolderLedger, entries: Sequence[Entry]
) -> list[Entry]:
    """The entries of a record, with those of the folder that may be in force and that it does not know.

    Where nothing proves an entry to be the newest that the run wrote the folder's counts. What stands for
    entries that the record may lack (number 0) is not needed then. An entry that neither of them proves
    stays, and is not executed.
    """
    told = store.outranked({0, *(r["n"] for r in local.records)})
    kept = [e for e in entries if e.number not in told]
    known = {what(e.record()) for e in kept} | await accepted(kube, local.run, store.key)
    missing = [r for r in local.records if what(r) not in known and State.recorded(r.get("state")).open]
    kept = [e for e in kept if e.number not in {r["n"] for r in missing}]
    store.adopt(local.scope, told)
    if missing or len(kept) < len(entries):
        await store.append(missing)
    return sorted([*kept, *bounded(local.scope, local.run, missing)], key=lambda e: e.number)
