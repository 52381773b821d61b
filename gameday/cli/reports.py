"""Commands about what a run left behind: its report, and telling others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gameday.cli.options import Reports, fail, plainly


def report(
    what: Annotated[str, typer.Argument(help="A run, or `post`.", metavar="[post] RUN", show_default=False)],
    run: Annotated[str | None, typer.Argument(hidden=True)] = None,
    reports: Reports = Path("reports"),
    channel: Annotated[str | None, typer.Option(help="Slack channel; else the experiment's.")] = None,
) -> None:
    """Render a run's report again from its log alone; `report post RUN` posts it to Slack."""
    from rich.console import Console

    from gameday.cli.after import finish, post

    posting = what == "post" and run is not None
    folder = _folder(run if posting and run else what, reports)
    with plainly():
        if posting:
            asyncio.run(post(Console(), folder, channel))
        else:
            asyncio.run(finish(Console(), folder, None, slack=False))


def _folder(run: str, reports: Path) -> Path:
    """The folder of a run, by its name, a unique beginning of it, or its path."""
    named = Path(run)
    if (named / "events.jsonl").is_file():
        return named
    found = sorted(p.parent for p in reports.glob(f"{run}*/events.jsonl"))
    if len(found) == 1:
        return found[0]
    if not found:
        fail(f"there is no run {run} in {reports}/ (a folder with an events.jsonl)", 2)
    fail(f"{run} could be {', '.join(p.name for p in found)}", 2)
