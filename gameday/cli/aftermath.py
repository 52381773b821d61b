"""A restoration after a run's own end is added to the log in its folder, and the report is made again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gameday.inert import one_line

if TYPE_CHECKING:
    from gameday.events import Event

LOG = "events.jsonl"
ASK_WITHIN = 5.0  # seconds for a cluster that is asked what became of a run


class Aftermath:
    """Adds to the log of a run that is over, where this machine has its folder. Never raises.

    Events are kept until the end: no disk holds up an undo, and a run which turns out to be alive is left
    alone. `by`: who puts things back, and with what.
    """

    def __init__(self, folder: Path, by: str) -> None:
        self._folder, self._by = folder, by
        self._heard: list[Event] = []

    def hear(self, event: Event) -> None:
        """Take an event over into the log."""
        self._heard.append(replace(event, at=event.at or time.time()))

    async def end(self, *, restored: bool, message: str = "") -> None:
        """Say how it ended, and write the report again."""
        from gameday.aside import aside
        from gameday.report import render

        try:
            if trouble := await aside(partial(self.close, restored=restored, message=message)):
                print(one_line(f"no report says so: {trouble}"))
            else:
                print(one_line(f"report:  {(await aside(render, self._folder)).html}"))
        except Exception as error:  # the restoration is over, and its exit code stands
            print(one_line(f"no report: {error}; later: gameday report {self._folder}"))

    def close(self, *, restored: bool, message: str = "", at: float = 0.0) -> str:
        """Write what was heard, and how it ended; `at`: when (Unix seconds), where that was before.

        Returns why the log could not be written, or "".
        """
        from gameday import events
        from gameday.run.log import Log

        path, told = self._folder / LOG, self._heard
        begun = [events.Restoration(by=self._by, state="begun", at=told[0].at)] if told else []
        ended = events.Restoration(
            by=self._by, state="restored" if restored else "left", message=message, at=at
        )
        try:
            if not path.is_file():
                return f"there is no log of it in {self._folder.parent}/"
            log = Log(path, after=max((e.seq for e in events.Log(path)), default=0))
            for event in (*begun, *told, ended):
                log.emit(event)
            log.close()
        except Exception as error:  # a file that others may not read, or wrote in
            return f"its log can't be written: {error}"
        return ""


async def ask_the_cluster(folder: Path, kubeconfig: str | None, context: str | None) -> None:
    """Learn what became of a run whose log ends with changes in force, and write it there. Never raises."""
    from gameday.platform.errors import Failure

    try:
        if not _left(folder):
            return
        async with asyncio.timeout(ASK_WITHIN):
            told = await _told(folder, kubeconfig, context)
    except TimeoutError:
        told = f"the cluster did not answer within {ASK_WITHIN:g} s"
    except (Failure, OSError, ValueError) as error:
        told = f"the cluster could not be asked: {error}"
    if told:
        print(one_line(f"what became of its changes is not known: {told}"))


def _left(folder: Path) -> bool:
    """Whether a log ends with changes that may be in force."""
    from gameday import events
    from gameday.states import Change

    last: dict[int, str] = {}
    for event in events.Log(folder / LOG):
        if isinstance(event, events.Change):
            last[event.entry] = event.state
        elif isinstance(event, events.Restoration) and event.state == "restored":
            last.clear()
    return any(Change.recorded(state).open for state in last.values())


async def _told(folder: Path, kubeconfig: str | None, context: str | None) -> str:
    """Why nothing is known; "" where the log was completed."""
    from gameday.ledger import restorations
    from gameday.ledger.folder import read_folder
    from gameday.ledger.keeping import cluster_id
    from gameday.ledger.key import key_ref
    from gameday.ledger.survey import survey
    from gameday.platform.kube import Kube

    local = read_folder(folder)
    async with await Kube.connect(kubeconfig, context) as kube:
        if await cluster_id(kube) != local.cluster:
            return f"{kube.context} is another cluster: choose the run's with --context"
        if any(run.run == local.run for run in (await survey(kube)).runs):
            return f"its record is in {kube.context} still: see gameday status"
        done = await restorations.read(kube, local.run)
        if await kube.find(key_ref(local.run)):  # it goes last, and no other Secret is taken for it
            return f"its key is in {kube.context} still, and its record is not: see gameday recover"
        where = f"nothing of the run is left in {kube.context}"
        if done is None:
            return f"{where}, and nobody left word that it was put back"
        said = f"{done}; {where}"
        return Aftermath(folder, done.by).close(restored=not done.left, message=said, at=done.when)
