"""Commands that plan and run experiments, and the sandbox they can run in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gameday.cli.asking import asked
from gameday.cli.options import (
    INTERRUPTED,
    INVALID,
    REFUSED,
    Context,
    File,
    Kubeconfig,
    ReachPrometheus,
    Reports,
    Set,
    Slurm,
    Values,
    asks_prometheus,
    duration,
    fail,
    plainly,
    read,
    stopped,
)
from gameday.cli.terminal import console, never_wait, ours
from gameday.platform import shield

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
RequireConsent = Annotated[
    bool,
    typer.Option("--require-consent", help="Touch only namespaces that carry the label gameday.dev/allow."),
]


@asks_prometheus
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
    prometheus: ReachPrometheus = None,
    slurmrestd: Slurm = None,
    reports: Reports = Path("reports"),
    require_consent: RequireConsent = False,
    as_run_identity: Annotated[
        bool,
        typer.Option(
            "--as-run-identity",
            help="Do everything as a ServiceAccount that is made for this run, with `gameday rbac`'s Roles.",
        ),
    ] = False,
    slack: Annotated[bool, typer.Option(help="Post to Slack, when $SLACK_BOT_TOKEN is set.")] = True,
) -> None:
    """Run an experiment: break, watch, put back, report. The exit code is the verdict."""
    never_wait()
    with plainly(REFUSED):
        loaded = read(file, sets, values)
        options = replace(
            _options(kubeconfig, context, prometheus, slurmrestd, seed, reports, saved),
            require_consent=require_consent,
            as_run_identity=as_run_identity,
        )
        code = shield.run(_run(loaded, options, in_sandbox, yes, slack))
    raise typer.Exit(code)


def _options(
    kubeconfig: str | None,
    context: str | None,
    prometheus: dict[str, Any] | None,
    slurm: str | None,
    seed: int | None,
    reports: Path = Path("reports"),
    saved: Path | None = None,
) -> Options:
    from gameday.run.session import Options
    from gameday.safety.plan import Kept

    kept = Kept.read(saved) if saved else None
    return Options(kubeconfig, context, prometheus, seed, reports, kept, slurm)


async def _run(loaded: Loaded, options: Options, in_sandbox: bool, yes: bool, told: bool) -> int:
    from gameday.cli.after import finish_run
    from gameday.cli.show import show_plan
    from gameday.cli.slack import SlackRun
    from gameday.run.live import LiveView
    from gameday.run.session import conduct
    from gameday.run.signals import Signals

    out, code = console(), INTERRUPTED
    _warn(loaded)
    with Signals() as signals:
        try:
            async with _platform(loaded, options, in_sandbox, out) as options:
                view = LiveView(out)
                slack = SlackRun.of(loaded.experiment) if told else None

                async def approve(plan: Plan, findings: list[Preflight]) -> bool:
                    show_plan(out, loaded.experiment.spec.title, plan, findings)
                    return yes or await asked(out, "Run this plan?")

                projections = (view.projection, *([slack.projection] if slack else []))
                options = replace(options, projections=projections)
                verdict, folder = await conduct(loaded, options, approve, signals)
                code = verdict.exit_code
                code = await finish_run(out, folder, slack, f"{verdict.verdict}: {verdict.reason}", code)
        except asyncio.CancelledError:
            if not signals.took_back():
                raise
            print(f"gameday: stopped by {signals.heard}", file=sys.stderr)
    return code


@asks_prometheus
def plan(
    file: File,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here.")] = None,
    valid_for: Annotated[
        str, typer.Option("--valid-for", help="How long the plan that is written may be run.")
    ] = "1h",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan and all findings as JSON.")] = False,
    sets: Set = None,
    values: Values = None,
    in_sandbox: InSandbox = False,
    seed: Seed = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: ReachPrometheus = None,
    slurmrestd: Slurm = None,
    require_consent: RequireConsent = False,
) -> None:
    """Resolve the targets, check everything, and show what a run would do. Changes nothing."""
    with plainly(), stopped("stopped; nothing was touched"):
        loaded = read(file, sets, values)
        options = replace(
            _options(kubeconfig, context, prometheus, slurmrestd, seed),
            require_consent=require_consent,
            valid_for=duration("--valid-for", valid_for),
        )
        refused = shield.run(_plan(loaded, options, in_sandbox, output, as_json))
    raise typer.Exit(REFUSED if refused else 0)


async def _plan(
    loaded: Loaded, options: Options, in_sandbox: bool, output: Path | None, as_json: bool
) -> bool:
    import json

    from gameday.cli.patience import asking
    from gameday.cli.show import plan_data, show_plan
    from gameday.run.session import connected, planned, seen
    from gameday.run.signals import Signals
    from gameday.safety.preflight import refusals

    out = console()
    _warn(loaded)
    with Signals():
        async with (
            _platform(loaded, options, in_sandbox, out) as options,
            connected(loaded, options) as world,
        ):
            with asking(world.kube):
                made, findings = await planned(loaded, world, valid_for=options.valid_for)
                findings += await seen(loaded, world, findings)
            if as_json:
                print(json.dumps(plan_data(made, findings), indent=1))
            else:
                show_plan(out, loaded.experiment.spec.title, made, findings)
            refused = bool(refusals(findings))
            if output is not None and not refused:
                _write(output, json.dumps(made.to_data(), indent=1))
                if not as_json:
                    out.print(f"gameday run {loaded.path} --plan {output}")
            return refused


def _write(path: Path, text: str) -> None:
    """A plan as it is executed later: nothing of it can be masked, so a secret has no place in it."""
    from gameday.masking import kept_in

    if names := sorted(kept_in(text)):
        text = f"the plan would hold the secret {', '.join(names)}: run the experiment without a kept plan"
        fail(text, INVALID)
    try:
        path.write_text(text)
    except OSError as error:
        fail(f"{path} can't be written: {error.strerror}", INVALID)


@asynccontextmanager
async def _platform(
    loaded: Loaded, options: Options, in_sandbox: bool, console: Console
) -> AsyncIterator[Options]:
    """The options as they are, or with a sandbox or a registry of the run's own, that live as long."""
    if not in_sandbox:
        from gameday.cli.registry import has_no_cluster, needs_no_cluster, registry

        if not (has_no_cluster(options.kubeconfig, options.context) and needs_no_cluster(loaded.experiment)):
            yield options
            return
        async with registry() as kubeconfig:
            yield replace(options, kubeconfig=kubeconfig, no_cluster=True)
        return
    from rich.text import Text

    from gameday.sandbox import sandbox

    with console.status(Text("starting the sandbox …")) as shown:
        started = sandbox(on_progress=lambda text: shown.update(Text(f"starting the sandbox: {text}")))
        box = await started.__aenter__()
    try:
        with box.as_environment():
            yield replace(
                options,
                kubeconfig=str(box.kubeconfig),
                context=box.context,
                prometheus={"url": box.prometheus_url},
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
    with plainly(), stopped("the sandbox is down"):
        asyncio.run(_up(nodes, directory))


async def _up(nodes: int, directory: Path | None) -> None:
    from gameday.run.signals import Signals
    from gameday.sandbox import sandbox

    starting = sandbox(directory, nodes=nodes, on_progress=lambda text: print(text, file=sys.stderr))
    with Signals():
        async with starting as box:
            for name, value in box.environment.items():
                print(f"export {name}={value}", file=ours(), flush=True)
            until = "it stays up until Ctrl-C"
            more = f"{until}; with the lines above in another terminal, gameday and kubectl use it"
            print(more, file=sys.stderr, flush=True)
            await asyncio.Event().wait()
