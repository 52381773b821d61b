"""Who took changes of runs over, in one object that outlives their records: `gameday-accepted`.

A restoration from a run's folder leaves such changes alone, too, though the folder does not know of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.packing import Record
from gameday.ledger.remembered import remember
from gameday.ledger.seal import digest_of, mac_of, same
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.ledger.ledger import Entry

ACCEPTED = Ref("v1", "ConfigMap", "gameday-accepted", NAMESPACE)


@dataclass(frozen=True)
class Acceptance:
    """Who takes a change over, when (RFC 3339, UTC) and why."""

    by: str
    at: str
    why: str

    def __str__(self) -> str:
        return f"taken over by {self.by} at {self.at}: {self.why}"


def what(record: Record) -> tuple[int, str]:
    """The subject of an acceptance: the number of an entry, and a digest of its step and its object.

    The values that it puts back are left out: they may be others by now, since the undo of an
    earlier change may have gone over to it. Where it stands for what could not be read, that is all of it.
    """
    op = record.get("op")
    about = [record["step"], op.get("op"), op["ref"]] if isinstance(op, dict) and "ref" in op else [op]
    return record["n"], digest_of(json.dumps(about, sort_keys=True))


async def accepted(kube: Kube, run: str, key: bytes | None) -> set[tuple[int, str]]:
    """`what` somebody took over of a run.

    While the run has a key, which is until it is over, each must be signed with it.
    """
    found = await kube.find(ACCEPTED)
    keys = ((found or {}).get("data") or {}).items()
    named = ((_named(k), text) for k, text in keys)
    mine = {int(n): text for (name, n), text in named if name == run and n.isdecimal()}
    return {(n, digest) for n, text in mine.items() if (digest := _digest(text, key, run, n))}


def _digest(text: str, key: bytes | None, run: str, number: int) -> str:
    """The digest in an acceptance; "" in one that can't be read, or that the run's key did not sign."""
    try:
        told = json.loads(text)
        mac, digest = str(told.pop("mac", "")), str(told["digest"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    signed = key is None or same(mac, _mac(key, run, number, told))
    return digest if signed else ""


def _mac(key: bytes, run: str, number: int, told: dict[str, str]) -> str:
    return mac_of(key, "accepted", run, {"n": number, "told": told})


async def keep(kube: Kube, run: str, key: bytes | None, entry: Entry, acceptance: Acceptance) -> None:
    """Write it where it stays, signed with the run's key. Raises PlatformError."""
    operation, (_, digest) = entry.operation, what(entry.record())
    about = {"object": str(operation.ref), "change": operation.summary, "digest": digest}
    told = {**asdict(acceptance), **about}
    signed = told | ({"mac": _mac(key, run, entry.number, told)} if key else {})
    await remember(kube, ACCEPTED, f"{run}.{entry.number}", json.dumps(signed), lambda name: _named(name)[0])


def _named(name: str) -> tuple[str, str]:
    """The run and the number that an acceptance is kept under."""
    run, _, number = name.rpartition(".")
    return run, number
