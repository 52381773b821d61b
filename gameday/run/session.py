"""A session: from a loaded experiment to a verdict and a folder, the way the command line asks for it."""

from __future__ import annotations

import asyncio
import getpass
import json
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gameday import __version__, events
from gameday.experiment.loader import Loaded
from gameday.experiment.model import SlurmAccess
from gameday.faults.base import PlanError
from gameday.masking import mask
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.prometheus import Prometheus
from gameday.platform.world import World
from gameday.run.engine import Engine
from gameday.run.log import Listener, Log
from gameday.run.verdict import Outcome
from gameday.safety.plan import Plan, make_plan
from gameday.safety.preflight import identity, preflight, refusals

if TYPE_CHECKING:
    from gameday.platform.slurm.client import Slurm

Approve = Callable[[Plan, list[events.Preflight]], Awaitable[bool]]
# Given the way to write to the log, what hears the log while the context lasts: a Slack thread, say.
Projection = Callable[[events.Emit], AbstractAsyncContextManager[Listener]]


@dataclass(frozen=True)
class Options:
    """Where and how to run. `seed` None draws one; `plan` executes a plan that was made before."""

    kubeconfig: str | None = None
    context: str | None = None
    prometheus: str | None = None
    seed: int | None = None
    reports: Path = Path("reports")
    plan: Path | None = None
    slurm: str | None = None  # slurmrestd's address
    sandbox: bool = False
    projections: tuple[Projection, ...] = ()


@asynccontextmanager
async def connected(loaded: Loaded, options: Options, run: str = "") -> AsyncIterator[World]:
    """The world of an experiment. Raises ConfigError."""
    spec = loaded.experiment.spec
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1, 10**6)
    async with await Kube.connect(options.kubeconfig, options.context) as kube:
        world = World(
            kube=kube,
            run=run,
            seed=seed,
            sandbox=options.sandbox,
            namespaces=tuple(spec.target.namespaces),
            node_selector=spec.target.nodes.selector if spec.target.nodes else "",
            node_program=spec.target.node_program,
            slurm=_slurm(spec.target.slurm, options.slurm, kube),
            folder=loaded.path.parent,
        )
        if options.prometheus is None:
            yield world
            return
        async with Prometheus(options.prometheus) as prometheus:
            yield replace(world, prometheus=prometheus)


def _slurm(access: SlurmAccess | None, url: str | None, kube: Kube) -> Slurm | None:
    """The experiment's Slurm, with the address of the command line before that of the file."""
    if access is None and not url:
        return None
    from gameday.platform.slurm.client import Slurm
    from gameday.platform.slurm.transport import Via

    access = access or SlurmAccess(url=url)
    pod = access.exec
    via = Via(url=url or access.url or "", user=access.user or "", local=access.local)
    if pod is not None:
        via = replace(via, namespace=pod.namespace, selector=pod.selector, container=pod.container or "")
    return Slurm.of(via, kube)


def new_run(name: str) -> str:
    """A run's name: short enough for a label, sortable, unique."""
    return f"{name[:28].rstrip('-')}-{time.strftime('%y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


async def planned(
    loaded: Loaded, world: World, saved: Path | None = None
) -> tuple[Plan, list[events.Preflight]]:
    """The plan, and what the checks say of it. The cluster is asked nothing unless it is the right one."""
    check = identity(loaded.experiment, world)
    if check.level == "refused":
        return Plan(world.seed), [check]
    if saved is not None:
        plan = Plan.from_data(json.loads(saved.read_text()), loaded.experiment)
    else:
        plan = await make_plan(loaded.experiment, world)
    return plan, await preflight(loaded.experiment, plan, world)


async def conduct(loaded: Loaded, options: Options, approve: Approve) -> tuple[events.Verdict, Path]:
    """Plan, check, ask, run. Raises ConfigError; everything else ends in a verdict and a log."""
    run = new_run(loaded.experiment.metadata.name)
    async with connected(loaded, options, run) as world:
        folder = options.reports / run
        folder.mkdir(parents=True)
        log = Log(folder / "events.jsonl")
        world = replace(world, emit=log.emit)
        try:
            async with AsyncExitStack() as stack:
                for projection in options.projections:
                    log.listeners.append(await stack.enter_async_context(projection(log.emit)))
                log.emit(_started(loaded, world))
                return await _run(loaded, options, world, log, folder, approve), folder
        finally:
            log.close()


async def _run(
    loaded: Loaded, options: Options, world: World, log: Log, folder: Path, approve: Approve
) -> events.Verdict:
    outcome = Outcome()
    log.emit(events.Phase(phase="preflight"))
    try:
        plan, findings = await planned(loaded, world, options.plan)
    except (PlatformError, PlanError, ValueError) as error:
        return _refuse(log, outcome, str(error))
    for finding in findings:
        log.emit(finding)
    (folder / "plan.json").write_text(json.dumps(plan.to_data(), indent=1))
    (folder / "experiment.json").write_text(json.dumps(mask(loaded.document), indent=1, default=str))
    if refused := refusals(findings):
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return _refuse(log, outcome, f"{refused[0].check}: {refused[0].message}{more}")
    if not await approve(plan, findings):
        return _refuse(log, outcome, "the plan was not approved")
    engine = Engine(loaded, plan, world, log, folder, outcome)
    with _signals(engine, log):
        return await engine.execute()


def _refuse(log: Log, outcome: Outcome, reason: str) -> events.Verdict:
    outcome.refused = reason
    verdict = outcome.verdict()
    log.emit(verdict)
    return verdict


def _started(loaded: Loaded, world: World) -> events.RunStarted:
    platform = {"context": world.kube.context, "server": world.kube.server}
    if world.prometheus is not None:
        platform["prometheus"] = world.prometheus.url
    if world.slurm is not None:
        platform["slurm"] = str(world.slurm.via)
    meta = loaded.experiment.metadata
    return events.RunStarted(
        run=world.run,
        name=meta.name,
        title=loaded.experiment.spec.title,
        experiment=loaded.document,
        gameday=__version__,
        by=getpass.getuser(),
        seed=world.seed,
        variables=dict(loaded.variables),
        platform=platform,
        file=str(loaded.path),
    )


class _signals:  # noqa: N801 - a context manager, used as a verb
    """SIGINT and SIGTERM abort and restore; a second one is answered with patience."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self._engine, self._log = engine, log
        self._count = 0

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._heard, number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _heard(self, number: signal.Signals) -> None:
        self._count += 1
        if self._count == 1:
            self._engine.abort("signal", f"stopped by {signal.Signals(number).name}")
        else:
            text = "still putting everything back; leaving now would leave faults in force"
            self._log.emit(events.Warn(source="signal", message=text))
