"""A survey of a cluster: every run that left something there, and the objects that only look so.

Whatever else carries our labels, by mistake or to mislead, is named and skipped: it stops nobody from
restoring the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from gameday.experiment.text import shorten
from gameday.ledger.holder import Holding, holding
from gameday.ledger.keeping import NAMESPACE, name_of
from gameday.ledger.key import read_key
from gameday.ledger.ledger import AT_ONCE, Entry
from gameday.ledger.observer import LOOK_EVERY, renewal_of
from gameday.ledger.operations import RUN_LABEL
from gameday.ledger.packing import RECORD_KEY, UNPROVED, Record, unpack
from gameday.ledger.scope import Scope
from gameday.ledger.seal import Seal, entry_holds
from gameday.ledger.store import record_ref, records
from gameday.ledger.unreadable import NotUndone, Unreadable, withhold
from gameday.platform.errors import ApiError, PlatformError, not_found
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, annotations_of, labels_of
from gameday.platform.resources import LEASES
from gameday.platform.shield import at_most
from gameday.states import Change as State

LOOK_FOR = 3.0  # seconds in which a run that is alive renews its Lease
READ_WITHIN = 10.0  # seconds for a look at one object


@dataclass(frozen=True)
class InForce:
    """A run that has a Lease or a record in the cluster.

    `alive`: its Lease is held, by a process that is not provably gone. Whether it is renewed only shows when
    it is watched. `proved`: every entry of the record is the run's own.
    """

    run: str
    alive: bool
    experiment: str
    by: str
    host: str
    since: str
    entries: tuple[Entry, ...]
    record: Object | None
    lease: Object | None = None
    proved: bool = True

    @property
    def open(self) -> tuple[Entry, ...]:
        """The changes that may still be in force."""
        return tuple(e for e in self.entries if e.open)


@dataclass(frozen=True)
class Survey:
    """`strangers` are sentences about objects that carry our labels, but are nobody's."""

    runs: tuple[InForce, ...]
    strangers: tuple[str, ...]


async def survey(kube: Kube) -> Survey:
    """All runs, and all that looks like one. Raises PlatformError."""
    listed, found = await asyncio.gather(_leases(kube), records(kube))
    strangers: list[str] = []
    leases = _by_run(listed, strangers)
    recorded = {
        run: record
        for run, record in _by_run(found, strangers).items()
        if _is_record(run, record, leases, strangers)
    }
    keys = dict(zip(recorded, await asyncio.gather(*(_key(kube, run) for run in recorded)), strict=True))
    runs = [_in_force(run, leases.get(run), record, keys[run]) for run, record in recorded.items()]
    runs += [_in_force(run, lease, None, None) for run, lease in leases.items() if run not in recorded]
    return Survey(tuple(runs), tuple(strangers))


def entries_of(
    found: Object, read: Iterable[Record], key: bytes | None, *, allow_unverified: bool = False
) -> list[Entry]:
    """The entries of a run's record. Those that must not be executed say so when they are undone.

    What nobody can prove is open, whatever its state is said to be, and bounds nothing that the run wrote.
    `allow_unverified`: a person has seen it, and wants it executed, as all that there is to execute.
    """
    run, seal = labels_of(found)[RUN_LABEL], Seal.of(found)
    read = [r for r in read if not (allow_unverified and _stands_for_others(r))]
    believed = seal and (allow_unverified or seal.holds(key, run))
    entries = bounded(Scope.from_data(seal.scope) if seal and believed else None, run, read)
    for entry, record in zip(entries, read, strict=True):
        if entry_holds(key, run, record):
            continue
        if not entry.open:
            entry.state = State.MADE  # nor does anything prove that it is closed
        if not allow_unverified and not isinstance(entry.operation, NotUndone):
            why = (
                f"not executed, since nothing proves that run {run} wrote it; if it is right: "
                f"gameday recover --run {run} --allow-unverified. It is"
            )
            entry.operation = withhold(entry.operation, record["op"], why)
    return entries


def _stands_for_others(record: Record) -> bool:
    return isinstance(op := record.get("op"), dict) and op.get("op") == UNPROVED


def bounded(scope: Scope | None, run: str, read: Iterable[Record]) -> list[Entry]:
    """The entries of records; what the run might not touch is not executed, whoever wrote it."""
    entries = []
    for record in read:
        entry = Entry.from_record(record, record_ref(run), run)
        operation = entry.operation
        unbounded = scope is None or operation.irreversible or isinstance(operation, Unreadable)
        if scope and not unbounded and not scope.covers(operation.ref):
            why = f"not executed, since run {run} was not approved to touch it"
            entry.operation = withhold(operation, record["op"], why)
        entries.append(entry)
    return entries


