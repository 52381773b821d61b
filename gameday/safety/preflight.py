"""The checks before anything is touched. Each gives findings; one that is `refused` stops the run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from gameday.events import Preflight
from gameday.experiment import registry
from gameday.experiment.model import Check, Experiment
from gameday.ledger.recovery import in_force
from gameday.ledger.store import NAMESPACE
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Ref
from gameday.platform.resources import NODES
from gameday.platform.world import World
from gameday.safety.blast import count, measure, total
from gameday.safety.ownership import ownership
from gameday.safety.plan import Plan

LEDGER_NEEDS = (
    f"create configmaps {NAMESPACE}",
    f"patch configmaps {NAMESPACE}",
    f"create leases.coordination.k8s.io {NAMESPACE}",
    f"patch leases.coordination.k8s.io {NAMESPACE}",
)


@dataclass(frozen=True)
class Case:
    """What is to be checked."""

    experiment: Experiment
    plan: Plan
    world: World


Findings = list[Preflight]
_Check = Callable[[Case], Awaitable[Findings]]


def _ok(check: str, message: str) -> Preflight:
    return Preflight(check=check, level="ok", message=message)


def _refused(check: str, message: str, hint: str = "") -> Preflight:
    return Preflight(check=check, level="refused", message=message, hint=hint)


def _warning(check: str, message: str, hint: str = "") -> Preflight:
    return Preflight(check=check, level="warning", message=message, hint=hint)


def identity(experiment: Experiment, world: World) -> Preflight:
    """Whether this is the cluster that the experiment is for. Asked before the cluster is."""
    wanted, context = experiment.spec.target.context, world.kube.context
    if world.sandbox:
        return _ok("target", "the sandbox")
    if wanted and not re.fullmatch(wanted, context):
        return _refused(
            "target",
            f"the context is {context!r}, but the experiment is for {wanted!r}",
            "choose another one with --context, or change spec.target.context",
        )
    return _ok("target", f"context {context}" + (f" matches {wanted}" if wanted else ""))


async def _namespaces(case: Case) -> Findings:
    names = case.experiment.spec.target.namespaces
    found = await asyncio.gather(*(case.world.kube.find(Ref("v1", "Namespace", n)) for n in names))
    missing = [n for n, obj in zip(names, found, strict=True) if obj is None]
    if missing:
        return [
            _refused(
                "namespaces", f"there is no namespace {', '.join(missing)}", "see spec.target.namespaces"
            )
        ]
    return [_ok("namespaces", ", ".join(names) or "none")]


async def _planned(case: Case) -> Findings:
    found = [_refused("plan", f"step {path}: {text}") for path, text in case.plan.problems]
    for step in case.plan.steps.values():
        found += [_warning("plan", f"step {step.path}: {w}") for w in step.fault.warnings]
    return found or [_ok("plan", f"{len(case.plan.steps)} faults planned")]


async def _blast_radius(case: Case) -> Findings:
    spec = case.experiment.spec
    usages = await measure(case.plan, spec.blast_radius, spec.target, case.world.kube)
    found = [
        _refused(
            "blast radius",
            f"the plan touches {u}",
            f"raise spec.blastRadius.{u.what}, or choose fewer targets",
        )
        for u in usages
        if u.exceeded
    ]
    nodes = count(case.plan)["nodes"]
    if nodes and nodes >= await total(case.world.kube, NODES):
        found.append(
            _refused(
                "blast radius", f"the plan touches all {nodes} nodes of the cluster", "leave some of them out"
            )
        )
    return found or [_ok("blast radius", "; ".join(str(u) for u in usages))]


async def _permissions(case: Case) -> Findings:
    needs = {n for s in case.plan.steps.values() for n in s.fault.needs} | set(LEDGER_NEEDS)
    asked = sorted(needs)
    allowed = await asyncio.gather(*(_can_i(need, case.world) for need in asked))
    missing = [need for need, yes in zip(asked, allowed, strict=True) if not yes]
    if missing:
        return [
            _refused("permissions", f"RBAC does not allow: {m}", f"kubectl auth can-i {m}") for m in missing
        ]
    return [_ok("permissions", f"all {len(asked)} that the plan needs")]


async def _can_i(need: str, world: World) -> bool:
    verb, what, *namespace = need.split()
    resource, _, subresource = what.partition("/")
    plural, _, group = resource.partition(".")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "namespace": namespace[0] if namespace else "",
    }
    return await world.kube.allowed(attributes)


async def _prometheus(case: Case) -> Findings:
    checks: list[Check] = [*case.experiment.spec.steady_state, *case.experiment.spec.abort_if]
    asking = [c for c in checks if getattr(registry.probe(c.kind), "needs_prometheus", False)]
    client = case.world.prometheus
    if client is None:
        if not asking and not case.experiment.spec.observe:
            return []
        names = ", ".join(c.name for c in asking) or "observe"
        return [
            _refused(
                "prometheus", f"no Prometheus is given, but {names} asks it", "name one with --prometheus URL"
            )
        ]
    if not await client.ready():
        return [_refused("prometheus", f"Prometheus at {client.url} is not ready", "check --prometheus")]
    found: Findings = []
    for query in case.experiment.spec.observe:
        try:
            await client.instant(query)
        except PlatformError as error:
            found.append(_refused("prometheus", f"the query {query!r} is refused: {error}"))
    return found or [_ok("prometheus", client.url)]


async def _slurm(case: Case) -> Findings:
    """Whether Slurm, where a step or a probe needs it, answers and takes the token."""
    spec = case.experiment.spec
    checks: list[Check] = [*spec.steady_state, *spec.abort_if]
    asking = [c.name for c in checks if getattr(registry.probe(c.kind), "needs_slurm", False)]
    asking += [f"step {s.path}" for s in case.plan.steps.values() if s.kind == "slurm"]
    if not asking:
        return []
    client = case.world.slurm
    if client is None:
        text = f"no Slurm is given, but {', '.join(asking)} asks it"
        return [_refused("slurm", text, "name one in spec.target.slurm, or with --slurm URL")]
    return [_ok("slurm", f"{client.via}: {len(await client.partitions())} partitions")]


async def _alerts(case: Case) -> Findings:
    """An expected alert which no rule makes can never fire; one that fires already proves nothing."""
    expected = case.experiment.spec.expect_alerts
    client = case.world.prometheus
    if not expected or client is None:
        return []
    firing = {a.labels.get("alertname") for a in await client.alerts() if a.state == "firing"}
    return [
        _warning("alerts", f"{e.alert} fires already, so it can't tell whether the fault was seen")
        for e in expected
        if e.alert in firing
    ]


async def _argo_cd(case: Case) -> Findings:
    return await ownership(case.plan, case.world)


async def _other_runs(case: Case) -> Findings:
    found: Findings = []
    for other in await in_force(case.world.kube):
        if other.alive:
            text, hint = "is in force in this cluster", f"wait, or: gameday abort {other.run}"
        else:
            text, hint = "died and was not restored", f"restore it first: gameday recover --run {other.run}"
        found.append(_refused("other runs", f"run {other.run} {text}", hint))
    return found or [_ok("other runs", "none in force")]


_CHECKS: tuple[_Check, ...] = (
    _namespaces,
    _planned,
    _blast_radius,
    _permissions,
    _prometheus,
    _slurm,
    _alerts,
    _argo_cd,
    _other_runs,
)


async def preflight(experiment: Experiment, plan: Plan, world: World) -> Findings:
    """All findings of all checks. Raises PlatformError only when the cluster can't be asked at all."""
    case = Case(experiment, plan, world)
    parts = await asyncio.gather(*(_guarded(check, case) for check in _CHECKS))
    return [identity(experiment, world), *(f for part in parts for f in part)]


async def _guarded(check: _Check, case: Case) -> Findings:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return await check(case)
    except PlatformError as error:
        return [_refused(name, str(error))]


def refusals(findings: Iterable[Preflight]) -> list[Preflight]:
    return [f for f in findings if f.level == "refused"]
