"""Where the ledger is kept: a file in the run's folder, and one object in the cluster.

Both are written before a change is made. The file is synced to disk; the object is what lets any
machine restore the cluster. Writes to the cluster are gathered: while one is on its way, all that
comes meanwhile goes into the next, so that draining 100 nodes is a handful of writes.

Each write of the object is conditional on the version that we know, and carries a seal that names it: when
an answer is lost, or the object was changed meanwhile, the seal tells our own write from somebody else's.
Whoever finds another's has lost the run, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gameday.aside import aside
from gameday.experiment.text import plural
from gameday.ledger.doubt import doubted
from gameday.ledger.keeping import NAMESPACE, check_is_of, ensure_namespace, metadata, name_of, remove
from gameday.ledger.key import make_key, new_key, note, remove_key
from gameday.ledger.mark import DONE, Mark, RecordLost
from gameday.ledger.operations import RUN_LABEL
from gameday.ledger.owner import Owner
from gameday.ledger.packing import LIMIT, RECORD_KEY, Record, pack, unpack
from gameday.ledger.seal import Seal, digest_of, entry_holds, sign_entry
from gameday.platform import fallback, fence
from gameday.platform.conditional import ATTEMPTS, among_others, create_if_absent, write_if
from gameday.platform.errors import ApiError, NotRecorded, Unreachable, not_found
from gameday.platform.fence import Lost
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import CONFIG_MAPS
from gameday.platform.shield import to_its_own_end

if TYPE_CHECKING:
    from gameday.ledger.scope import Scope
    from gameday.platform.kube import Kube

RECORD_LABEL = "gameday.dev/ledger"
BEGUN = "begun"  # the Lease's note, before a key or a record is made: either may arrive late
LOCAL_FILE = "ledger.jsonl"
NOTED_WITHIN = 5.0  # seconds that an undo waits for the disk


class LocalStore:
    """Appends records to ledger.jsonl, synced to disk before `append` returns. The first line is the head."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _not_recorded(path, error) from error
        self._lock = threading.Lock()
        self._waiting: dict[object, bytes] = {}
        self._turn = asyncio.Lock()

    def begin(self, head: Object) -> None:
        """Write down which run it is, in which cluster, and what it may touch. Raises NotRecorded."""
        self._write(json.dumps(head, separators=(",", ":")).encode() + b"\n")

    async def append(self, records: list[Record]) -> None:
        """Raises NotRecorded where the records are not on disk: then no change may be made."""
        ticket = object()
        text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
        self._waiting[ticket] = text.encode()
        try:
            async with self._turn:
                if ticket in self._waiting:  # else another took ours along
                    batch = dict(self._waiting)
                    await aside(self._write, b"".join(batch.values()))
                    for written in batch:
                        self._waiting.pop(written, None)
        finally:
            self._waiting.pop(ticket, None)

    async def note(self, records: list[Record]) -> None:
        """Write down what was undone. A disk that is full or hangs must not matter any more. Never raises."""
        with contextlib.suppress(NotRecorded, TimeoutError):
            async with asyncio.timeout(NOTED_WITHIN):
                await self.append(records)

    def _write(self, data: bytes) -> None:
        with self._lock:
            end = os.fstat(self._fd).st_size
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
                os.fsync(self._fd)
            except OSError as error:
                with contextlib.suppress(OSError):  # a refused change leaves no half line
                    os.ftruncate(self._fd, end)
                raise _not_recorded(self._path, error) from error

    def close(self) -> None:
        if self._lock.acquire(blocking=False):  # else a write hangs, and the descriptor stays its own
            os.close(self._fd)


def _not_recorded(path: Path, error: OSError) -> NotRecorded:
    why = f"{path} can't be written ({error.strerror})"
    return NotRecorded(f"{why}: a change that can't be written down is not made")


