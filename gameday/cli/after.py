"""The end of a run's command: its report, and the message about it. Neither changes how the run ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gameday.cli.options import NOT_RESTORED

if TYPE_CHECKING:
    from rich.console import Console

    from gameday.cli.slack import SlackRun


async def finish(console: Console, folder: Path, slack: SlackRun | None) -> None:
    """Write the report, say where it is, and tell Slack. Raises OSError where there is no room for it."""
    from rich.text import Text

    from gameday.aside import aside
    from gameday.report import render

    with console.status(Text("writing the report …")):
        outputs = await aside(render, folder)
    retrospective = outputs.retrospective
    console.print(Text.assemble("verdict: ", (retrospective.verdict, "bold"), f"  {retrospective.why}"))
    console.print(f"report:  {outputs.html}", soft_wrap=True)
    if slack is not None:
        console.print()
        await slack.summarize(console, retrospective, folder)


async def finish_run(console: Console, folder: Path, slack: SlackRun | None, verdict: str, code: int) -> int:
    """Finish a run that ended with `code`, and return its exit code. Failures are printed, not raised."""
    from gameday import defect

    try:
        await finish(console, folder, slack)
    except Exception as error:
        console.print(f"verdict: {verdict}")
        if why := _wanting(error):
            console.print(f"no report: {why}; later: gameday report {folder.name}", soft_wrap=True)
            return code
        text = f"gameday: the report was not finished: this is a defect of gameday: {defect.sentence(error)}"
        console.print(f"{text}; {defect.keep_trace(error, folder)}", soft_wrap=True)
        return code if code == NOT_RESTORED else defect.EXIT_CODE
    return code


def _wanting(error: Exception) -> str:
    """The resource of the machine that an error lacked; "" if the error is a defect of gameday."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "there is no memory left"
    # So says threading.Thread.start where the stack of a thread finds no memory, as Rich's spinner has one.
    return "no thread can be started" if str(error) == "can't start new thread" else ""
