"""Commands with which people stop runs: one, all, or whatever may come."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.options import FAILED, INVALID, Context, Kubeconfig, Reports, fail, plainly
from gameday.user import user_name

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.safety.lever import Window

Reason = Annotated[str, typer.Option(help="Why; runs say so in their reports.")]


def halt(
    reason: Reason = "",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends by itself: RFC 3339, or from now, as 2h.")
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Add a freeze window that begins then.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the freeze window of --from ends.")
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Pull the lever: every run in the cluster aborts, and new ones are refused."""
    if (begin is None) != (to is None):
        fail("a freeze window has both --from and --to", INVALID)
    if begin is not None and until is not None:
        fail("--until ends a halt; a freeze window ends with --to", INVALID)
    with plainly():
        if begin is not None and to is not None:
            asyncio.run(_freeze(_time(begin), _time(to), reason, kubeconfig, context))
        else:
            asyncio.run(_halt(reason, _time(until) if until else None, kubeconfig, context))


def unhalt(
    window: Annotated[
        int | None, typer.Option(help="Take this freeze window off instead, as `gameday status` counts them.")
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Take the halt off; freeze windows stay."""
    with plainly():
        asyncio.run(_unhalt(window, kubeconfig, context))


def abort(
    run: Annotated[
        str | None, typer.Argument(help="The run, as in `gameday status`.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run in the cluster.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it goes into the report.")] = "gameday abort",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the run's answer.")] = 10.0,
    reports: Reports = Path("reports"),
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Tell a run, wherever it runs, to stop and put everything back; wait until it does.

    Exit codes: 0, it heard, or has ended; 2, no such run is known; 3, it did not answer. That it has ended
    is known while it is asked, from its folder in --reports, and of a run that died, once it is restored.
    """
    if (run is None) != everything:
        fail("name one run, or say --all", INVALID)
    with plainly():
        asyncio.run(_abort(run, f"{reason} (by {user_name()})", wait, reports, kubeconfig, context))


async def _halt(reason: str, until: datetime | None, kubeconfig: str | None, context: str | None) -> None:
    from gameday.ledger.listening import runs_alive
    from gameday.platform.kube import Kube
    from gameday.safety.lever import Halt, pull

    since = datetime.now().astimezone()
    if until is not None and until <= since:
        fail(f"--until {until.isoformat()} is over", INVALID)
    async with await Kube.connect(kubeconfig, context) as kube:
        await pull(kube, Halt(reason=reason, by=user_name(), since=since, until=until))
        print(f"halted: no run may begin in {kube.context}; take it off with: gameday unhalt")
        for run in await runs_alive(kube):
            print(f"  {run} aborts")


async def _freeze(
    start: datetime, end: datetime, reason: str, kubeconfig: str | None, context: str | None
) -> None:
    from gameday.platform.kube import Kube
    from gameday.safety.lever import Window, change_windows

    if end <= start:
        fail("a freeze window ends after it begins", INVALID)
    window = Window(start=start, to=end, reason=reason)
    async with await Kube.connect(kubeconfig, context) as kube:
        await change_windows(kube, lambda windows: (*windows, window))
    print(f"frozen from {window}")


async def _unhalt(number: int | None, kubeconfig: str | None, context: str | None) -> None:
    from gameday.platform.kube import Kube
    from gameday.safety.lever import change_windows, let_go, why_pulled

    def without(windows: tuple[Window, ...]) -> tuple[Window, ...]:
        if number is None or not 1 <= number <= len(windows):
            fail(f"there is no freeze window {number}; gameday status counts {len(windows)}", INVALID)
        return (*windows[: number - 1], *windows[number:])

    async with await Kube.connect(kubeconfig, context) as kube:
        await (let_go(kube) if number is None else change_windows(kube, without))
        why = await why_pulled(kube)
    print(f"still {why}" if why else "runs may begin")


async def _abort(
    run: str | None, reason: str, wait: float, reports: Path, kubeconfig: str | None, context: str | None
) -> None:
    from gameday.cli.known import answer
    from gameday.ledger.listening import Answer, ask_to_abort, runs_alive
    from gameday.platform.kube import Kube

    async with await Kube.connect(kubeconfig, context) as kube:
        runs = [run] if run is not None else await runs_alive(kube)
        if not runs:
            print(f"no run is alive in {kube.context}")
        folder = reports if run is not None else None
        answers = await asyncio.gather(
            *(answer(ask_to_abort(kube, r, reason, wait), kube, r, folder) for r in runs)
        )
    for asked, said in zip(runs, answers, strict=True):
        print(f"{asked} {said.value}" + (f" within {wait:g} s" if said is Answer.NONE else ""))
    if silent := [asked for asked, said in zip(runs, answers, strict=True) if said is Answer.NONE]:
        fail(
            f"not known to abort: {', '.join(silent)}. Whatever runs there may be dead or cut off: look with "
            f"gameday status, and restore what it left: gameday recover --run {silent[0]}",
            FAILED,
        )


async def lever_lines(kube: Kube) -> list[str]:
    """The lever, for people; nothing where there is none."""
    from gameday.platform.errors import PlatformError
    from gameday.safety.lever import read_lever

    now = datetime.now().astimezone()
    try:
        lever = await read_lever(kube)
    except PlatformError as error:
        return [f"no run may begin: {error}"]
    why = lever.pulled(now)
    lines = [f"no run may begin: {why}"] if why else []
    windows = [f"freeze window {n}: {w}" for n, w in enumerate(lever.windows, 1) if w.to > now]
    return lines + windows


def _time(text: str) -> datetime:
    """A time with its offset, or so long from now."""
    from datetime import timedelta

    from gameday.experiment.quantity import parse_duration

    now = datetime.now().astimezone()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now + timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            fail(f"expected a time as 2027-01-31T18:00:00+01:00, or from now as 2h, found {text!r}", INVALID)
    if at.tzinfo is None:
        fail(f"{text} has no offset: write {text}Z, or {text}+01:00, say", INVALID)
    return at
