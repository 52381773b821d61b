"""Restoring from the cluster's record alone: what a machine that never saw the run can do.

The janitor is this with a loop around it: it restores every run whose lease has expired.
"""

from __future__ import annotations

from dataclasses import dataclass

from gameday.events import Audited, Emit
from gameday.ledger.lease import RunLease, expired
from gameday.ledger.ledger import Entry, Ledger, entries_of
from gameday.ledger.operations import RUN_LABEL
from gameday.ledger.store import NAMESPACE, ensure_namespace, records, unpack
from gameday.platform.errors import ApiError, not_found
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.resources import LEASES


@dataclass(frozen=True)
class InForce:
    """A run that has a record in the cluster. `alive`: it renews its lease."""

    run: str
    alive: bool
    experiment: str
    by: str
    host: str
    since: str
    entries: tuple[Entry, ...]
    record: Object

    @property
    def open(self) -> tuple[Entry, ...]:
        """The changes that may still be in force."""
        return tuple(e for e in self.entries if e.open)


async def in_force(kube: Kube) -> list[InForce]:
    """All runs that left something to undo, or are about to."""
    leases = {lease["metadata"]["labels"][RUN_LABEL]: lease for lease in await _leases(kube)}
    found = []
    for record in await records(kube):
        meta = record["metadata"]
        run = meta["labels"][RUN_LABEL]
        about = {k.removeprefix("gameday.dev/"): v for k, v in (meta.get("annotations") or {}).items()}
        lease = leases.get(run)
        found.append(
            InForce(
                run=run,
                alive=lease is not None and not expired(lease),
                experiment=about.get("experiment", ""),
                by=about.get("by", ""),
                host=about.get("host", ""),
                since=str(meta["creationTimestamp"]),
                entries=tuple(entries_of(record, unpack(record))),
                record=record,
            )
        )
    return found


async def _leases(kube: Kube) -> list[Object]:
    try:
        return await kube.list(LEASES, NAMESPACE, labels=RUN_LABEL)
    except ApiError as error:
        if not_found(error):
            return []
        raise


@dataclass(frozen=True)
class Recovered:
    """How the restoration of a run ended."""

    run: str
    undone: tuple[Entry, ...]
    audits: tuple[Audited, ...]

    @property
    def restored(self) -> bool:
        return not any(a.state == "left" for a in self.audits)


async def recover(kube: Kube, run: InForce, emit: Emit, *, force: bool = False) -> Recovered:
    """Take a run's lease over and undo its ledger. Raises lease.Lost when it is alive, without `force`."""
    await ensure_namespace(kube)
    lease = RunLease(kube, run.run)
    await lease.acquire(force=force)
    ledger = Ledger.adopt(kube, run.run, run.record, emit)
    undone = await ledger.undo()
    audits = await ledger.audit()
    result = Recovered(run.run, tuple(undone), tuple(audits))
    await ledger.close(restored=result.restored)
    await lease.release()
    return result
