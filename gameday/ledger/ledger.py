"""The ledger of one run: intend, make, undo, audit.

An entry is durable in both stores before its change is made. Entries of one object are undone
last-in-first-out; different objects are independent, and are undone at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gameday.events import Audited, Change, Emit, Warn
from gameday.ledger.operations import RUN_LABEL, Operation, Refused, Undone
from gameday.ledger.store import ClusterStore, LocalStore, Record
from gameday.ledger.unreadable import read
from gameday.platform.errors import ApiError, PlatformError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref

UNDO_PATIENCE = 600.0  # seconds that an undo waits for an API server that went away
AT_ONCE = 64  # changes under way at the same time
OPEN_STATES = frozenset({"intended", "made", "failed"})


@dataclass
class Entry:
    """One change: its number in the run, the step it belongs to, and how far it has come."""

    number: int
    step: str
    operation: Operation
    state: str = "intended"  # made, undone, kept, irreversible, failed
    message: str = ""

    def record(self) -> Record:
        return {"n": self.number, "step": self.step, "state": self.state, "op": self.operation.to_data()}

    @classmethod
    def from_record(cls, record: Record, where: Ref, run: str) -> Entry:
        """Never raises: where a record can't be read, its operation says so. `where`: the ledger's object."""
        return cls(record["n"], record["step"], read(record, where, run), str(record.get("state", "made")))

    @property
    def open(self) -> bool:
        """Whether there may be something left to undo."""
        return self.state in OPEN_STATES


def entries_of(found: Object, records: Iterable[Record]) -> list[Entry]:
    """The entries of a run's object in the cluster."""
    run = found["metadata"]["labels"][RUN_LABEL]
    return [Entry.from_record(r, Ref.of(found), run) for r in records]


