"""`gameday recover --accept`: a person takes an open change over, and record, log and report say so."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gameday.cli.aftermath import Aftermath
from gameday.cli.options import fail
from gameday.inert import one_line
from gameday.user import user_name

if TYPE_CHECKING:
    from gameday.ledger.accepting import Acceptance, Accepted
    from gameday.platform.kube import Kube


def entry_name(text: str, run: str | None) -> tuple[str, int]:
    """The run and the number of RUN/NUMBER, as `gameday status` shows it; of a number alone with --run."""
    named, slash, number = text.rpartition("/")
    named = named if slash else run or ""
    if not named or not number.isdecimal() or (run and named != run):
        fail(f"--accept {text!r} is no change: name it as in `gameday status`, RUN/NUMBER", 2)
    return named, int(number)


async def accept(kube: Kube, run: str, number: int, reason: str, reports: Path) -> None:
    """Take it over, and tell."""
    from gameday.ledger.accepting import Acceptance, NoEntry
    from gameday.ledger.accepting import accept as take_over
    from gameday.platform.fence import Lost

    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    acceptance = Acceptance(f"{user_name()}@{socket.gethostname()}", at, reason)
    try:
        done = await take_over(kube, run, number, acceptance)
    except NoEntry as error:
        fail(one_line(str(error)), 2)
    except Lost as lost:
        fail(one_line(f"{lost}; abort it with: gameday abort {run}"), 2)
    operation = done.entry.operation
    print(one_line(f"{run}/{number}: {operation.ref} ({operation.summary}) {acceptance}"))
    for entry in done.left:
        print(
            one_line(f"  open still  {run}/{entry.number}: {entry.operation.ref} ({entry.operation.summary})")
        )
    if not done.left:
        print(one_line(f"{run}: nothing of it is in force any more"))
    await _tell(Aftermath(reports / run, f"{acceptance.by} (gameday recover --accept)"), done, acceptance)


async def _tell(aftermath: Aftermath, done: Accepted, acceptance: Acceptance) -> None:
    """Add it to the run's log, and write the report again."""
    from gameday.events import Audited
    from gameday.states import Audit

    change = replace(done.entry.event(), message=str(acceptance))
    aftermath.hear(change)
    if all(e.operation.ref != done.entry.operation.ref for e in done.left):
        aftermath.hear(Audited(object=change.object, state=Audit.ACCEPTED, message=str(acceptance)))
    await aftermath.end(restored=not done.left, message=f"{change.object} was {acceptance}")
