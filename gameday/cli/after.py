"""What follows a run: its report, and the message about it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gameday.cli.slack import SlackRun


async def finish(console: Console, folder: Path, slack: SlackRun | None) -> None:
    """Write the report, say where it is, and tell Slack."""
    from gameday.report import render

    with console.status("writing the report …"):
        outputs = await asyncio.to_thread(render, folder)
    retrospective = outputs.retrospective
    console.print(f"verdict: [bold]{retrospective.verdict}[/]  {retrospective.why}", highlight=False)
    console.print(f"report:  {outputs.html}", highlight=False, soft_wrap=True)
    if slack is not None:
        console.print()
        await slack.summarize(console, retrospective, folder)
