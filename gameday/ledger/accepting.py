"""Taking a change over: a person answers for what a run left, and the world is not touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from gameday.ledger import locks
from gameday.ledger.acceptance import Acceptance, keep
from gameday.ledger.ledger import Entry, Ledger
from gameday.ledger.operations import Patch, Refused, touched
from gameday.ledger.recovery import PLAIN, How, claimed, end, taken
from gameday.ledger.store import ClusterStore
from gameday.ledger.survey import survey
from gameday.platform.kube import Kube
from gameday.states import Change as State


class NoEntry(ValueError):
    """There is no such change that is open; the text says which there are."""


@dataclass(frozen=True)
class Accepted:
    """What was taken over, and what is open still."""

    entry: Entry
    left: tuple[Entry, ...]


async def accept(kube: Kube, run: str, number: int, acceptance: Acceptance, *, how: How = PLAIN) -> Accepted:
    """Close one open entry of a run that is dead. Raises NoEntry, PlatformError; fence.Lost if it is alive.

    With the last of them the run is over: its record, its locks and its Lease are removed.
    """
    await _must_be_open(kube, run, number)
    async with taken(kube, run, how) as lease:
        store = ClusterStore(kube, run, {}, lease, None)
        entries = await claimed(kube, store, run, lease)
        ledger = Ledger.taken(kube, run, store, entries, lambda _: None, lease)
        entry = _named(run, number, ledger.entries)
        store.vouch(number)
        await keep(kube, run, store.key, entry, acceptance)
        await ledger.accept(entry, asdict(acceptance), str(acceptance))
        left = tuple(e for e in ledger.entries if e.open)
        await lease.sure(undoing=True)
        await locks.free(kube, run, _over(ledger.entries))
        await ledger.close(restored=not left)
        await end(kube, run, lease, not left)
    return Accepted(entry, left)


def _over(entries: Sequence[Entry]) -> set[locks.Lock]:
    """The locks on objects whose changes are over, as far as nothing that is open reaches them.

    An open change reaches further than the object it names: one of a node ends pods, one of a DaemonSet takes
    nodes. So it holds what it touches, and all locks of the other sort; what nobody can read holds all.
    """
    try:
        open_ = {lock for e in entries if e.open for lock in _touched(e)}
        over = {lock for e in entries if not e.open and _ended(e) for lock in _touched(e)}
    except Refused:
        return set()
    return {
        lock
        for lock in over
        if not locks.meeting([lock], open_) and all((lock[0] == "Node") == (o[0] == "Node") for o in open_)
    }


def _ended(entry: Entry) -> bool:
    """Whether nothing of a change is at work any more: it was put back, or a person answers for it."""
    return entry.state is State.ACCEPTED or isinstance(entry.operation, Patch)


def _touched(entry: Entry) -> list[locks.Lock]:
    touches = touched(entry.operation)
    return [*(locks.lock_of(t.ref) for t in touches), *(("Node", t.runs_on) for t in touches if t.runs_on)]


async def _must_be_open(kube: Kube, run: str, number: int) -> None:
    """Looked at before the Lease is taken: nobody waits for that in vain."""
    found = next((r for r in (await survey(kube)).runs if r.run == run), None)
    if found is None:
        raise NoEntry(f"nothing of a run {run} is in force in {kube.context}; see gameday status")
    _named(run, number, found.entries)


def _named(run: str, number: int, entries: Iterable[Entry]) -> Entry:
    entries = [e for e in entries if e.open]
    for entry in entries:
        if entry.number == number:
            return entry
    names = ", ".join(f"{run}/{e.number}" for e in entries) or "none"
    raise NoEntry(f"run {run} has no open entry {number}; open are: {names}")


__all__ = ["Acceptance", "Accepted", "NoEntry", "accept"]
