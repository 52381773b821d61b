"""What is known of a run that is in force nowhere: from the cluster, and from its log on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gameday.cli.aftermath import LOG
from gameday.cli.options import INVALID, fail
from gameday.inert import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gameday.platform.kube import Kube


async def how_it_ended(kube: Kube, run: str, reports: Path) -> str:
    """How a run ended; "" where neither the cluster nor this machine knows. Raises PlatformError."""
    from gameday.ledger import restorations

    if known := await restorations.read(kube, run):
        return str(known)
    return _logged(reports / run / LOG)


def _logged(path: Path) -> str:
    """The last word of a run's log on everything being put back; "" where there is none."""
    from gameday import events
    from gameday.states import Verdict

    ended = ""
    try:
        for event in events.Log(path):
            if isinstance(event, events.Verdict):
                left = event.verdict == Verdict.NOT_RESTORED
                ended = "" if left else f"{event.verdict}: {event.reason}"
            elif isinstance(event, events.Restoration):
                ended = f"put back by {event.by}" if event.state == "restored" else ""
    except OSError:
        return ""  # no folder of it here, or not ours to read
    return ended


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
