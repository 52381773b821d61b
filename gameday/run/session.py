"""A session: from a loaded experiment to a verdict and a folder, the way the command line asks for it."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday import __version__, defect, events
from gameday.experiment.loader import Loaded
from gameday.experiment.model import Experiment, SlurmAccess
from gameday.extend import PlanError
from gameday.masking import mask
from gameday.platform.chaostoolkit import check_experiment
from gameday.platform.errors import ConfigError, Failure
from gameday.platform.kube import Kube
from gameday.platform.permission import Permission
from gameday.platform.prometheus.access import client, merged
from gameday.platform.shared import Shared
from gameday.platform.world import World
from gameday.run.engine import Engine
from gameday.run.first_look import first_look
from gameday.run.log import Listener, Log
from gameday.run.observe import reads
from gameday.run.signals import Signals
from gameday.run.verdict import Outcome
from gameday.safety.approvals import required as approvals
from gameday.safety.identity import RunIdentity, unfit
from gameday.safety.plan import VALID_FOR, Kept, Plan, make_plan
from gameday.safety.preflight import identity as target_identity
from gameday.safety.preflight import preflight, refusals
from gameday.safety.rbac import ask_probes, needed
from gameday.states import Phase
from gameday.user import user_name

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
    prometheus: dict[str, Any] | None = None  # in place of these keys of spec.target.prometheus
    seed: int | None = None
    reports: Path = Path("reports")
    plan: Kept | None = None
    slurm: str | None = None  # slurmrestd's address
    sandbox: bool = False
    no_cluster: bool = (
        False  # the kubeconfig is of the run's own registry, and none of an activity's business
    )
    as_run_identity: bool = False  # everything is done as a ServiceAccount that is made for the run
    require_consent: bool = False  # only namespaces that say so may be touched
    valid_for: float | None = None  # seconds for which a plan that is kept may be run
    projections: tuple[Projection, ...] = ()


@asynccontextmanager
async def connected(loaded: Loaded, options: Options, run: str = "") -> AsyncIterator[World]:
    """The world of an experiment. Raises ConfigError, and PlanError for a seed that is not the plan's."""
    spec = loaded.experiment.spec
    seed = _seed(options)
    connecting = Kube.connect(options.kubeconfig, options.context, shared=not options.no_cluster)
    async with await connecting as kube:
        world = World(
            kube=kube,
            run=run,
            seed=seed,
            sandbox=options.sandbox,
            require_consent=options.require_consent,
            namespaces=tuple(spec.target.namespaces),
            node_selector=spec.target.nodes.selector if spec.target.nodes else "",
            node_program=spec.target.node_program,
            slurm=_slurm(spec.target.slurm, options.slurm, kube),
            folder=loaded.path.parent,
        )
        # The sandbox's Prometheus takes the place of the one that the file is for.
        access = merged(None if options.sandbox else spec.target.prometheus, options.prometheus or {})
        if access is None:
            yield world
            return
        async with client(access, loaded.path.parent) as prometheus:
            yield replace(world, prometheus=prometheus)


def _seed(options: Options) -> int:
    """The seed of a plan that was approved before; else the one that is asked for, or a new one."""
    approved = options.plan.seed if options.plan else None
    if approved is None:
        return options.seed if options.seed is not None else random.SystemRandom().randrange(1, 10**6)
    if options.seed not in (None, approved):
        raise PlanError(f"the plan was made with seed {approved}: leave --seed {options.seed} out")
    return approved


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
    loaded: Loaded, world: World, kept: Kept | None = None, valid_for: float | None = None
) -> tuple[Plan, list[events.Preflight]]:
    """The plan, and what the checks say of it. The cluster is asked nothing unless it is the right one."""
    check = target_identity(loaded.experiment, world)
    if check.level == "refused":
        return Plan(world.seed), [check]
    if loaded.native is not None:
        await check_experiment(loaded.native)
    world = replace(world, shared=Shared())
    if kept is not None:
        plan = kept.plan(loaded.experiment)
    else:
        plan = await make_plan(loaded.experiment, world, valid_for or VALID_FOR)
    return plan, await preflight(loaded.experiment, plan, world)