@dataclass
class Ledger:
    """All changes of a run. `local` is None when another machine restores from the cluster's record."""

    kube: Kube
    run: str
    cluster: ClusterStore
    local: LocalStore | None
    emit: Emit
    entries: list[Entry] = field(default_factory=list)
    _told: bool = False  # that an undo has to wait

    @classmethod
    def begin(cls, kube: Kube, run: str, folder: Path, about: dict[str, str], emit: Emit) -> Ledger:
        """An empty ledger for a new run."""
        store = ClusterStore(kube, run, about)
        return cls(kube, run, store, LocalStore(folder / "ledger.jsonl"), emit)

    @classmethod
    def adopt(cls, kube: Kube, run: str, found: Object, emit: Emit) -> Ledger:
        """The ledger of a run that this process never saw, from its object in the cluster."""
        store = ClusterStore(kube, run, {})
        return cls(kube, run, store, None, emit, entries_of(found, store.adopt(found)))

    def step(self, step: str) -> StepLedger:
        """The ledger as one step sees it."""
        return StepLedger(self, step)

    async def intend(self, step: str, operations: Iterable[Operation]) -> list[Entry]:
        """Write changes down. When this returns they may be made."""
        first = len(self.entries) + 1
        entries = [Entry(n, step, o) for n, o in enumerate(operations, first)]
        if not entries:
            return []
        self.entries += entries
        try:
            await self._store(entries)
        except BaseException:
            for entry in entries:  # nothing was made: nothing is to be undone
                entry.state = "undone"
            raise
        for entry in entries:
            self._tell(entry)
        return entries

    async def make(self, entry: Entry) -> None:
        """Make an intended change; may be called again after it failed.

        A cancellation waits for the request under way: otherwise it could reach the cluster after
        the undo has looked. An operation that can be cut off for certain says so.
        """
        task = asyncio.ensure_future(entry.operation.make(self.kube))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if getattr(entry.operation, "interruptible", False):
                task.cancel()
            await asyncio.wait({task})
            raise
        entry.state = "made"
        self._tell(entry)

    async def undo(self, step: str | None = None) -> list[Entry]:
        """Take back what is in force (of one step and its inner steps, or all). Never raises.

        Returns the entries that were undone, kept or failed, newest first.
        """
        mine = [e for e in reversed(self.entries) if e.open and (step is None or _within(e.step, step))]
        chains: dict[object, list[Entry]] = {}
        for entry in mine:
            chains.setdefault(_key(entry.operation), []).append(entry)
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._undo_chain(chain, limit) for chain in chains.values()))
        if mine:
            # Undo is idempotent: a record that is behind the truth costs a second look, no more.
            with contextlib.suppress(PlatformError, OSError, ValueError):
                await self._store(mine)
        return mine

    async def _undo_chain(self, chain: Sequence[Entry], limit: asyncio.Semaphore) -> None:
        for entry in chain:
            async with limit:
                outcome = await self._patiently(entry)
            entry.state, entry.message = outcome.state, outcome.message
            self._tell(entry)

    async def _patiently(self, entry: Entry) -> Undone:
        """Undo, through an API server that is away or overloaded for up to UNDO_PATIENCE."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UNDO_PATIENCE
        delay = 0.2
        while True:
            try:
                return await entry.operation.undo(self.kube)
            except ApiError as error:
                if error.status < 500 and error.status not in (409, 429):
                    return Undone("failed", str(error))
                last: Exception = error
            except Unreachable as error:
                last = error
            except Exception as error:
                return Undone("failed", f"{type(error).__name__}: {error}")
            if loop.time() + delay > deadline:
                return Undone("failed", str(last))
            if not self._told:
                self._told = True
                self.emit(Warn(source="ledger", message=f"still trying to undo: {last}"))
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def audit(self) -> list[Audited]:
        """Read everything that was touched again. `left` is what is not as before."""
        audits = await asyncio.gather(*(self._audit(e) for e in self.entries))
        found = list({(a.object, a.state, a.message): a for a in audits}.values())
        for event in found:
            self.emit(event)
        return found

    async def _audit(self, entry: Entry) -> Audited:
        try:
            result = await entry.operation.audit(self.kube)
        except PlatformError as error:
            result = Undone("failed", str(error))
        state = {"undone": "restored", "failed": "left"}.get(result.state, result.state)
        return Audited(object=str(entry.operation.ref), state=state, message=result.message)

    async def close(self, *, restored: bool) -> None:
        """End the run: its record leaves the cluster if, and only if, everything is restored."""
        if self.local is not None:
            self.local.close()
        if restored:
            await self.cluster.remove()

    async def _store(self, entries: list[Entry]) -> None:
        records = [e.record() for e in entries]
        if self.local is not None:
            await self.local.append(records)
        await self.cluster.append(records)

    def _tell(self, entry: Entry) -> None:
        operation = entry.operation
        self.emit(
            Change(
                entry=entry.number,
                step=entry.step,
                operation=operation.kind,
                object=str(operation.ref),
                state=entry.state,
                summary=operation.summary,
                message=entry.message,
            )
        )


@dataclass(frozen=True)
class StepLedger:
    """What a fault gets: the ledger, bound to its step."""

    ledger: Ledger
    step: str

    @property
    def kube(self) -> Kube:
        return self.ledger.kube

    @property
    def run(self) -> str:
        return self.ledger.run

    async def intend(self, operations: Iterable[Operation]) -> list[Entry]:
        return await self.ledger.intend(self.step, operations)

    async def make(self, entry: Entry) -> None:
        await self.ledger.make(entry)

    async def perform(self, operations: Iterable[Operation | None]) -> list[Entry]:
        """Intend all, then make all at the same time. Raises the first failure, after all have ended."""
        entries = await self.intend(o for o in operations if o is not None)
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(entry: Entry) -> None:
            async with limit:
                await self.make(entry)

        results: list[Any] = await asyncio.gather(*(one(e) for e in entries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return entries


def _key(operation: Operation) -> object:
    ref = operation.ref
    return (ref.api_version, ref.kind, ref.namespace, ref.name)


def _within(step: str, outer: str) -> bool:
    return step == outer or step.startswith(outer + ".")


__all__ = ["Entry", "Ledger", "Refused", "StepLedger"]
