"""Locks on targets: runs on disjoint targets go side by side, overlapping ones are refused.

All locks are in one object, `gameday-locks`, a run's under its name. A run takes all of its locks in one
write that is conditional on the version that was read. So the order in which they are taken doesn't matter,
nobody waits for a part of them, and a plan for hundreds of targets costs the same two requests as one for a
single target; with a Lease for each of them it would be hundreds of requests, and as many objects to clean
up.

A lock is a path: ("Node", "gpu-0") or ("namespace", "inference", "Deployment", "web"). Two locks meet where
one is the beginning of the other, so that a whole namespace is one lock, too. A run that has neither Lease
nor record any more has no locks either: whoever meets its entry drops it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.lease import ref_of
from gameday.ledger.store import record_ref
from gameday.platform.conditional import among_others, create_if_absent, delete_if, write_if
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

Lock = tuple[str, ...]
LOCKS = Ref("v1", "ConfigMap", "gameday-locks", NAMESPACE)
ATTEMPTS = 10  # at a write that other runs race
MOST = 200  # locks of one kind in one place; more of them lock the place


class Locked(PlatformError):
    """A target is another run's."""


def lock_of(ref: Ref) -> Lock:
    """The lock on an object. Pods are chosen anew when their step comes: they stand for their namespace."""
    if ref.kind == "Pod" and ref.namespace:
        return ("namespace", ref.namespace)
    if ref.kind == "Namespace":
        return ("namespace", ref.name)
    if ref.namespace:
        return ("namespace", ref.namespace, ref.kind, ref.name)
    return ("Node" if ref.kind == "SlurmNode" else ref.kind, ref.name)


def gathered(locks: Iterable[Lock]) -> list[Lock]:
    """The same locks without those that another one covers; very many in one place become the place's."""
    found = set(locks)
    places: dict[Lock, int] = {}
    for lock in found:
        places[lock[:-1]] = places.get(lock[:-1], 0) + 1
    found |= {place for place, count in places.items() if place and count > MOST}
    return sorted(lock for lock in found if not any(lock[:n] in found for n in range(1, len(lock))))


def meeting(mine: Iterable[Lock], others: Iterable[Lock]) -> Lock | None:
    """One of `mine` that meets one of `others`."""
    whole, parts = set(others), {o[:n] for o in others for n in range(1, len(o))}
    for lock in mine:
        if lock in parts or any(lock[:n] in whole for n in range(1, len(lock) + 1)):
            return lock
    return None


def words(lock: Lock) -> str:
    """A lock for people."""
    if lock[0] == "namespace" and len(lock) > 2:
        return f"{lock[2]} {lock[1]}/{'/'.join(lock[3:])}".rstrip("/")
    return " ".join(lock)


async def held(kube: Kube) -> dict[str, list[Lock]]:
    """The locks of every run. Entries that are none of ours are left out."""
    found = await kube.find(LOCKS)
    return _entries(found) if found else {}


async def acquire(kube: Kube, run: str, wanted: Iterable[Lock]) -> None:
    """Take all of these locks for a run beside those that it has, or none of them.

    Raises Locked, naming the other run; PlatformError.
    """
    mine = gathered(wanted)
    if not mine:
        return

    async def attempt() -> bool:
        found = await kube.find(LOCKS)
        entries = _entries(found) if found else {}
        met = _met(entries, run, mine)
        gone = {other for other in met if not await _exists(kube, other)}
        if blocking := sorted(met.keys() - gone):
            other = blocking[0]
            text = f"{words(met[other])} is a target of run {other} as well"
            raise Locked(f"{text}: wait for its end, or: gameday abort {other}")
        entry = _text([*entries.get(run, ()), *mine])
        return await _write(kube, found, {run: entry, **dict.fromkeys(gone)})

    await among_others(LOCKS, attempt, ATTEMPTS)


async def free(kube: Kube, run: str, over: Iterable[Lock]) -> None:
    """Let go of some locks of a run, and keep the others. Raises PlatformError."""
    gone = set(over)

    async def attempt() -> bool:
        found = await kube.find(LOCKS)
        held = _entries(found).get(run, []) if found else []
        if found is None or not gone.intersection(held):
            return True
        return await _write(kube, found, {run: _text(lock for lock in held if lock not in gone)})

    await among_others(LOCKS, attempt, ATTEMPTS)


async def release(kube: Kube, run: str) -> None:
    """Free the locks of a run. Raises PlatformError."""

    async def attempt() -> bool:
        found = await kube.find(LOCKS)
        if found is None or run not in (found.get("data") or {}):
            return True
        if set(found["data"]) == {run}:
            return await delete_if(kube, found)  # unless somebody takes one meanwhile
        return await _write(kube, found, {run: None})

    await among_others(LOCKS, attempt, ATTEMPTS)


def _text(locks: Iterable[Lock]) -> str:
    return json.dumps(gathered(locks), separators=(",", ":"))


async def _write(kube: Kube, found: Object | None, data: dict[str, str | None]) -> bool:
    """Write entries into the version that was read; False when it was changed meanwhile."""
    if found is not None:
        written = await write_if(kube, found, {"data": data})
    else:
        meta = {"name": LOCKS.name, "namespace": NAMESPACE}
        mine = {k: v for k, v in data.items() if v is not None}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": mine}
        written = await create_if_absent(kube, body)
    if written is None:
        await asyncio.sleep(0.02)
    return written is not None


async def _exists(kube: Kube, run: str) -> bool:
    """Whether a run has a Lease or a record: its locks go before these."""
    there = await asyncio.gather(kube.find(ref_of(run)), kube.find(record_ref(run)))
    return any(there)


def _met(entries: dict[str, list[Lock]], run: str, mine: list[Lock]) -> dict[str, Lock]:
    found = {other: meeting(mine, theirs) for other, theirs in entries.items() if other != run}
    return {other: lock for other, lock in found.items() if lock}


def _entries(found: Object) -> dict[str, list[Lock]]:
    entries: dict[str, list[Lock]] = {}
    for run, text in (found.get("data") or {}).items():
        try:
            locks = json.loads(text)
            entries[run] = [tuple(map(str, lock)) for lock in locks if isinstance(lock, list) and lock]
        except (ValueError, TypeError):
            continue
    return entries