async def seen(loaded: Loaded, world: World, findings: list[events.Preflight]) -> list[events.Preflight]:
    """What the probes say before anything is touched, each asked once.

    None are asked in the wrong cluster, nor those of a native experiment, whose strategy says when they are.
    """
    away = frozenset(f.check for f in refusals(findings))
    if loaded.native is not None or target_identity(loaded.experiment, world).level == "refused":
        return []
    return await first_look(loaded.experiment, world, away)


async def conduct(
    loaded: Loaded, options: Options, approve: Approve, signals: Signals
) -> tuple[events.Verdict, Path]:
    """Plan, check, ask, run. Raises ConfigError; everything else ends in a verdict and a log."""
    run = new_run(loaded.experiment.metadata.name)
    async with connected(loaded, options, run) as world:
        folder = options.reports / run
        log = _open_log(folder)
        world = replace(world, emit=log.emit)
        try:
            async with AsyncExitStack() as stack:
                for projection in options.projections:
                    await stack.enter_async_context(_projected(projection, log, signals))
                log.emit(_started(loaded, world))
                return await _Session(loaded, options, world, log, folder, approve, signals).verdict(), folder
        finally:
            log.close()


@asynccontextmanager
async def _projected(projection: Projection, log: Log, signals: Signals) -> AsyncIterator[None]:
    """A projection that hears the log. What fails when it begins or ends is told, and changes no verdict."""
    async with AsyncExitStack() as stack:
        try:
            log.listeners.append(await stack.enter_async_context(projection(log.emit)))
        except Exception as error:
            log.emit(events.Warn(source="log", message=f"nothing is shown: {defect.sentence(error)}"))
        yield
        try:
            await stack.aclose()
        except asyncio.CancelledError:  # whoever asks to stop now waits for the telling alone
            if not signals.took_back():
                raise
        except Exception as error:
            log.emit(events.Warn(source="log", message=f"the end is not shown: {defect.sentence(error)}"))


