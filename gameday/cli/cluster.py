"""Commands about runs that are in force in a cluster, from any machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.accepting import entry_name
from gameday.cli.aftermath import Aftermath
from gameday.cli.lever import lever_lines
from gameday.cli.options import INVALID, NOT_RESTORED, Context, Kubeconfig, Reports, fail, plainly
from gameday.cli.terminal import console, never_wait
from gameday.inert import one_line
from gameday.platform import shield
from gameday.user import user_name

if TYPE_CHECKING:
    from gameday.events import Event
    from gameday.ledger.janitor import Attempt
    from gameday.platform.kube import Kube
    from gameday.run.signals import Signals

NOTED_WITHIN = 10.0  # seconds for a run's answer to a note


def status(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """List what is in force anywhere in the cluster."""
    with plainly():
        shield.run(_status(kubeconfig, context))


async def _status(kubeconfig: str | None, context: str | None) -> None:
    from rich.text import Text

    from gameday.cli.patience import asking
    from gameday.ledger.survey import read_back, seen_renewed, survey
    from gameday.platform.kube import Kube

    out = console()
    async with await Kube.connect(kubeconfig, context) as kube:
        with asking(kube):
            for line in await lever_lines(kube):
                out.print(one_line(line), style="yellow")
            found = await survey(kube)
            renewed = await seen_renewed(kube, found.runs)
            known = {run.run: await read_back(kube, run.open) for run in found.runs}
    if not found.runs:
        out.print(one_line(f"nothing is in force in {kube.context}"))
    for run in found.runs:
        words = "silent" if run.alive else "dead"
        state, more = ("alive", "green"), ""
        if run.run not in renewed:
            state, more = (f"{words}: restore it with", "red"), f" gameday recover --run {run.run}"
        out.print(Text.assemble((one_line(run.run), "bold"), "  ", state, one_line(more)))
        out.print(one_line(f"  {run.experiment} by {run.by} on {run.host} since {run.since}"))
        if not run.proved:
            out.print(Text("  nothing proves that the run wrote this record", "red"))
        for entry in run.open:
            name, what = f"{run.run}/{entry.number}", entry.operation
            line = f"  {name}  step {entry.step}  {what.ref}  {what.summary}  {known[run.run][entry.number]}"
            out.print(Text(one_line(line)), soft_wrap=True)  # `recover --accept` wants the name in one piece
    for stranger in found.strangers:
        out.print(Text(one_line(stranger), "yellow"))


def note(
    run: Annotated[str, typer.Argument(help="The run, as in `gameday status`.", show_default=False)],
    text: Annotated[str, typer.Argument(help="What you saw or did.", show_default=False)],
    author: Annotated[str | None, typer.Option(help="Who says so; else your user name.")] = None,
    reports: Reports = Path("reports"),
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write something down in the timeline of a run that is alive, from any machine.

    Exit codes: 0, the run has it; 2, the run has ended, or no such run is known; 3, it did not answer.
    """
    with plainly():
        asyncio.run(_note(run, author or user_name(), text, reports, kubeconfig, context))


async def _note(
    run: str, author: str, text: str, reports: Path, kubeconfig: str | None, context: str | None
) -> None:
    from gameday.cli.known import answer
    from gameday.ledger.listening import Answer, leave_note
    from gameday.platform.kube import Kube

    async with await Kube.connect(kubeconfig, context) as kube:
        said = await answer(leave_note(kube, run, author, text, NOTED_WITHIN), kube, run, reports)
    if said is Answer.ENDED:
        fail(f"not noted: {run} has ended", INVALID)
    if said is Answer.NONE:
        fail(
            f"not noted: {run} did not answer within {NOTED_WITHIN:g} s; it may be dead or cut off: look "
            f"with gameday status, and restore what it left: gameday recover --run {run}"
        )
    print(f"noted in {run}")