class ClusterStore:
    """All records of one run in one ConfigMap, `gameday-<run>`, the newest state of each entry."""

    def __init__(
        self,
        kube: Kube,
        run: str,
        about: dict[str, str],
        owner: Owner,
        scope: Scope | None,
    ) -> None:
        self._kube = kube
        self._ref = record_ref(run)
        self._run = run
        self._about = about  # annotations: experiment, by, host, …
        self._owner = owner
        self._scope = scope.to_data() if scope else {}
        self.key: bytes | None = None  # the run's
        self._made: bytes | None = None  # the key of a new run, before it is known to be kept as well
        self._marked: Object | None = None  # the key's Secret, as we last wrote a mark into it
        self._believed = True  # whether the seal we continue was the run's own: ours are signed only then
        self._records: dict[int, Record] = {}
        self._foreign: set[int] = set()  # entries that the run did not write: they stay unsigned
        self._found: Object | None = None  # the object as we know it; None before it exists
        self._serial = 0
        self._lock = asyncio.Lock()
        self._dirty = 0  # how many changes to the records there were, and how many are written
        self._written = 0

    async def append(self, records: list[Record]) -> None:
        """Returns when the records are in the cluster. Raises what the write raised.

        Shielded: a write that was cut off would leave us ignorant of the object's version.
        """
        await to_its_own_end(self._append(records))

    async def _append(self, records: list[Record]) -> None:
        self._records.update({r["n"]: r for r in records})
        self._dirty += 1
        mine = self._dirty
        async with self._lock:
            if self._written >= mine:
                return  # an earlier writer took ours along
            upto = self._dirty
            await self._write_through()
            self._written = upto

    # -- writing -------------------------------------------------------------------------------

    async def _write_through(self) -> None:
        """Write, also when an answer is lost on the way. Raises Lost when the record is another's now."""
        with fence.under(partial(self._owner.check, undoing=True)), fallback.to_ourselves():
            await self._write_as_owner()

    async def _write_as_owner(self) -> None:
        fence.check()
        if self.key is None and self._found is None:
            self._made = self._made or new_key()
            await self._owner.note(BEGUN)
            await make_key(self._kube, self._run, self._made)
            self.key = self._made
        data, seal = self._sealed()

        async def attempt() -> bool:
            try:
                written = await self._write(data, seal)
            except (ApiError, Unreachable) as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
                if await self._is_in(seal):
                    return True
                raise
            if written is None:
                return await self._is_in(seal)
            self._wrote(written)
            return True

        await among_others(self._ref, attempt)
        await self._note_written(seal)

    async def _note(self, digest: str) -> None:
        """Write beside the key how far the record is."""
        if self.key is not None:
            self._marked = await note(self._kube, self._run, Mark(self._serial, digest), self._marked)

    async def _note_written(self, seal: Seal) -> None:
        """No write of what we don't believe moves the mark: whoever looks next must not believe it either."""
        if self._believed:
            await self._note(seal.digest)

    def _sealed(self) -> tuple[str, Seal]:
        """The entries as they are written, and the seal of this very write."""
        epoch, key = self._owner.epoch, self.key
        records = [
            sign_entry(key, self._run, r, epoch) if key and n not in self._foreign else r
            for n, r in self._records.items()
        ]
        data = pack(records)
        if len(data) > LIMIT:
            raise NotRecorded(
                f"the ledger of {plural(len(self._records), 'change')} is larger than one object can hold: "
                "lower the blast radius"
            )
        self._serial += 1
        seal = Seal(epoch, self._owner.holder, self._serial, digest_of(data), self._scope)
        return data, seal.signed(key if self._believed else None, self._run)

    async def _write(self, data: str, seal: Seal) -> Object | None:
        """The object as it is then; None where it is not as we know it."""
        body = {"data": {"seal": seal.to_text()}, "binaryData": {RECORD_KEY: data}}
        if self._found is not None:
            return await write_if(self._kube, self._found, body)
        about = {f"gameday.dev/{k}": v for k, v in self._about.items()}
        meta = metadata(self._run, labels={RECORD_LABEL: "true"}, annotations=about)
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **body}
        return await create_if_absent(self._kube, manifest)

    async def _is_in(self, sent: Seal) -> bool:
        """Whether a write whose answer we have not is in; if not, it may be tried again. Raises Lost."""
        found = await self._kube.find(self._ref)
        if found is None:
            if self._found is None:
                return False
            why = "its record was deleted"
            self._owner.stop(why)
            raise Lost(why)
        seal = Seal.of(found)
        if seal == sent and _digest(found) == sent.digest:
            self._wrote(found)
            return True
        if seal is not None and self._is_ours(found, seal):
            self._found = found  # an earlier write of ours, or somebody else's label, say
            return False
        writer = seal.writer if seal else "somebody"
        why = f"{writer} wrote the record of run {self._run}, and restores it"
        self._owner.lose(why)
        raise Lost(why)

    def _is_ours(self, found: Object, seal: Seal) -> bool:
        """Whether this process wrote it, to the last byte."""
        signed = seal.holds(self.key, self._run) or self.key is None or not self._believed
        return signed and seal.writer == self._owner.holder and _digest(found) == seal.digest

    def _wrote(self, found: Object) -> None:
        self._found = found
        if "deletionTimestamp" in found["metadata"]:
            self._owner.stop("its record is being deleted")

    # -- taking over ---------------------------------------------------------------------------

    async def claim(
        self, key: bytes | None, mark: Mark | None = None, *, whole: bool = True
    ) -> tuple[Object, list[Record]] | None:
        """Write our epoch into the record that another process left, and read it: from then on only we write.

        The record is the one that our write replaced: whatever its author sends later is refused. Its entries
        that the key does not prove stay as they are. None when there is no record. Raises Lost.
        `mark` is that of the newest write that is known of: an older record, or none, is no `whole` one.
        Raises RecordLost.
        """
        self.key, self._serial = key, mark.serial if mark else 0
        for _ in range(ATTEMPTS):
            found = await self._kube.find(self._ref)
            if found is not None:
                check_is_of(found, self._run)
            old = Seal.of(found) if found else None
            signed = old if old and old.holds(key, self._run) else None
            newest = True
            try:
                if mark:
                    mark.check(self._run, found is not None, signed)
            except RecordLost:
                if whole:
                    raise
                newest = False
            if found is None:
                return None
            if signed and signed.epoch >= self._owner.epoch:
                raise Lost(f"{signed.writer} took run {self._run} over first")
            self._believed = signed is not None and newest
            if old and not self._scope:
                self._scope = old.scope
            self._found, self._serial = found, max(self._serial, signed.serial if signed else 0) + 1
            packed, records = _packed(found), unpack(found)
            if not signed or signed.digest != digest_of(packed):
                records = doubted(records, key, self._run, signed=signed is not None)
                packed = pack(records)  # from now on the record itself says so
            seal = Seal(self._owner.epoch, self._owner.holder, self._serial, digest_of(packed), self._scope)
            seal = seal.signed(key if self._believed else None, self._run)
            written = None
            with contextlib.suppress(Unreachable):  # the next look shows whether it is in
                written = await self._write(packed, seal)
            written = written or await self._kube.find(self._ref)
            if written is None or Seal.of(written) != seal:
                continue
            self._wrote(written)
            await self._note_written(seal)
            self._records = {r["n"]: r for r in records}
            self._foreign = {n for n, r in self._records.items() if not entry_holds(key, self._run, r)}
            return found, records
        raise Lost(f"the record of run {self._run} keeps changing")

    def outranked(self, numbers: Iterable[int]) -> set[int]:
        """Those of these entries that nothing proves to be the newest that the run wrote."""
        return self._foreign.intersection(numbers) if self._believed else set(numbers)

    def adopt(self, scope: Scope | None, dropped: Iterable[int]) -> None:
        """Believe what is left without some entries: the run's folder says what there was. Written later."""
        self._scope = scope.to_data() if scope else {}
        self._believed = True
        for n in dropped:
            self._records.pop(n, None)
            self._foreign.discard(n)

    def vouch(self, number: int) -> None:
        """A person answers for an entry: it is signed from now on.

        So is the head, where it stands for what the record may lack: what is taken from it later is seen. It
        bounds nothing then that the run signed, since nobody knows what was approved.
        """
        self._foreign.discard(number)
        if number == 0 and not self._believed:
            self._believed, self._scope = True, {}

    # -- the end -------------------------------------------------------------------------------

    async def remove(self) -> None:
        """Everything is restored: the record has served, and its key. Raises Lost when it is another's now.

        It may be there though we never heard so.
        """
        if not (self._dirty or self._found):
            return

        async def attempt() -> bool:
            found, self._found = self._found or await self._kube.find(self._ref), None
            if found is None:
                return True
            if (seal := Seal.of(found)) is None or not self._is_ours(found, seal):
                raise Lost(f"the record of run {self._run} is another's")
            await self._note(DONE)
            await self._owner.note(DONE)  # nothing of it may arrive late any more
            return await remove(self._kube, found)

        await among_others(self._ref, attempt)
        await remove_key(self._kube, self._run, self._made)


def record_ref(run: str) -> Ref:
    """The object that holds a run's record."""
    return Ref("v1", "ConfigMap", name_of(run), NAMESPACE)


def _packed(found: Object) -> str:
    return str((found.get("binaryData") or {}).get(RECORD_KEY) or "")


def _digest(found: Object) -> str:
    return digest_of(_packed(found))


async def records(kube: Kube) -> list[Object]:
    """The objects of all runs in the cluster that say they are records, the oldest first."""
    try:
        found = await kube.list(CONFIG_MAPS, NAMESPACE, labels=f"{RECORD_LABEL}=true")
    except ApiError as error:
        if not_found(error):
            return []
        raise
    return sorted(found, key=lambda o: str(o["metadata"].get("creationTimestamp")))


__all__ = [
    "NAMESPACE",
    "RECORD_KEY",
    "RUN_LABEL",
    "ClusterStore",
    "LocalStore",
    "Record",
    "ensure_namespace",
    "pack",
    "record_ref",
    "records",
    "unpack",
]
