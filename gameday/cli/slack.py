"""Slack, as a run and its report use it. A failure there is shown, and never changes a verdict."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gameday.events import Emit, Event

if TYPE_CHECKING:
    from rich.console import Console

    from gameday.experiment.model import Experiment
    from gameday.platform.slack import Posted, Slack, Thread
    from gameday.report.model import Retrospective

TOKEN = "SLACK_BOT_TOKEN"
LINK = "GAMEDAY_REPORTS_URL"  # where the folder of reports is served, for the link in the message


@dataclass
class SlackRun:
    """The thread of one run, and the summary that takes the place of its first message."""

    channel: str
    token: str | None
    posted: Posted | None = None

    @classmethod
    def of(cls, experiment: Experiment) -> SlackRun | None:
        """Where this experiment posts; None when it does not."""
        channel = experiment.spec.report.slack
        return cls.to(channel) if channel else None

    @classmethod
    def to(cls, channel: str) -> SlackRun:
        return cls(channel, os.environ.get(TOKEN))

    @asynccontextmanager
    async def projection(self, emit: Emit) -> AsyncIterator[Callable[[Event], None]]:
        """Tells the thread what happens, as it happens."""
        if not self.token:
            yield lambda _: None
            return
        from gameday.platform.slack import Slack, Thread
        from gameday.report.slack_message import ThreadLines

        thread: Thread
        async with Thread(Slack(self.token), self.channel, ThreadLines(), emit) as thread:
            yield thread
        self.posted = thread.root

    async def summarize(self, console: Console, retrospective: Retrospective, folder: Path) -> None:
        """Post the summary, or print it as it would be posted."""
        from gameday.platform.slack import Slack, SlackError
        from gameday.report.slack_message import as_text, summary

        message = summary(retrospective, _link(folder))
        if not self.token:
            console.print(f"for {self.channel} (not posted: ${TOKEN} is not set)\n", style="dim")
            console.print(as_text(message.blocks))
            return
        try:
            slack: Slack = Slack(self.token)
            posted = await slack.post_summary(
                self.channel, message, _picture(retrospective), instead_of=self.posted
            )
        except SlackError as error:
            console.print(f"Slack: {error}", style="yellow")
            console.print(f"later: gameday report post {folder.name}")
            return
        (folder / "slack.json").write_text(json.dumps(asdict(posted)))
        console.print(f"posted to {self.channel}")


def _picture(retrospective: Retrospective) -> bytes:
    from gameday.report import png

    return png(retrospective)


def _link(folder: Path) -> str:
    base = os.environ.get(LINK)
    return f"{base.rstrip('/')}/{folder.name}/report.html" if base else str(folder / "report.html")
