"""The checks before anything is touched. Each gives findings; one that is `refused` stops the run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gameday.events import Preflight
from gameday.experiment import registry
from gameday.experiment.loader import UNWATCHED
from gameday.experiment.model import Check, Experiment
from gameday.experiment.text import plural, some
from gameday.extend.check import Findings, ok, refused, warning
from gameday.ledger.keeping import NAMESPACE
from gameday.platform.errors import PartialAnswer, PlatformError
from gameday.platform.objects import Ref
from gameday.platform.permission import Permission, missing
from gameday.platform.resources import NODES
from gameday.platform.shield import or_leave
from gameday.platform.world import World
from gameday.safety import gangs, nogo, targets
from gameday.safety.approvals import cluster as approvals
from gameday.safety.approvals import required
from gameday.safety.blast import count, measure, total
from gameday.safety.case import Case
from gameday.safety.cluster import cluster_of
from gameday.safety.derived import AGAIN, differences
from gameday.safety.gate import Gate
from gameday.safety.installed import fault_of, probe_of
from gameday.safety.lever import read_lever
from gameday.safety.ownership import argo_cd as argo_cd  # an entry point, as the checks of systems below
from gameday.safety.plan import Plan
from gameday.safety.reading import owners_of, way_back

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.prometheus.client import Prometheus

LEDGER_NEEDS = (
    f"get namespaces - {NAMESPACE}",
    *(
        f"{verb} {kind} {NAMESPACE}"
        for kind, verbs in {
            "configmaps": ("get", "list", "create", "patch", "delete"),
            "leases.coordination.k8s.io": ("get", "list", "watch", "create", "patch", "delete"),
            "secrets": ("get", "create", "patch", "delete"),
        }.items()
        for verb in verbs
    ),
)
RBAC_HINT = "ask for them; `gameday rbac FILE` prints the Roles"


# Names that others go by: a finding's `check`. The last two are those of their entry points.
PERMISSIONS, LEVER, PROMETHEUS, SLURM = "permissions", "lever", "prometheus", "slurm"

_Check = Callable[[Case], Awaitable[Findings]]


def identity(experiment: Experiment, world: World) -> Preflight:
    """Whether this is the cluster that the experiment is for. Asked before the cluster is."""
    wanted, context = experiment.spec.target.context, world.kube.context
    if world.sandbox:
        return ok("target", "the sandbox")
    if wanted and not re.fullmatch(wanted, context):
        return refused(
            "target",
            f"the context is {context!r}, but the experiment is for {wanted!r}",
            "choose another one with --context, or change spec.target.context",
        )
    return ok("target", f"context {context}" + (f" matches {wanted}" if wanted else ""))


async def _namespaces(case: Case) -> Findings:
    names = case.experiment.spec.target.namespaces
    found = await asyncio.gather(*(case.world.kube.find(Ref("v1", "Namespace", n)) for n in names))
    missing = [n for n, obj in zip(names, found, strict=True) if obj is None]
    if missing:
        return [
            refused("namespaces", f"there is no namespace {', '.join(missing)}", "see spec.target.namespaces")
        ]
    return [ok("namespaces", ", ".join(names) or "none")]


async def _planned(case: Case) -> Findings:
    found = [refused("plan", f"step {path}: {text}") for path, text in case.plan.problems]
    for step in case.plan.steps.values():
        found += [warning("plan", f"step {step.path}: {w}") for w in step.fault.warnings]
    return found or [ok("plan", f"{plural(len(case.plan.steps), 'fault')} planned")]


async def _blast_radius(case: Case) -> Findings:
    spec = case.experiment.spec
    usages = await measure(case.plan, spec.blast_radius, spec.target, case.world.kube)
    found = [
        refused(
            "blast radius",
            f"the plan touches {u}",
            f"raise spec.blastRadius.{u.what}, or choose fewer targets",
        )
        for u in usages
        if u.exceeded
    ]
    nodes = len(count(case.plan).nodes)
    if nodes and nodes >= await total(case.world.kube, NODES):
        found.append(
            refused(
                "blast radius", f"the plan touches all {nodes} nodes of the cluster", "leave some of them out"
            )
        )
    return found or [ok("blast radius", "; ".join(str(u) for u in usages))]


async def _cluster(case: Case) -> Findings:
    """Which cluster it is; whether a kept plan was made for it, and may still be run."""
    now, plan = await cluster_of(case.world.kube), case.plan
    if not plan.kept:
        return [ok("cluster", str(now))]
    found: Findings = []
    if difference := plan.cluster.differs(now):
        text = f"the plan was made for another cluster ({plan.cluster}): {difference}"
        found.append(refused("cluster", text, "make the plan again, on this cluster"))
    hint = "run it with the same address, or make the plan again"
    found += [refused("cluster", text, hint) for text in plan.other_systems(case.world)]
    if expired := plan.expired():
        found.append(refused("plan", expired))
    return found or [ok("cluster", str(now))]


async def _approvals(case: Case) -> Findings:
    """Who approved; and, where people are asked by this run, whether the plan says what comes of it."""
    wanted = case.experiment.spec.approvals
    found = await required.approved(wanted, case.plan, case.world)
    asks = wanted and (wanted.slack or wanted.service_now or wanted.webhook)  # `gameday approve` looks itself
    if not asks or not case.plan.kept:
        return found
    unlike = await differences(case.plan, case.experiment, case.world)
    return [*(refused("plan", text, AGAIN) for text in unlike), *found]


async def _gate(case: Case) -> Findings:
    """Target, blast radius by name and protected things; for a kept plan also what is there now."""
    gate = Gate(case.experiment, case.plan, case.world)
    problems = await gate.planned()
    warnings: list[str] = []
    if case.plan.kept:
        changed, warnings = await gate.unchanged()
        problems += changed
    found = [refused("gate", p) for p in problems] or [ok("gate", "nothing that is protected is touched")]
    return [*found, *(warning("plan", w) for w in warnings)]


async def _permissions(case: Case) -> Findings:
    needs = {n for s in case.plan.steps.values() for n in s.fault.needs} | set(LEDGER_NEEDS)
    if case.experiment.spec.approvals is not None:
        needs |= set(approvals.NEEDS)
    asked = [Permission.parse(need) for need in sorted(needs)]
    lacking = await missing(case.world.kube, asked)
    if lacking:
        hints = (RBAC_HINT, *[""] * (len(lacking) - 1))
        return [
            refused(PERMISSIONS, f"RBAC does not allow: {m.words}", hint)
            for m, hint in zip(lacking, hints, strict=True)
        ]
    if case.world.sandbox:
        return [ok(PERMISSIONS, "the sandbox allows everything")]
    return [ok(PERMISSIONS, f"all {len(asked)} that the plan needs")]


async def prometheus(case: Case) -> Findings:
    checks: list[Check] = [*case.experiment.spec.steady_state, *case.experiment.spec.abort_if]
    asking = [c for c in checks if probe_of(c.kind).needs_prometheus]
    client = case.world.prometheus
    if client is None:
        if not asking and not case.experiment.spec.observe:
            return []
        names = some([f"“{c.name}”" for c in asking]) or "spec.observe"
        return [
            refused(
                PROMETHEUS,
                f"no Prometheus is given, and it is needed for {names}",
                nogo.NO_PROMETHEUS,
            )
        ]
    try:
        await client.check()
    except PlatformError as error:
        return [refused(PROMETHEUS, str(error))]
    found: Findings = []
    for query in case.experiment.spec.observe:
        try:
            await client.instant(query)
        except PartialAnswer as part:
            found.append(warning(PROMETHEUS, str(part), "its chart will say so"))
        except PlatformError as error:
            found.append(refused(PROMETHEUS, f"the query `{query}` is refused: {error}"))
    if asking and (text := await _of_other_clusters(client, case.world.kube)):
        found.append(
            warning(PROMETHEUS, text, "what is steady there says nothing about this one: --prometheus")
        )
    return found or [ok(PROMETHEUS, client.url)]


async def _of_other_clusters(client: Prometheus, kube: Kube) -> str:
    """What tells that a Prometheus watches other clusters alone; "" where nothing does.

    kube-state-metrics tells when each namespace was made (Unix seconds), and kube-system is the first.
    """
    try:
        made = {value for _, value in await client.instant('kube_namespace_created{namespace="kube-system"}')}
        meta = (await kube.get(Ref("v1", "Namespace", "kube-system")))["metadata"]
        ours = datetime.fromisoformat(meta["creationTimestamp"]).timestamp()
    except (PlatformError, ValueError):
        return ""  # a part of it, or none, can't be read: nothing is known
    if not made or any(abs(each - ours) < 2 for each in made):
        return ""
    theirs = ", ".join(sorted(_moment(each) for each in made)[:3])
    other = f"its kube-system was made {theirs}, ours {_moment(ours)}"
    return f"{client.url} seems to watch another cluster: {other}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


async def slurm(case: Case) -> Findings:
    """Whether Slurm, where a step or a probe needs it, answers and takes the token."""
    spec = case.experiment.spec
    checks: list[Check] = [*spec.steady_state, *spec.abort_if]
    asking = [f"“{c.name}”" for c in checks if probe_of(c.kind).needs_slurm]
    asking += [
        f"step {s.path}" for s in case.plan.steps.values() if fault_of(s.kind, s.fault.spec).needs_slurm
    ]
    if not asking:
        return []
    client = case.world.slurm
    if client is None:
        text = f"no Slurm is given, and it is needed for {some(asking)}"
        return [refused(SLURM, text, "name one in spec.target.slurm, or with --slurm URL")]
    return [ok(SLURM, await client.describe())]


async def node_image(case: Case) -> Findings:
    """Whether what runs as root on nodes may be another image by the time that it runs: a tag can move.

    A warning, so that a first run needs no digest; but nobody can approve an image that is not named.
    """
    from gameday.faults.on_node import NodeProgramFault, options_of

    faults = {s.path: fault_of(s.kind, s.fault.spec) for s in case.plan.steps.values()}
    steps = [path for path, fault in faults.items() if isinstance(fault, NodeProgramFault)]
    image = options_of(case.world).image
    if not steps or "@sha256:" in image:
        return []
    text = f"{image} runs privileged on nodes (step {', '.join(steps)}), and its tag may be moved"
    hint = "name it by digest in spec.target.nodeProgram.image: NAME@sha256:…"
    if case.experiment.spec.approvals is not None:
        return [refused("node image", f"{text} after the plan was approved", hint)]
    return [warning("node image", text, hint)]


async def _abort_conditions(case: Case) -> Findings:
    if case.experiment.spec.unwatched:
        return [warning("abort conditions", UNWATCHED, "see spec.abortIf")]
    return [ok("abort conditions", f"{len(case.experiment.spec.abort_if)}")]


async def alerts(case: Case) -> Findings:
    """An expected alert which no rule makes can never fire; one that fires already proves nothing."""
    expected = case.experiment.spec.expect_alerts
    client = case.world.prometheus
    if not expected or client is None:
        return []
    firing = {a.name for a in await client.alerts() if a.state == "firing"}
    rules = await client.alert_rules()
    found = [
        warning("alerts", f"{e.alert} fires already, so it can't tell whether the fault was seen")
        for e in expected
        if e.alert in firing
    ]
    if not rules and not firing:
        return [warning("alerts", f"{client.url} lists no alert rules, and no alert", nogo.RULES_ELSEWHERE)]
    missing = [e.alert for e in expected if rules and e.alert not in rules | firing]
    return found + [
        warning("alerts", f"no rule makes the alert {name}, so it can never fire") for name in missing
    ]


async def _lever(case: Case) -> Findings:
    """Whether a person halted everything. A lever that can't be read or understood counts as pulled."""
    now = datetime.now(UTC)
    try:
        lever = await read_lever(case.world.kube)
    except PlatformError as error:
        return [refused(LEVER, f"nobody knows whether runs are halted: {error}", "try again once it answers")]
    if why := lever.pulled(now):
        return [refused(LEVER, why, "wait, or take it off: gameday unhalt")]
    if window := lever.soon(now, case.experiment.spec.max_duration):
        return [warning(LEVER, f"a freeze window comes, and would abort the run: {window}")]
    return [ok(LEVER, "nothing is halted")]


