"""Records of which nothing proves that they are all that their run wrote: what is kept of them."""

from __future__ import annotations

from collections.abc import Iterable

from gameday.ledger.packing import Record, damaged, unproved
from gameday.ledger.seal import entry_holds
from gameday.states import Change as State


def doubted(records: Iterable[Record], key: bytes | None, run: str, *, signed: bool) -> list[Record]:
    """The records of what a run did not seal like this, with one that stands for those that it may lack.

    `signed`: the head is the run's, but the entries are not those it speaks of. Of two entries under one
    number the one that the run signed counts. A person who answered for what was lacking is asked anew, since
    nobody knows what else is lacking by now.
    """
    found = {r["n"]: r for r in sorted(records, key=lambda r: entry_holds(key, run, r))}
    rest = found.pop(0, unproved())
    if not State.recorded(rest.get("state")).open:
        rest = unproved()
    if signed:
        rest = damaged(len(found), "its entries are not those that were sealed")
    return [rest, *(found[n] for n in sorted(found))]
