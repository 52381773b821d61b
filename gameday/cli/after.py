"""What follows a run: the report, and Slack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from gameday.events import Event
    from gameday.experiment.loader import Loaded


@asynccontextmanager
async def slack_thread(loaded: Loaded, wanted: bool) -> AsyncIterator[tuple[()]]:
    yield ()


async def finish(console: Console, folder: Path, loaded: Loaded | None, slack: bool) -> None:
    """Write the report and say where it is."""
    import asyncio

    from gameday.report import render

    with console.status("writing the report …"):
        outputs = await asyncio.to_thread(render, folder)
    console.print(f"report: {outputs.html}", highlight=False, soft_wrap=True)


async def post(console: Console, folder: Path, channel: str | None) -> None:
    ...