def _open_log(folder: Path) -> Log:
    """The run's folder, for its owner's eyes only, with its log. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
        return Log(folder / "events.jsonl")
    except OSError as error:
        raise ConfigError(f"the folder {folder} of the run can't be made: {error.strerror}") from error


@dataclass
class _Session:
    """The way of one run from its plan to its verdict."""

    loaded: Loaded
    options: Options
    world: World
    log: Log
    folder: Path
    approve: Approve
    signals: Signals
    outcome: Outcome = field(default_factory=Outcome)

    async def verdict(self) -> events.Verdict:
        """A signal and a defect of ours end in a verdict too."""
        outcome = self.outcome
        try:
            return await self._conduct()
        except asyncio.CancelledError:
            if not self.signals.took_back():
                raise
            outcome.interrupted = f"stopped by {self.signals.heard}"
        except Exception as error:
            where = defect.keep_trace(error, self.folder)
            outcome.defect = f"{defect.sentence(error)}; {where}"
            if outcome.begun and not outcome.audited:
                then = f"gameday recover --run {self.world.run}"
                outcome.left.append(f"the run's undo did not come to its end ({outcome.defect}): {then}")
        return self._end()

    async def _conduct(self) -> events.Verdict:
        experiment, world = self.loaded.experiment, self.world
        self.log.emit(events.Phase(phase=Phase.PREFLIGHT))
        try:
            with world.kube.listening() as heard:
                plan, findings = await planned(self.loaded, world, self.options.plan)
                if await _waited(experiment, plan, findings, world):
                    findings = await preflight(experiment, plan, world)
                if not refusals(findings):
                    findings += await seen(self.loaded, world, findings)
                if self.options.as_run_identity:
                    findings += unfit(experiment, plan)
                    if not refusals(findings):
                        heard |= await other_reads(experiment, plan, world)
        except Failure as error:
            return self._refuse(str(error))
        for finding in findings:
            self.log.emit(finding)
        try:
            _keep(self.folder / "plan.json", plan.to_data())
            _keep(self.folder / "experiment.json", self.loaded.document)
        except OSError as error:
            return self._refuse(f"{error.filename or self.folder} can't be written: {error.strerror}")
        if refused := refusals(findings):
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            return self._refuse(f"{refused[0].check}: {refused[0].message}{more}")
        if not await self.approve(plan, findings):
            return self._refuse("the plan was not approved")
        if withdrawn := await _withdrawn(experiment, plan, world):
            return self._refuse(withdrawn)
        rights = needed(plan, heard, world.run)
        identity = RunIdentity(world.kube, world.run, rights) if self.options.as_run_identity else None
        engine = Engine(self.loaded, plan, world, self.log, self.folder, self.outcome, identity)
        self.outcome.begun = True
        with self.signals.answered_by(_Interruption(engine, self.log)):
            return await engine.execute()

    def _refuse(self, reason: str) -> events.Verdict:
        self.outcome.refused = reason
        return self._end()

    def _end(self) -> events.Verdict:
        verdict = self.outcome.verdict()
        self.log.emit(verdict)
        return verdict


async def other_reads(experiment: Experiment, plan: Plan, world: World) -> set[Permission]:
    """The permissions for all other reads of a run; those of its probes are heard while they ask."""
    await ask_probes(experiment, world)
    return await reads(world, (v for s in plan.steps.values() for v in s.fault.victims))


async def _waited(experiment: Experiment, plan: Plan, findings: list[events.Preflight], world: World) -> bool:
    """Whether the run waited for approvals, as it does where nothing else is missing."""
    wanted, missing = experiment.spec.approvals, {f.check for f in refusals(findings)}
    if wanted is None or not wanted.within or not plan.kept or missing != {approvals.CHECK}:
        return False
    await approvals.wait(wanted, plan, world, world.emit)
    return True


async def _withdrawn(experiment: Experiment, plan: Plan, world: World) -> str:
    """Why the approvals do not hold any more, now that a person has looked at the plan; "" where they do."""
    try:
        again = await approvals.approved(experiment.spec.approvals, plan, world)
    except Failure as error:
        return str(error)
    return next((f"{f.check}: {f.message}" for f in refusals(again)), "")


def _keep(path: Path, data: Any) -> None:
    """A file for people, secrets masked."""
    path.write_text(json.dumps(mask(data), indent=1, default=str), errors="backslashreplace")


def _started(loaded: Loaded, world: World) -> events.RunStarted:
    platform = {"context": world.kube.context, "server": world.kube.server}
    if world.prometheus is not None:
        platform["prometheus"] = world.prometheus.url
    if world.slurm is not None:
        platform["slurm"] = str(world.slurm.via)
    if world.sandbox:
        platform["where"] = "--sandbox"
    elif world.kube.for_children is not None:
        platform["where"] = f"--context={world.kube.context}"
    meta = loaded.experiment.metadata
    return events.RunStarted(
        run=world.run,
        name=meta.name,
        title=loaded.experiment.spec.title,
        experiment=loaded.document,
        gameday=__version__,
        by=user_name(),
        seed=world.seed,
        variables=dict(loaded.variables),
        platform=platform,
        file=str(loaded.path),
    )


class _Interruption:
    """The first signal aborts and restores; a later one is answered with patience."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self._engine, self._log = engine, log
        self._first = True

    def __call__(self, name: str) -> None:
        if self._first:
            self._first = False
            self._engine.abort("signal", f"stopped by {name}")
        else:
            text = "still putting everything back; leaving now would leave faults in force"
            self._log.emit(events.Warn(source="signal", message=text))
