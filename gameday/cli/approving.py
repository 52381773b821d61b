"""Approving a plan, from any machine that reaches its cluster and has the experiment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gameday.cli.asking import asked
from gameday.cli.options import (
    INVALID,
    REFUSED,
    Context,
    File,
    Kubeconfig,
    ReachPrometheus,
    Set,
    Slurm,
    Values,
    asks_prometheus,
    duration,
    fail,
    plainly,
    read,
)
from gameday.cli.terminal import console
from gameday.inert import one_line
from gameday.platform import shield

if TYPE_CHECKING:
    from gameday.experiment.loader import Loaded
    from gameday.run.session import Options

SHOWN = 5  # differences


@asks_prometheus
def approve(
    saved: Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, from `gameday plan -o`.")],
    file: File,
    sets: Set = None,
    values: Values = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve without being asked.")] = False,
    valid_for: Annotated[str, typer.Option("--for", help="How long; never longer than the plan.")] = "1h",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    prometheus: ReachPrometheus = None,
    slurmrestd: Slurm = None,
) -> None:
    """Approve a plan of an experiment that you have read.

    The plan is made again from the experiment, and must come out the same: who wrote the plan's file is not
    believed. The approval is kept in the cluster, where `gameday run --plan` looks for it.
    """
    from gameday.run.session import Options
    from gameday.safety.plan import Kept

    with plainly(REFUSED):
        loaded = read(file, sets, values)
        options = Options(kubeconfig, context, prometheus, plan=Kept.read(saved), slurm=slurmrestd)
        shield.run(_approve(loaded, options, duration("--for", valid_for), yes))


async def _approve(loaded: Loaded, options: Options, seconds: float, yes: bool) -> None:
    from gameday.cli.patience import asking
    from gameday.cli.show import show_plan
    from gameday.run.session import connected
    from gameday.safety.approvals import cluster
    from gameday.safety.cluster import cluster_of
    from gameday.safety.derived import AGAIN, differences
    from gameday.safety.preflight import AS_IT_BEGINS, preflight

    assert options.plan is not None
    plan = options.plan.plan(loaded.experiment)
    if expired := plan.expired():
        fail(expired, INVALID)
    if not cluster.LEAST <= seconds <= cluster.MOST:
        fail("--for: the API server keeps an approval for at least 10m, and at most 24h", INVALID)
    out = console()
    async with connected(loaded, options) as world:
        with asking(world.kube):
            here = await cluster_of(world.kube)
            if difference := plan.cluster.differs(here):
                fail(f"the plan is for another cluster ({plan.cluster}): {difference}", INVALID)
            if found := [*plan.other_systems(world), *await differences(plan, loaded.experiment, world)]:
                more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
                fail(one_line(f"not approved: {'; '.join(found[:SHOWN])}{more}: {AGAIN}"), REFUSED)
            findings = await preflight(loaded.experiment, plan, world, without=AS_IT_BEGINS)
        show_plan(out, loaded.experiment.spec.title, plan, findings)
        if not yes and not await asked(out, "Approve this plan?"):
            fail("not approved", REFUSED)
        approval = await cluster.approve(world.kube, plan.digest, seconds)
    ends = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(min(approval.until, plan.expires)))
    out.print(one_line(f"approved by {approval.by} until {ends}: plan {plan.digest[:12]} on {here}"))
