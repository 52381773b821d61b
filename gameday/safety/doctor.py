"""Whether everything that game days use is there and answers, and what to do where it does not.

Each check asks one system and never changes anything. What is not installed is no fault of a platform's:
`absent` says which faults and probes can't be used for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from gameday.experiment.text import plural, some
from gameday.faults.rollout import ROLLOUTS
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.survey import survey
from gameday.platform import istio, sriov
from gameday.platform.errors import NotServed, PlatformError, Unreachable
from gameday.platform.kinds import NoSuchKind, find_resource
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref, Resource
from gameday.platform.permission import Permission, missing
from gameday.platform.resources import NODES
from gameday.safety.lever import why_pulled
from gameday.safety.preflight import LEDGER_NEEDS, RBAC_HINT

if TYPE_CHECKING:
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.slack import Slack
    from gameday.platform.slurm.client import Slurm

State = Literal["ok", "absent", "warning", "broken"]
JANITOR = Ref("apps/v1", "Deployment", "gameday-janitor", NAMESPACE)
AWAY = "see that it runs, and that it can be reached from this machine"
STALE = 600.0  # seconds since any Application was compared with git; Argo CD's own default is 180
# Kinds by which an integration is known, and what can't be used without it.
OPERATORS: dict[str, tuple[Resource | str, str]] = {  # a name: in whatever version it is served
    "argo rollouts": (ROLLOUTS, "the fault rollout"),
    "istio": (Resource(istio.API, "VirtualService", "virtualservices"), "the fault istio"),
    "gpu operator": ("clusterpolicies.nvidia.com", "gpu: mig, and DCGM unless it runs by itself"),
    "sr-iov operator": (sriov.NODE_STATES, "nic and vf by pod or resource"),
    "cluster api": ("machines.cluster.x-k8s.io", "the fault machine"),
}


@dataclass(frozen=True)
class Found:
    """A finding of one check. `broken` is what stands in a game day's way; `advice` says what to do."""

    check: str
    state: State
    says: str
    advice: str = ""


@dataclass(frozen=True)
class Systems:
    """Who is asked; None where nobody named one."""

    kube: Kube
    prometheus: Prometheus | None = None
    slack: Slack | None = None
    slurm: Slurm | None = None


async def examine(systems: Systems) -> list[Found]:
    """All checks at the same time, in the order in which they are to be read. Never raises PlatformError."""
    first = await _guarded("api", _api(systems))
    if first[0].state == "broken":
        return first
    checks = {
        "permissions": _permissions,
        "runs": _runs,
        "lever": _lever,
        "janitor": _janitor,
        "prometheus": _prometheus,
        "slack": _slack,
        "slurm": _slurm,
        "chaos mesh": _chaos_mesh,
        "argo cd": _argo_cd,
        "operators": _operators,
    }
    parts = await asyncio.gather(*(_guarded(name, check(systems)) for name, check in checks.items()))
    return [*first, *(found for part in parts for found in part)]


async def _guarded(name: str, check: Awaitable[list[Found]]) -> list[Found]:
    try:
        return await check
    except PlatformError as error:
        away = isinstance(error, Unreachable)
        return [Found(name, "broken", str(error), AWAY if away else "")]


async def _api(systems: Systems) -> list[Found]:
    kube = systems.kube
    return [Found("api", "ok", f"{kube.context} at {kube.server}, Kubernetes {await kube.version()}")]


async def _permissions(systems: Systems) -> list[Found]:
    """Permissions that every run needs; a fault's are in its plan."""
    if refused := await missing(systems.kube, [*map(Permission.parse, LEDGER_NEEDS)]):
        text = f"RBAC does not allow: {'; '.join(p.words for p in refused)}"
        return [Found("permissions", "broken", text, RBAC_HINT)]
    return [Found("permissions", "ok", f"a run's ledger may be kept in namespace {NAMESPACE}")]


async def _runs(systems: Systems) -> list[Found]:
    seen = await survey(systems.kube)
    found = [Found("runs", "warning", text, "remove the label, or the object") for text in seen.strangers]
    for run in seen.runs:
        if run.alive:
            found.append(Found("runs", "ok", f"{run.run} is in force, by {run.by} on {run.host}"))
        else:
            advice = f"gameday recover --run {run.run}"
            found.append(Found("runs", "broken", f"{run.run} died and was not restored", advice))
    return found or [Found("runs", "ok", "none in force")]


async def _lever(systems: Systems) -> list[Found]:
    if why := await why_pulled(systems.kube):
        return [Found("lever", "warning", why, "no run may begin until `gameday unhalt`, or the window ends")]
    return [Found("lever", "ok", "nothing is halted")]