# What every run is held to, whatever is installed; first what a dead run left, which may be behind the rest.
# The names are those for people, which the findings have too.
_CHECKS: dict[str, _Check] = {
    targets.CHECK: targets.other_runs,
    "cluster": _cluster,
    "namespaces": _namespaces,
    "plan": _planned,
    "blast radius": _blast_radius,
    "gate": _gate,
    "owners": owners_of,
    "way back": way_back,
    gangs.CHECK: gangs.gangs,
    nogo.CHECK: nogo.no_go,
    required.CHECK: _approvals,
    PERMISSIONS: _permissions,
    "abort conditions": _abort_conditions,
    LEVER: _lever,
}


# What a run is asked when it begins: an approver has other permissions, and is who the run waits for.
AS_IT_BEGINS = frozenset({required.CHECK, PERMISSIONS, LEVER, targets.CHECK})


async def preflight(
    experiment: Experiment, plan: Plan, world: World, *, without: Collection[str] = ()
) -> Findings:
    """The findings of all checks but those named. Raises PlatformError when the cluster can't be asked."""
    case = Case(experiment, plan, world)
    ours = (_guarded(name, check, case) for name, check in _CHECKS.items() if name not in without)
    others = (_installed(name, case) for name in registry.names(registry.CHECKS))
    parts = await asyncio.gather(*ours, *others)
    return [identity(experiment, world), *(f for part in parts for f in part)]


async def _guarded(name: str, check: _Check, case: Case) -> Findings:
    try:
        return await check(case)
    except PlatformError as error:
        return [refused(name, str(error))]


async def _installed(name: str, case: Case) -> Findings:
    """The check under an entry point. One that can't be used, or fails, may have had something to say."""
    package, words = registry.package(registry.CHECKS, name), name.replace("-", " ")
    try:
        return await or_leave(_guarded(words, registry.check(name), case))
    except registry.RegistryError as error:
        return [refused(words, str(error), "mend that package, or uninstall it")]
    except Exception as error:
        if not package:
            raise  # a defect of ours
        text = f"the check failed: {type(error).__name__}: {error}"
        return [refused(words, text, f"mend the package {package}, or uninstall it")]


def refusals(findings: Iterable[Preflight]) -> list[Preflight]:
    return [f for f in findings if f.level == "refused"]