def is_proved(found: Object, read: Iterable[Record], key: bytes | None) -> bool:
    """Whether a record is its run's own, head and entries."""
    run, seal = labels_of(found)[RUN_LABEL], Seal.of(found)
    return seal is not None and seal.holds(key, run) and all(entry_holds(key, run, r) for r in read)


def _in_force(run: str, lease: Object | None, record: Object | None, key: bytes | None) -> InForce:
    known = record or lease or {"metadata": {}}
    about = {k.removeprefix("gameday.dev/"): str(v) for k, v in annotations_of(known).items()}
    read = unpack(record) if record else []
    return InForce(
        run=run,
        alive=lease is not None and holding(lease) is Holding.HELD,
        experiment=about.get("experiment", ""),
        by=about.get("by", ""),
        host=about.get("host", ""),
        since=str(known["metadata"].get("creationTimestamp", "")),
        entries=tuple(entries_of(record, read, key)) if record else (),
        record=record,
        lease=lease,
        proved=record is None or is_proved(record, read, key),
    )


def _by_run(found: Iterable[Object], strangers: list[str]) -> dict[str, Object]:
    """Objects by the run that their label and their name agree on."""
    mine: dict[str, Object] = {}
    for obj in found:
        run = labels_of(obj).get(RUN_LABEL)
        if run and obj["metadata"]["name"] == name_of(run):
            mine[run] = obj
        else:
            strangers.append(f"{Ref.of(obj)} carries our label, but is no run's: skipped")
    return mine


def _is_record(run: str, record: Object, leases: dict[str, Object], strangers: list[str]) -> bool:
    """One without entries is a run's that was damaged, if the run has a Lease; else it never was one."""
    entries = record.get("binaryData")
    if run in leases or (isinstance(entries, dict) and RECORD_KEY in entries):
        return True
    strangers.append(f"{Ref.of(record)} carries our label, but holds no entries: skipped")
    return False


async def read_back(kube: Kube, entries: Iterable[Entry]) -> dict[int, str]:
    """The state of open changes in words, by their numbers.

    A record says that a change is intended before it is made, and most are not written down again once they
    are: whether it is in force the object says.
    """
    limit = asyncio.Semaphore(AT_ONCE)
    entries = tuple(entries)
    words = await asyncio.gather(*(_known(kube, entry, limit) for entry in entries))
    return {entry.number: text for entry, text in zip(entries, words, strict=True)}


async def _known(kube: Kube, entry: Entry, limit: asyncio.Semaphore) -> str:
    if entry.state is not State.INTENDED or isinstance(entry.operation, NotUndone):
        return _RECORDED[entry.state]
    if not entry.operation.verifiable:
        return f"{UNSEEN}: nobody can read it back"
    try:
        async with limit:
            seen = await at_most(READ_WITHIN, entry.operation.audit(kube))
        words, message = _SEEN[State(seen.state)], seen.message
    except Exception as error:  # an operation may be another package's
        words, message = UNSEEN, shorten(str(error), 300)
    return f"{words}: {message}" if message and entry.operation.summary not in message else words


UNSEEN = "intended, and whether it was made is not known"
_RECORDED = {  # of the states in which a change is open
    State.INTENDED: UNSEEN,
    State.MADE: "made",
    State.FAILED: "its undo did not succeed",
}
_SEEN = {  # of what an audit says
    State.FAILED: "in force",
    State.UNDONE: "intended, and not in force",
    State.KEPT: "intended, and not in force",
    State.IRREVERSIBLE: "made, and can't be undone",
    State.ACCEPTED: "taken over by a person",
}


async def _key(kube: Kube, run: str) -> bytes | None:
    try:
        return await read_key(kube, run)
    except PlatformError:
        return None  # what can't be proved is shown, and not executed


async def _leases(kube: Kube) -> list[Object]:
    try:
        return await kube.list(LEASES, NAMESPACE, labels=RUN_LABEL)
    except ApiError as error:
        if not_found(error):
            return []
        raise


async def seen_renewed(kube: Kube, runs: Iterable[InForce]) -> set[str]:
    """The runs whose Leases are renewed while we look, for at most LOOK_FOR."""
    first = {r.run: renewal_of(r.lease) for r in runs if r.lease and r.alive}
    renewed: set[str] = set()
    end = asyncio.get_running_loop().time() + LOOK_FOR
    while first.keys() - renewed and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(LOOK_EVERY)
        leases = _by_run(await _leases(kube), [])
        renewed |= {r for r in first if r in leases and renewal_of(leases[r]) != first[r]}
    return renewed
