"""Commands about what a run left behind: its report, and telling others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.options import Context, Kubeconfig, Reports, fail, plainly
from gameday.cli.terminal import console

if TYPE_CHECKING:
    from gameday.cli.slack import SlackRun

INCOMPLETE = 2


def report(
    what: Annotated[str, typer.Argument(help="A run, or `post`.", metavar="[post] RUN", show_default=False)],
    run: Annotated[str | None, typer.Argument(hidden=True)] = None,
    reports: Reports = Path("reports"),
    channel: Annotated[str | None, typer.Option(help="Slack channel; else the experiment's.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Render a run's report again from its log; `report post RUN` also posts it to Slack.

    Where the log ends with changes in force, the cluster is asked what became of them, if it can be.
    """
    from gameday.cli.slack import SlackRun
    from gameday.report import NoLog

    posting = what == "post" and run is not None
    folder = _folder(run if posting and run else what, reports)
    slack = None
    if posting:
        named = channel or _channel(folder)
        if not named:
            fail("the experiment names no Slack channel: give one with --channel", INCOMPLETE)
        slack = SlackRun.to(named)
    with plainly():
        try:
            asyncio.run(_report(folder, slack, kubeconfig, context))
        except NoLog as error:
            fail(str(error), INCOMPLETE)
        except OSError as error:
            fail(f"the report can't be written: {error}")


async def _report(folder: Path, slack: SlackRun | None, kubeconfig: str | None, context: str | None) -> None:
    from gameday.cli.after import finish
    from gameday.cli.aftermath import ask_the_cluster

    await ask_the_cluster(folder, kubeconfig, context)
    await finish(console(), folder, slack)


def _channel(folder: Path) -> str | None:
    """The channel that the run's own experiment names, from its log."""
    from gameday.events import Log, RunStarted

    started = next((e for e in Log(folder / "events.jsonl") if isinstance(e, RunStarted)), None)
    report = started.experiment.get("spec", {}).get("report") if started else None
    return report.get("slack") if report else None


def _folder(run: str, reports: Path) -> Path:
    """The folder of a run, by its name, a unique beginning of it, or its path."""
    named = Path(run)
    if (named / "events.jsonl").is_file():
        return named
    found = sorted(p.parent for p in reports.glob(f"{run}*/events.jsonl"))
    if len(found) == 1:
        return found[0]
    if not found:
        fail(f"there is no run {run} in {reports}/ (a folder with an events.jsonl)", INCOMPLETE)
    return fail(f"{run} could be {', '.join(p.name for p in found)}", INCOMPLETE)
