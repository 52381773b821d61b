"""Commands that plan and run experiments, and the sandbox they can run in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.options import (
    Context,
    File,
    Kubeconfig,
    Prometheus,
    Reports,
    Set,
    Slurm,
    Values,
    interruptible,
    plainly,
    read,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gameday.events import Preflight
    from gameday.experiment.loader import Loaded
    from gameday.run.session import Options
    from gameday.safety.plan import Plan

InSandbox = Annotated[
    bool, typer.Option("--sandbox", help="Run in the embedded platform; no cluster is needed.")
]
Seed = Annotated[
    int | None, typer.Option(help="Choose the same targets as the run with this seed.", show_default=False)
]
REFUSED = 4


def run(
    file: File,
    sets: Set = None,
    values: Values = None,
    in_sandbox: InSandbox = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve the plan without being asked.")] = False,
    saved: Annotated[
        Path | None, typer.Option("--plan", help="Execute this plan, from `gameday plan -o`.")
    ] = None,
    seed: Seed = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: Prometheus = None,
    slurmrestd: Slurm = None,
    reports: Reports = Path("reports"),
    slack: Annotated[bool, typer.Option(help="Post to Slack, when $SLACK_BOT_TOKEN is set.")] = True,
) -> None:
    """Run an experiment: break, watch, put back, report. The exit code is the verdict."""
    with plainly():
        loaded = read(file, sets, values)
        code = asyncio.run(
            _run(
                loaded,
                _options(kubeconfig, context, prometheus, slurmrestd, seed, reports, saved),
                in_sandbox,
                yes,
                slack,
            )
        )
    raise typer.Exit(code)


def _options(
    kubeconfig: str | None,
    context: str | None,
    prometheus: str | None,
    slurm: str | None,
    seed: int | None,
    reports: Path = Path("reports"),
    saved: Path | None = None,
) -> Options:
    from gameday.run.session import Options

    return Options(kubeconfig, context, prometheus, seed, reports, saved, slurm)


async def _run(loaded: Loaded, options: Options, in_sandbox: bool, yes: bool, told: bool) -> int:
    from rich.console import Console

    from gameday.cli.after import finish
    from gameday.cli.show import show_plan
    from gameday.cli.slack import SlackRun
    from gameday.run.live import LiveView
    from gameday.run.session import conduct

    console = Console()
    _warn(loaded)
    async with _platform(options, in_sandbox, console) as options:
        view = LiveView(console)
        slack = SlackRun.of(loaded.experiment) if told else None

        async def approve(plan: Plan, findings: list[Preflight]) -> bool:
            show_plan(console, plan, findings)
            return yes or await _asked(console)

        projections = (view.projection, *([slack.projection] if slack else []))
        verdict, folder = await conduct(loaded, replace(options, projections=projections), approve)
        await finish(console, folder, slack)
        return verdict.exit_code


async def _asked(console: Console) -> bool:
    """Whether the person at the terminal approves the plan."""
    if not sys.stdin.isatty():
        console.print("[yellow]not approved: no terminal to ask on; approve with --yes[/]")
        return False
    console.print("Run this plan? [y/N] ", end="", markup=False, highlight=False)
    return (await _line()).strip().lower() in ("y", "yes")


async def _line() -> str:
    """A line from the terminal, in a way that Ctrl-C ends; a thread in `input` would go on."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sys.stdin, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


def plan(
    file: File,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here.")] = None,
    sets: Set = None,
    values: Values = None,
    in_sandbox: InSandbox = False,
    seed: Seed = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: Prometheus = None,
    slurmrestd: Slurm = None,
) -> None:
    """Resolve the targets, check everything, and show what a run would do. Changes nothing."""
    with plainly():
        loaded = read(file, sets, values)
        refused = asyncio.run(
            _plan(loaded, _options(kubeconfig, context, prometheus, slurmrestd, seed), in_sandbox, output)
        )
    raise typer.Exit(REFUSED if refused else 0)


async def _plan(loaded: Loaded, options: Options, in_sandbox: bool, output: Path | None) -> bool:
    import json

    from rich.console import Console

    from gameday.cli.show import show_plan
    from gameday.run.session import connected, planned
    from gameday.safety.preflight import refusals

    console = Console()
    _warn(loaded)
    async with _platform(options, in_sandbox, console) as options, connected(loaded, options) as world:
        made, findings = await planned(loaded, world)
        show_plan(console, made, findings)
        refused = bool(refusals(findings))
        if output is not None and not refused:
            output.write_text(json.dumps(made.to_data(), indent=1))
            console.print(f"gameday run {loaded.path} --plan {output}", highlight=False)
        return refused


@asynccontextmanager
async def _platform(options: Options, in_sandbox: bool, console: Console) -> AsyncIterator[Options]:
    """The options as they are, or with a sandbox in them that lives as long."""
    if not in_sandbox:
        yield options
        return
    from gameday.sandbox import sandbox

    with console.status("starting the sandbox …") as shown:
        started = sandbox(on_progress=lambda text: shown.update(f"starting the sandbox: {text}"))
        box = await started.__aenter__()
    try:
        os.environ["SLURM_JWT"] = box.slurm_token
        yield replace(
            options,
            kubeconfig=str(box.kubeconfig),
            context=box.context,
            prometheus=box.prometheus_url,
            slurm=box.slurm_url,
            sandbox=True,
        )
    finally:
        await started.__aexit__(None, None, None)


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        print(f"{loaded.path}: warning: {warning}", file=sys.stderr)


def up(
    nodes: Annotated[int, typer.Option(help="How many GPU nodes.")] = 8,
    directory: Annotated[
        Path | None, typer.Option(help="Where to keep its files; else a temporary folder.")
    ] = None,
) -> None:
    """Start the sandbox and keep it up, for kubectl and for experiments."""
    with plainly(), interruptible("the sandbox is down"):
        asyncio.run(_up(nodes, directory))


async def _up(nodes: int, directory: Path | None) -> None:
    from gameday.sandbox import sandbox

    async with sandbox(directory, nodes=nodes, on_progress=lambda text: print(text, file=sys.stderr)) as box:
        print(f"export KUBECONFIG={box.kubeconfig}")
        print(f"export GAMEDAY_PROMETHEUS_URL={box.prometheus_url}", flush=True)
        print(f"export GAMEDAY_SLURM_URL={box.slurm_url}")
        print(f"export SLURM_JWT={box.slurm_token}", flush=True)
        await asyncio.Event().wait()