async def _janitor(systems: Systems) -> list[Found]:
    janitor = await systems.kube.find(JANITOR)
    ready = ((janitor or {}).get("status") or {}).get("readyReplicas") or 0
    if ready:
        return [Found("janitor", "ok", f"{JANITOR} has {plural(ready, 'ready replica')}")]
    text = (
        f"{JANITOR} {'has no ready replica' if janitor else 'is not there'}: nobody restores a run that dies"
    )
    advice = f"kubectl -n {NAMESPACE} describe pods" if janitor else await _deploying(systems.kube)
    return [Found("janitor", "warning", text, advice)]


async def _deploying(kube: Kube) -> str:
    """All steps to a janitor: its manifest brings neither its namespace nor its image."""
    there = await kube.find(Ref("v1", "Namespace", NAMESPACE))
    first = "" if there else f"kubectl create namespace {NAMESPACE} && "
    image = "build deploy/Dockerfile, and name the image in the manifest"
    return f"{first}kubectl apply -f deploy/janitor.yaml ({image})"


async def _prometheus(systems: Systems) -> list[Found]:
    client = systems.prometheus
    if client is None:
        advice = "--prometheus URL, or $GAMEDAY_PROMETHEUS_URL"
        return [
            Found("prometheus", "absent", "no address is given: prometheus and alert can't be used", advice)
        ]
    await client.check()
    return [Found("prometheus", "ok", f"{client.url} {await client.version()}".strip())]


async def _slack(systems: Systems) -> list[Found]:
    from gameday.platform.slack import SCOPES

    if systems.slack is None:
        return [Found("slack", "absent", "no token is given: nothing is posted", "set $SLACK_BOT_TOKEN")]
    who, scopes = await systems.slack.who()
    if scopes and (missing := sorted(SCOPES - scopes)):
        advice = "add them under OAuth & Permissions, then reinstall the app"
        return [Found("slack", "broken", f"{who}: the token lacks {', '.join(missing)}", advice)]
    return [Found("slack", "ok", who)]


async def _slurm(systems: Systems) -> list[Found]:
    client = systems.slurm
    if client is None:
        advice = "--slurm URL, or $GAMEDAY_SLURM_URL"
        return [Found("slurm", "absent", "no address is given: slurm can't be used", advice)]
    seen = await client.describe()
    if why := await client.cannot("node"):
        return [Found("slurm", "warning", f"{client.via}: it can only be read: {why}")]
    return [Found("slurm", "ok", seen)]


async def _chaos_mesh(systems: Systems) -> list[Found]:
    from gameday.platform.chaos_mesh import API_VERSION, DAEMONS, nodes_with_daemon

    if not await _served(systems.kube, Resource(API_VERSION, "NetworkChaos", "networkchaos")):
        return [Found("chaos mesh", "absent", "not installed: the fault chaosMesh can't be used")]
    nodes, daemons = await systems.kube.list(NODES), await nodes_with_daemon(systems.kube)
    without = sorted(n["metadata"]["name"] for n in nodes if n["metadata"]["name"] not in daemons)
    if without:
        named = some(without)
        advice = f"kubectl get pods -A -o wide -l {DAEMONS}"
        return [Found("chaos mesh", "warning", f"chaos-daemon is not ready on {named}", advice)]
    return [Found("chaos mesh", "ok", f"chaos-daemon is ready everywhere ({plural(len(nodes), 'node')})")]


async def _argo_cd(systems: Systems) -> list[Found]:
    from gameday.platform.argocd import NoArgoCD, applications

    try:
        known = await applications(systems.kube)
    except NoArgoCD:
        return [Found("argo cd", "absent", "not installed: argocd can't be used")]
    ages = [age for a in known if (age := _age((a.get("status") or {}).get("reconciledAt"))) is not None]
    if known and (not ages or min(ages) > STALE):
        text = "no Application was compared with git lately: is its controller running?"
        return [Found("argo cd", "warning", text, "kubectl -n argocd get pods")]
    return [Found("argo cd", "ok", f"{len(known)} Applications")]


def _age(stamp: object) -> float | None:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(stamp))).total_seconds()
    except (ValueError, TypeError):
        return None


async def _operators(systems: Systems) -> list[Found]:
    served = await asyncio.gather(*(_served(systems.kube, kind) for kind, _ in OPERATORS.values()))
    return [
        Found(name, "ok", f"{there.kind} is served")
        if there
        else Found(name, "absent", f"not installed, which is needed for {use}")
        for (name, (_, use)), there in zip(OPERATORS.items(), served, strict=True)
    ]


async def _served(kube: Kube, kind: Resource | str) -> Resource | None:
    try:
        if isinstance(kind, str):
            return await find_resource(kube, kind)
        return await kube.resource(kind.api_version, kind.kind)
    except (NotServed, NoSuchKind):
        return None
