"""How runs ended that are in force nowhere: by the cluster, and by their logs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gameday.cli.aftermath import LOG
from gameday.cli.options import INVALID, fail
from gameday.inert import one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from gameday.ledger.listening import Answer
    from gameday.platform.kube import Kube


async def answer(told: Awaitable[Answer], kube: Kube, run: str, reports: Path | None) -> Answer:
    """The answer of a run that is told something. One that is not there has ended, or ends the command.

    `reports`: the folder with the logs of runs; None where nobody named the run, which was there then.
    """
    from gameday.ledger.listening import Answer, runs_alive
    from gameday.platform.errors import ApiError

    try:
        return await told
    except ApiError as error:
        if error.status != 404:
            raise
    if reports is not None and not await how_it_ended(kube, run, reports):
        unknown(kube, run, reports, await runs_alive(kube))
    return Answer.ENDED


async def how_it_ended(kube: Kube, run: str, reports: Path) -> str:
    """How a run ended; "" where neither the cluster nor this machine knows. Raises PlatformError."""
    from gameday.ledger import restorations

    if known := await restorations.read(kube, run):
        return str(known)
    return _logged(reports / run) or _changed_nothing(reports / run)


def _logged(folder: Path) -> str:
    """The last word of a run's log on everything being put back; "" where there is none."""
    from gameday import events
    from gameday.states import Verdict

    ended = ""
    try:
        for event in events.Log(folder / LOG):
            if isinstance(event, events.Verdict):
                left = event.verdict == Verdict.NOT_RESTORED
                ended = "" if left else f"{event.verdict}: {event.reason}"
            elif isinstance(event, events.Restoration):
                ended = f"put back by {event.by}" if event.state == "restored" else ""
    except OSError:
        return ""  # no folder of it here, or not ours to read
    return ended


def _changed_nothing(folder: Path) -> str:
    """The reason why no change of a run that died can be in force, by its folder; "" where one may be.

    A change is in the folder's ledger before it is made, and the run's log is there before its ledger.
    """
    from gameday.ledger.folder import NoLedger, read_folder
    from gameday.ledger.store import LOCAL_FILE
    from gameday.states import Change

    if (folder / LOG).is_file() and not (folder / LOCAL_FILE).exists():
        return "it died before it changed anything"
    try:
        records = read_folder(folder).records
    except (NoLedger, OSError):
        return ""
    if any(Change.recorded(record.get("state")).open for record in records):
        return ""
    return f"it died, and no change is in force by {folder / LOCAL_FILE}"


def unknown(kube: Kube, run: str, reports: Path, in_force: Iterable[str] = ()) -> NoReturn:
    """Say that no such run is known, and what there is instead."""
    others = ", ".join(in_force)
    text = f"no run {run} is known in {kube.context}; " + (f"in force there: {others}" if others else "")
    if (reports / run / LOG).is_file():
        text = (
            f"no run {run} is in force in {kube.context}, but its log does not say that all was put back; "
            f"if that is its cluster: gameday recover --from {reports / run}"
        )
    elif not others:
        text += "nothing is in force there"
    fail(one_line(text), INVALID)