def recover(
    run: Annotated[str | None, typer.Option(help="This run only; else every run that died.")] = None,
    force: Annotated[bool, typer.Option(help="Also a run that is alive.")] = False,
    watch: Annotated[bool, typer.Option(help="Go on for ever: a janitor for the cluster.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--from", help="Restore from a run's folder, when the cluster's record is gone."),
    ] = None,
    allow_unverified: Annotated[
        bool, typer.Option(help="Also what nobody can prove to be the run's; it is shown first.")
    ] = False,
    forget: Annotated[
        bool, typer.Option(help="Drop the run's record: what it left was restored by hand.")
    ] = False,
    accept: Annotated[
        str,
        typer.Option(
            metavar="ENTRY",
            help="Take one open change over, by its name in `gameday status`; nothing is undone.",
            show_default=False,
        ),
    ] = "",
    reason: Annotated[str, typer.Option(help="With --accept: why.", show_default=False)] = "",
    reports: Reports = Path("reports"),
    listen: Annotated[
        str, typer.Option(help="With --watch: HOST:PORT for /metrics and /healthz.", show_default=False)
    ] = "",
    slack: Annotated[
        str, typer.Option(help="With --watch: the channel that hears of restorations.", show_default=False)
    ] = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Put back what runs that died have left, from the cluster's record alone."""
    if (listen or slack) and not watch:
        fail("--listen and --slack are for --watch", 2)
    if listen and not listen.rpartition(":")[2].isdecimal():
        fail(f"--listen {listen!r} is not HOST:PORT, as :9464", 2)
    if (forget or allow_unverified) and run is None and folder is None:
        fail("name the run with --run", 2)
    if bool(accept) != bool(reason.strip()):
        fail("--accept ENTRY and --reason TEXT go together", 2)
    if accept and (force or watch or forget or folder or allow_unverified):
        fail("--accept takes over one change of a run that is dead, and does nothing else", 2)
    if accept:
        named, number = entry_name(accept, run)
        with plainly(NOT_RESTORED):
            asyncio.run(_accept(named, number, reason.strip(), reports, kubeconfig, context))
        return
    wanted = Wanted(run, force, watch, folder, allow_unverified, forget, listen, slack, reports)
    never_wait()
    with plainly(NOT_RESTORED):
        left = shield.run(_recover(wanted, kubeconfig, context))
    if left:
        raise typer.Exit(NOT_RESTORED)


async def _accept(
    run: str, number: int, reason: str, reports: Path, kubeconfig: str | None, context: str | None
) -> None:
    from gameday.cli.accepting import accept
    from gameday.platform.kube import Kube

    async with await Kube.connect(kubeconfig, context) as kube:
        await accept(kube, run, number, reason, reports)


@dataclass(frozen=True)
class Wanted:
    """The options of `gameday recover`."""

    run: str | None
    force: bool
    watch: bool
    folder: Path | None
    allow_unverified: bool
    forget: bool
    listen: str
    slack: str
    reports: Path

    @property
    def by(self) -> str:
        """Who restores, and with what."""
        return f"{user_name()}@{socket.gethostname()} (gameday recover{' --watch' if self.watch else ''})"


async def _recover(wanted: Wanted, kubeconfig: str | None, context: str | None) -> bool:
    """Whether something is left."""
    from gameday.cli.janitor import Service
    from gameday.cli.registry import has_no_cluster, registry
    from gameday.platform.kube import Kube
    from gameday.run.signals import Signals

    with Signals() as signals:
        async with AsyncExitStack() as stack:
            alone = wanted.folder is not None and has_no_cluster(kubeconfig, context)
            if alone:
                kubeconfig = await stack.enter_async_context(registry())
            kube = await stack.enter_async_context(await Kube.connect(kubeconfig, context, shared=not alone))
            if wanted.folder is not None:
                return await _from_folder(kube, wanted.folder, wanted, signals)
            if wanted.forget:
                return await _forget(kube, str(wanted.run), wanted)
            if wanted.watch:
                service = Service(kube, wanted.listen, wanted.slack, _show, _say, wanted.by)
                with _patiently(signals, service.stop):
                    await service.run()
                return False
            return await _once(kube, wanted, signals)


@contextmanager
def _patiently(signals: Signals, stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The first signal lets what is under way come to its end; the next one leaves it to a later recovery."""
    said = False

    def answer(name: str) -> None:
        nonlocal said
        if said:
            signals.stop()
            return
        said = True
        _say(f"gameday: {name}: what is under way is put back first; once more leaves it as it is")
        stop()

    try:
        with signals.answered_by(answer):
            yield
    except asyncio.CancelledError:
        if not signals.took_back():
            raise
        fail("stopped before everything was put back: run `gameday recover` again", NOT_RESTORED)


async def _once(kube: Kube, wanted: Wanted, signals: Signals) -> bool:
    """Every run that died, or the one that is named, at the same time."""
    from gameday.cli.known import how_it_ended, unknown
    from gameday.ledger.janitor import Attempt, attempt
    from gameday.ledger.key import read_key
    from gameday.ledger.recovery import How
    from gameday.ledger.survey import survey

    found = await survey(kube)
    for text in found.strangers:
        _say(f"gameday: {text}")
    runs = [r for r in found.runs if wanted.run in (None, r.run)]
    names = [r.run for r in runs]
    if not names and wanted.run and await read_key(kube, wanted.run):
        names = [wanted.run]  # its Lease and its record are gone, and it did not end
    if not names and wanted.run:
        if not (known := await how_it_ended(kube, wanted.run, wanted.reports)):
            unknown(kube, wanted.run, wanted.reports, (r.run for r in found.runs))
        _say(f"nothing to recover in {kube.context} for {wanted.run}, which has ended")
        _say(f"  {known}")
    elif not names:
        _say(f"nothing to recover in {kube.context}")
    if wanted.allow_unverified:
        for unproved in (r for r in runs if not r.proved):
            _say(f"nothing proves that run {unproved.run} wrote this, and it is executed now:")
            for entry in unproved.entries:
                _say(f"  {entry.operation.ref}: {entry.operation.summary}")
    how = How(force=wanted.force, allow_unverified=wanted.allow_unverified, by=wanted.by)
    told = {name: Aftermath(wanted.reports / name, wanted.by) for name in names}
    attempts = [attempt(kube, name, how, _both(told[name].hear)) for name in names]
    left, ended = False, list[Attempt]()
    with _patiently(signals):
        for done in asyncio.as_completed(attempts):
            result = await done
            if result.lost and wanted.run:
                fail(one_line(f"{result.lost}; abort it with: gameday abort {result.run}"), 2)
            _show(result)
            ended += [result] if result.result is not None else []
            left = left or result.left
    for result in ended:
        await told[result.run].end(restored=not result.left)
    return left


async def _forget(kube: Kube, run: str, wanted: Wanted) -> bool:
    from gameday.cli.known import unknown
    from gameday.ledger.key import read_key
    from gameday.ledger.recovery import How, forget
    from gameday.ledger.survey import survey
    from gameday.platform.fence import Lost

    there = [r.run for r in (await survey(kube)).runs]
    if run not in there and not await read_key(kube, run):
        unknown(kube, run, wanted.reports, there)
    try:
        dropped = await forget(kube, run, how=How(force=wanted.force))
    except Lost as lost:
        fail(one_line(f"{lost}; abort it with: gameday abort {run}"), 2)
    _say(f"{run}: forgotten")
    for entry in dropped:
        _say(f"  not restored {entry.operation.ref} ({entry.operation.summary})")
    return False


async def _from_folder(kube: Kube, folder: Path, wanted: Wanted, signals: Signals) -> bool:
    from gameday.ledger.folder import NoLedger, read_folder
    from gameday.ledger.janitor import Attempt
    from gameday.ledger.keeping import cluster_id
    from gameday.ledger.recovery import How, recover
    from gameday.platform.fence import Lost

    try:
        local = read_folder(folder)
    except NoLedger as error:
        fail(one_line(str(error)), 2)
    if local.cluster != await cluster_id(kube):
        fail(
            one_line(f"run {local.run} was in another cluster ({local.cluster}): choose it with --context"), 2
        )
    how = How(force=wanted.force, allow_unverified=wanted.allow_unverified, by=wanted.by)
    told = Aftermath(folder, wanted.by)
    try:
        with _patiently(signals):
            result = await recover(kube, local.run, _both(told.hear), how=how, local=local)
    except Lost as lost:
        fail(one_line(f"{lost}; abort it with: gameday abort {local.run}"), 2)
    _show(Attempt(local.run, result))
    await told.end(restored=result.restored)
    return not result.restored


def _show(done: Attempt) -> None:
    if done.lost:
        _say(f"left alone, since alive: {done.run} ({done.lost})")
    if done.failure:
        _say(f"{done.run}: NOT restored: {done.failure}")
    if done.result is None:
        return
    _say(f"{done.run}: {'restored' if done.result.restored else 'NOT fully restored'}")
    for entry in done.result.undone:
        note = f": {entry.message}" if entry.message and entry.message != entry.operation.summary else ""
        what = f"{entry.operation.ref}, which the run had changed ({entry.operation.summary})"
        _say(f"  {entry.state:<12} {what}{note}")
    for audit in done.result.audits:
        if audit.state == "left":
            _say(f"  LEFT         {audit.object}: {audit.message}")


def _both(tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """A listener that shows a recovery's events, and passes them on to be written down."""

    def hear(event: Event) -> None:
        _hear(event)
        tell(event)

    return hear


def _hear(event: Event) -> None:
    """Show a recovery's warnings at once: a person may be waiting for as long as the recovery waits."""
    from gameday.events import Warn

    if isinstance(event, Warn):
        _say(f"gameday: {event.message}")


def _say(text: str) -> None:
    print(one_line(text), flush=True)
