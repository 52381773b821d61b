"""Where the ledger is kept: a file in the run's folder, and one object in the cluster.

Both are written before a change is made. The file is synced to disk; the object is what lets any
machine restore the cluster. Writes to the cluster are gathered: while one is on its way, all that
comes meanwhile goes into the next, so that draining 100 nodes is a handful of writes.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday.ledger.operations import RUN_LABEL
from gameday.platform.errors import ApiError, Unreachable, not_found
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import CONFIG_MAPS, NAMESPACES

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

NAMESPACE = "gameday"
RECORD_LABEL = "gameday.dev/ledger"
RECORD_KEY = "entries.jsonl.gz"
ATTEMPTS = 4
LIMIT = 1_000_000  # bytes of a ConfigMap, base64 included; the API server refuses more than 1 MiB

Record = dict[str, Any]  # {"n": entry number, "step": …, "state": …, "op": the operation's data}


class LocalStore:
    """Appends records to ledger.jsonl, synced to disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    async def append(self, records: list[Record]) -> None:
        text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
        await asyncio.to_thread(self._write, text)

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class ClusterStore:
    """All records of one run in one ConfigMap, `gameday-<run>`, the newest state of each entry."""

    def __init__(self, kube: Kube, run: str, about: dict[str, str]) -> None:
        self._kube = kube
        self._ref = Ref("v1", "ConfigMap", f"gameday-{run}", NAMESPACE)
        self._run = run
        self._about = about  # annotations: experiment, by, host, …
        self._records: dict[int, Record] = {}
        self._version = ""  # resourceVersion of our last write; "" before the object exists
        self._lock = asyncio.Lock()
        self._dirty = 0  # how many changes to the records there were, and how many are written
        self._written = 0

    async def append(self, records: list[Record]) -> None:
        """Returns when the records are in the cluster. Raises what the write raised.

        Shielded: a write that was cut off would leave us ignorant of the object's version.
        """
        await asyncio.shield(self._append(records))

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

    async def _write_through(self) -> None:
        """Write, also when an answer is lost on the way and the object is newer than we know."""
        for attempt in range(ATTEMPTS):
            try:
                await self._write()
                return
            except (ApiError, Unreachable) as error:
                lost = isinstance(error, Unreachable) or error.status == 409
                if not lost or attempt == ATTEMPTS - 1:
                    raise
                found = await self._kube.find(self._ref)
                self._version = found["metadata"]["resourceVersion"] if found else ""

    async def _write(self) -> None:
        data = pack(list(self._records.values()))
        if len(data) > LIMIT:
            raise ValueError(
                f"the ledger of {len(self._records)} changes is larger than one object can hold: "
                "lower the blast radius"
            )
        if self._version:
            body = {"metadata": {"resourceVersion": self._version}, "binaryData": {RECORD_KEY: data}}
            written = await self._kube.patch(self._ref, body, "merge")
        else:
            written = await self._create(data)
        self._version = written["metadata"]["resourceVersion"]

    async def _create(self, data: str) -> Object:
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._ref.name,
                "namespace": NAMESPACE,
                "labels": {RUN_LABEL: self._run, RECORD_LABEL: "true"},
                "annotations": {f"gameday.dev/{k}": v for k, v in self._about.items()},
            },
            "binaryData": {RECORD_KEY: data},
        }
        return await self._kube.create(manifest)

    def adopt(self, found: Object) -> list[Record]:
        """Continue the record that another process wrote."""
        self._version = found["metadata"]["resourceVersion"]
        records = unpack(found)
        self._records = {r["n"]: r for r in records}
        return records

    async def remove(self) -> None:
        """Everything is restored: the record has served. It may be there though we never heard so."""
        if self._dirty or self._version:
            await self._kube.delete(self._ref)
            self._version = ""


def pack(records: list[Record]) -> str:
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def unpack(config_map: Object) -> list[Record]:
    """The records of a ledger object. What can't be read of it is one record that says so."""
    try:
        packed = base64.b64decode(config_map["binaryData"][RECORD_KEY])
    except (KeyError, TypeError, ValueError) as error:
        return [_damaged(0, f"{type(error).__name__}: {error}")]
    text, wrong = _inflate(packed)
    found: list[Record] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            found.append({"n": int(record["n"]), "step": str(record["step"]), **record})
        except (ValueError, KeyError, TypeError):
            wrong = wrong or f"line {number} is no record"
    return [*found, *([_damaged(len(found), wrong)] if wrong else [])]


def _inflate(packed: bytes) -> tuple[str, str]:
    """The text as far as it can be had, and what is wrong with the rest."""
    inflate, text = zlib.decompressobj(wbits=31), b""
    try:
        for at in range(0, len(packed), 64):
            text += inflate.decompress(packed[at : at + 64])
    except zlib.error as error:
        return text.decode(errors="replace"), str(error)
    return text.decode(errors="replace"), "" if inflate.eof else "its end is missing"


def _damaged(before: int, why: str) -> Record:
    told = f"{before} changes could be read, the rest could not: {why}"
    return {"n": 0, "step": "?", "state": "made", "op": {"op": "damaged", "why": told}}


async def records(kube: Kube) -> list[Object]:
    """The ledger objects of all runs in the cluster, the oldest first."""
    try:
        found = await kube.list(CONFIG_MAPS, NAMESPACE, labels=f"{RECORD_LABEL}=true")
    except ApiError as error:
        if not_found(error):
            return []
        raise
    return sorted(found, key=lambda o: str(o["metadata"]["creationTimestamp"]))


async def ensure_namespace(kube: Kube) -> None:
    """Create the namespace that holds ledgers and leases. It is the one thing that stays."""
    try:
        await kube.get(Ref("v1", "Namespace", NAMESPACE))
    except ApiError as error:
        if not not_found(error):
            raise
        body = {"apiVersion": NAMESPACES.api_version, "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        try:
            await kube.create(body)
        except ApiError as race:
            if race.status != 409:
                raise
