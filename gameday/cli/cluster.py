"""Commands about runs that are in force in a cluster, from any machine."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.options import Context, Kubeconfig, fail, plainly

if TYPE_CHECKING:
    from gameday.ledger.recovery import InForce, Recovered
    from gameday.platform.kube import Kube

NOT_RESTORED = 5
JANITOR_EVERY = 10.0  # seconds


def status(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """List what is in force anywhere in the cluster."""
    with plainly():
        asyncio.run(_status(kubeconfig, context))


async def _status(kubeconfig: str | None, context: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from gameday.ledger.recovery import in_force
    from gameday.platform.kube import Kube

    console = Console()
    async with await Kube.connect(kubeconfig, context) as kube:
        runs = await in_force(kube)
        if not runs:
            console.print(f"nothing is in force in {kube.context}")
        for run in runs:
            state = (
                "[green]alive[/]"
                if run.alive
                else "[red]dead: restore it with[/] gameday recover --run " + run.run
            )
            console.print(f"[bold]{run.run}[/]  {state}", highlight=False)
            console.print(f"  {run.experiment} by {run.by} on {run.host} since {run.since}", highlight=False)
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
            for entry in run.open:
                table.add_row(
                    f"step {entry.step}", str(entry.operation.ref), entry.operation.summary, entry.state
                )
            console.print(table)


def abort(
    run: Annotated[str, typer.Argument(help="The run, as in `gameday status`.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; it goes into the report.")] = "gameday abort",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Tell a run, wherever it runs, to stop and to put everything back."""
    with plainly():
        asyncio.run(_abort(run, reason, kubeconfig, context))


async def _abort(run: str, reason: str, kubeconfig: str | None, context: str | None) -> None:
    from gameday.ledger.lease import ask_to_abort

    async with _alive(run, kubeconfig, context) as kube:
        await ask_to_abort(kube, run, f"{reason} (by {getpass.getuser()})")
    print(f"asked {run} to abort")


def note(
    run: Annotated[str, typer.Argument(help="The run, as in `gameday status`.", show_default=False)],
    text: Annotated[str, typer.Argument(help="What you saw or did.", show_default=False)],
    author: Annotated[str | None, typer.Option(help="Who says so; else your user name.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write something down in the timeline of a run that is alive, from any machine."""
    with plainly():
        asyncio.run(_note(run, author or getpass.getuser(), text, kubeconfig, context))


async def _note(run: str, author: str, text: str, kubeconfig: str | None, context: str | None) -> None:
    from gameday.ledger.lease import leave_note

    async with _alive(run, kubeconfig, context) as kube:
        await leave_note(kube, run, author, text)
    print(f"noted in {run}")


@asynccontextmanager
async def _alive(run: str, kubeconfig: str | None, context: str | None) -> AsyncIterator[Kube]:
    """A client for telling a run something; that it is not there is said plainly."""
    from gameday.platform.errors import ApiError
    from gameday.platform.kube import Kube

    async with await Kube.connect(kubeconfig, context) as kube:
        try:
            yield kube
        except ApiError as error:
            if error.status != 404:
                raise
            fail(f"no run {run} is alive in {kube.context}; see gameday status", 2)


def recover(
    run: Annotated[str | None, typer.Option(help="This run only; else every run that died.")] = None,
    force: Annotated[bool, typer.Option(help="Also a run that is alive.")] = False,
    watch: Annotated[bool, typer.Option(help="Go on for ever: a janitor for the cluster.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Put back what runs that died have left, from the cluster's record alone."""
    with plainly():
        left = asyncio.run(_recover(run, force, watch, kubeconfig, context))
    if left:
        raise typer.Exit(NOT_RESTORED)


async def _recover(
    run: str | None, force: bool, watch: bool, kubeconfig: str | None, context: str | None
) -> bool:
    from gameday.ledger.recovery import in_force
    from gameday.platform.errors import PlatformError
    from gameday.platform.kube import Kube

    async with await Kube.connect(kubeconfig, context) as kube:
        while True:
            try:
                runs = [r for r in await in_force(kube) if run is None or r.run == run]
                left = [await _restore(kube, r, force) for r in runs if force or not r.alive or run]
            except PlatformError as error:
                if not watch:
                    raise
                print(f"gameday: {error}")
            else:
                if not runs and not watch:
                    print(f"nothing to recover in {kube.context}" + (f" for {run}" if run else ""))
                alive = [r.run for r in runs if r.alive and not force and not run]
                if alive and not watch:
                    print(f"left alone, since alive: {', '.join(alive)}")
                if not watch:
                    return any(left)
            await asyncio.sleep(JANITOR_EVERY)


async def _restore(kube: Kube, run: InForce, force: bool) -> bool:
    """Restore one run; True when something is left."""
    from gameday.ledger.lease import Lost
    from gameday.ledger.recovery import recover

    try:
        result = await recover(kube, run, lambda _: None, force=force)
    except Lost as lost:
        fail(f"{lost}; abort it with: gameday abort {run.run}", 2)
    _show(result)
    return not result.restored


def _show(result: Recovered) -> None:
    print(f"{result.run}: {'restored' if result.restored else 'NOT fully restored'}")
    for entry in result.undone:
        note = f": {entry.message}" if entry.message else ""
        print(f"  {entry.state:<12} {entry.operation.ref} ({entry.operation.summary}){note}")
    for audit in result.audits:
        if audit.state == "left":
            print(f"  LEFT         {audit.object}: {audit.message}")
