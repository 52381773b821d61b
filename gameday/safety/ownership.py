"""Which Argo CD Application deploys what a plan touches, and whether it will fight the fault.

Argo CD watches the live objects it deploys: self-heal puts a changed field back within seconds, whenever git
was compared last. Without self-heal a change stays until git moves or somebody syncs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gameday.events import Preflight
from gameday.experiment.quantity import parse_duration
from gameday.platform.argocd import NAMESPACE as ARGOCD
from gameday.platform.argocd import NoArgoCD, applications, automated, owner_in, status_of
from gameday.platform.errors import ApiError, NotServed
from gameday.platform.objects import Object, Ref
from gameday.platform.owners import owners
from gameday.platform.world import Victim, World
from gameday.safety.case import Case
from gameday.safety.plan import StepPlan

CHECK = "argo cd"
MOST = 50  # victims of a step that are looked up; the others are mostly more of the same
# Defaults of Argo CD 3.5, as docs/operator-manual/argocd-cm.yaml and argocd-cmd-params-cm.yaml there say.
RECONCILIATION, JITTER = "120s", "60s"
BACKOFF = {"timeout.seconds": "2", "factor": "3", "cap.seconds": "300"}


@dataclass(frozen=True)
class Owned:
    """An object that an Application deploys, and whether a fault changes it or only what it made."""

    application: Object
    obj: Object
    itself: bool


async def argo_cd(case: Case) -> list[Preflight]:
    """A finding for each Application that owns a target; none where the cluster has no Argo CD."""
    try:
        known = await applications(case.world.kube)
    except NoArgoCD:
        return []
    except ApiError as error:
        if error.status != 403:
            raise
        text = "its Applications may not be read, so whether one of them fights a fault is not known"
        return [
            Preflight(
                check=CHECK, level="warning", message=text, hint="allow `list applications.argoproj.io`"
            )
        ]
    found: list[Preflight] = []
    for step in case.plan.steps.values():
        if known and step.kind != "argocd":  # that fault deals with its Application itself
            found += await _step(step, known, case.world)
    return list({(f.level, f.message): f for f in found}.values())


async def _step(step: StepPlan, known: list[Object], world: World) -> list[Preflight]:
    victims = [v for v in step.fault.victims if v.role != "node"][:MOST]
    looked_up = await asyncio.gather(*(_owned(v, known, world) for v in victims))
    unique = {(Ref.of(o.application), Ref.of(o.obj), o.itself): o for o in looked_up if o is not None}
    return [await _finding(step, owned, world) for owned in unique.values()]


async def _owned(victim: Victim, known: list[Object], world: World) -> Owned | None:
    """The nearest of a target and its owners that an Application deploys."""
    try:
        obj = await world.kube.find(victim.ref)
    except NotServed:  # Slurm's jobs, say, which no Application deploys
        return None
    if obj is None:
        return None
    if (application := owner_in(obj, known)) is not None:
        return Owned(application, obj, itself=True)
    for each in await owners(world.kube, obj, []):
        if (application := owner_in(each, known)) is not None:
            return Owned(application, each, itself=False)
    return None


async def _finding(step: StepPlan, owned: Owned, world: World) -> Preflight:
    application, policy = Ref.of(owned.application), automated(owned.application)
    who = f"step {step.path}: {application} deploys {Ref.of(owned.obj)}"
    if not owned.itself:
        return _ok(f"{who}; it does not put back what happens to its pods")
    if policy is None:
        return _ok(f"{who}; automated sync is off, so nothing puts the change back")
    timing = await _timing(owned.application, world)
    if policy.get("selfHeal"):
        prune = ", and prunes what git does not hold" if policy.get("prune") else ""
        return Preflight(
            check=CHECK,
            level="warning",
            message=f"{who} with self-heal{prune}: it puts back what differs from git as soon as it sees it, "
            f"{timing.retries}",
            hint=f"expect the fault to end early, or pause the automated sync of {application} first",
        )
    return _ok(f"{who}; self-heal is off, so a change stays until git moves (looked at every {timing.git})")


def _ok(message: str) -> Preflight:
    return Preflight(check=CHECK, level="ok", message=message)


@dataclass(frozen=True)
class _Timing:
    """How often an Argo CD looks, in words."""

    git: str
    retries: str


async def _timing(application: Object, world: World) -> _Timing:
    """From its own configuration, where that may be read; else its defaults."""
    namespace = status_of(application).get("controllerNamespace") or ARGOCD
    settings = await _data(namespace, "argocd-cm", world)
    options = await _data(namespace, "argocd-cmd-params-cm", world)
    every = parse_duration(settings.get("timeout.reconciliation") or RECONCILIATION)
    jitter = parse_duration(settings.get("timeout.reconciliation.jitter") or JITTER)
    git = f"{every:g} s" if not jitter else f"{every:g} to {every + jitter:g} s"
    backoff = {k: options.get(f"controller.self.heal.backoff.{k}", v) for k, v in BACKOFF.items()}
    fixed = options.get("controller.self.heal.timeout.seconds", "0")
    first, factor, cap = backoff.values()
    retries = f"again after {first} s, each time {factor} times as long, up to {cap} s"
    if first == "0":
        retries = f"again every {fixed} s"
    return _Timing(git if every else "never by the clock", retries)


async def _data(namespace: str, name: str, world: World) -> dict[str, str]:
    try:
        found = await world.kube.find(Ref("v1", "ConfigMap", name, namespace))
    except ApiError:
        return {}
    return (found or {}).get("data") or {}
