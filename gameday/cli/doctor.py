"""`gameday doctor`: every integration, and what to do about those that do not answer."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gameday.cli.options import FAILED, Context, Kubeconfig, ReachPrometheus, Slurm, asks_prometheus, plainly
from gameday.cli.terminal import console
from gameday.inert import one_line

if TYPE_CHECKING:
    from gameday.safety.doctor import Found

MARKS = {"ok": ("✓", "green"), "absent": ("-", "dim"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


@asks_prometheus
def doctor(
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: ReachPrometheus = None,
    slurmrestd: Slurm = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Ask every system that game days use whether it is there; the exit code is 3 when one is broken."""
    with plainly():
        found = asyncio.run(_doctor(kubeconfig, context, prometheus, slurmrestd))
    if as_json:
        print(json.dumps([vars(each) for each in found], indent=1))
    else:
        _show(found)
    if any(each.state == "broken" for each in found):
        raise typer.Exit(FAILED)


async def _doctor(
    kubeconfig: str | None, context: str | None, prometheus: dict[str, Any] | None, slurm: str | None
) -> list[Found]:
    from gameday.cli.patience import asking
    from gameday.platform.kube import Kube
    from gameday.platform.prometheus.access import client, merged
    from gameday.platform.slack import Slack
    from gameday.platform.slurm.client import Slurm as SlurmClient
    from gameday.platform.slurm.transport import Via
    from gameday.safety.doctor import Systems, examine

    token = os.environ.get("SLACK_BOT_TOKEN")
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await Kube.connect(kubeconfig, context))
        access = merged(None, prometheus or {})
        asked = await stack.enter_async_context(client(access, Path())) if access else None
        via = SlurmClient.of(Via(url=slurm), kube) if slurm else None
        stack.enter_context(asking(kube))
        return await examine(Systems(kube, asked, Slack(token) if token else None, via))


def _show(found: list[Found]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "what was found", "what to do"):
        table.add_column(title, overflow="fold")
    for each in found:
        mark, style = MARKS[each.state]
        table.add_row(Text(mark, style), each.check, Text(one_line(each.says)), Text(one_line(each.advice)))
    console().print(table)
