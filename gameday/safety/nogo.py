"""No-go: what is going on in the cluster that keeps a run from beginning, whatever was approved.

What counts as an update under way is what `kubectl rollout status` waits for
(k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go): old replicas of a Deployment, another revision of a
StatefulSet, nodes of a DaemonSet that are not updated.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from gameday.events import Preflight
from gameday.experiment.model import NoGo
from gameday.experiment.text import plural
from gameday.platform.devices import amounts, requests
from gameday.platform.effect import Effect, Kind
from gameday.platform.objects import Object, Ref, condition, is_finished
from gameday.platform.resources import NODES, PODS
from gameday.platform.world import World
from gameday.safety.blast import is_down, total
from gameday.safety.case import Case
from gameday.safety.plan import Plan
from gameday.safety.reading import workloads

CHECK = "no go"
NO_PROMETHEUS = "name one with --prometheus URL, or in spec.target.prometheus"
RULES_ELSEWHERE = "name what evaluates the rules (vmalert, a ruler) in spec.target.prometheus.rulesUrl"
URL_WITHIN = 5.0  # seconds
UNASKED = 500  # nodes up to which the room for drained pods is looked at without being asked for


async def no_go(case: Case) -> list[Preflight]:
    """A finding for each reason not to begin now. Raises PlatformError where a question has no answer."""
    spec, plan, world = case.experiment.spec.no_go, case.plan, case.world
    parts = await asyncio.gather(
        _alerts(spec, world),
        _signal(spec),
        _breaker(spec, world),
        _rollouts(spec, plan, world),
        _capacity(spec, plan, world),
    )
    return [finding for part in parts for finding in part]


def _no(message: str, hint: str = "", *, level: str = "refused") -> Preflight:
    return Preflight(check=CHECK, level=level, message=message, hint=hint)


async def _alerts(spec: NoGo, world: World) -> list[Preflight]:
    if not spec.alerts:
        return []
    if world.prometheus is None:
        return [_no("noGo.alerts asks Prometheus, but none is given", NO_PROMETHEUS)]
    found = []
    for matchers in spec.alerts:
        firing = [a for a in await world.prometheus.active(matchers) if a.state == "firing"]
        names = sorted({alert.name for alert in firing})
        found += [_no(f"alert {name} fires ({matchers})", "wait until it is over") for name in names]
    if not found and not await world.prometheus.writes_alerts():
        text = f"whether an alert fires can't be known: {world.prometheus.url} lists no alert rules"
        return [_no(f"{text}, and no ALERTS", RULES_ELSEWHERE)]
    return found


async def _signal(spec: NoGo) -> list[Preflight]:
    import aiohttp

    if spec.url is None:
        return []
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=URL_WITHIN), trust_env=True) as session,
            session.get(spec.url) as answer,
        ):
            if 200 <= answer.status < 300:
                return []
            why = f"answered {answer.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = f"did not answer: {str(error) or type(error).__name__}"
    return [_no(f"{spec.url} {why}", "see spec.noGo.url")]


async def _breaker(spec: NoGo, world: World) -> list[Preflight]:
    """Whether NVSentinel's circuit breaker has tripped: a person must look at its nodes.

    Its state is in ConfigMap circuit-breaker, key status, CLOSED or TRIPPED (NVIDIA/NVSentinel,
    fault-quarantine/pkg/breaker and docs/runbooks/circuit-breaker.md).
    """
    namespace = spec.nvsentinel or "nvsentinel"
    breaker, blind = Ref("v1", "ConfigMap", "circuit-breaker", namespace), list[Ref]()
    there = spec.nvsentinel or await world.kube.find_readable(Ref("v1", "Namespace", namespace), blind)
    found = await world.kube.find_readable(breaker, blind) if there else None
    if blind:
        text = f"{blind[0]} may not be read, so nobody knows whether NVSentinel's circuit breaker has tripped"
        level = "refused" if spec.nvsentinel else "warning"
        return [_no(text, f"allow `get` of {blind[0]}", level=level)]
    if found is None:
        text = f"{breaker} is not there, so nobody knows whether NVSentinel's circuit breaker has tripped"
        return [_no(text, "see spec.noGo.nvsentinel")] if spec.nvsentinel else []
    state = (found.get("data") or {}).get("status")
    if state == "CLOSED":
        return []
    hint = f"find out why, and reset it as its runbook says ({breaker}, key status)"
    return [_no(f"NVSentinel's circuit breaker is {state or 'in no state that is known'}", hint)]


async def _rollouts(spec: NoGo, plan: Plan, world: World) -> list[Preflight]:
    if not spec.rollouts:
        return []
    asked = await workloads(plan, world)
    objects = {str(Ref.of(o)): o for w in asked for o in w.chain}
    blind = dict.fromkeys(str(ref) for w in asked for ref in w.blind)
    text = "may not be read, so nobody knows whether an update of it is under way"
    unknown = [_no(f"{ref} {text}", f"allow `get` of {ref}", level="warning") for ref in blind]
    return unknown + [
        _no(f"{name}: {why}", "wait until the update is over, or set noGo.rollouts to false")
        for name, obj in objects.items()
        if (why := updating(obj))
    ]


def updating(obj: Object) -> str:
    """Why a workload counts as being updated, or ""."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    known = obj["kind"] in ("Deployment", "StatefulSet", "DaemonSet")
    if known and int(status.get("observedGeneration") or 0) < int(
        (obj.get("metadata") or {}).get("generation") or 0
    ):
        return "its controller has not seen its last change, so nobody knows whether an update is under way"
    if obj["kind"] == "Deployment":
        progressing = condition(obj, "Progressing")
        if progressing.get("reason") == "ProgressDeadlineExceeded":
            return "its update is stuck (ProgressDeadlineExceeded)"
        old = int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))
        if old > 0 and not spec.get("paused"):
            return f"an update is under way ({plural(old, 'pod')} of the revision before)"
    if obj["kind"] == "StatefulSet" and status.get("currentRevision") != status.get("updateRevision"):
        partition = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition")
        return "" if partition else "an update is under way (two revisions)"
    if obj["kind"] == "DaemonSet" and (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
        missing = int(status.get("desiredNumberScheduled", 0)) - int(status.get("updatedNumberScheduled", 0))
        return (
            f"an update is under way (the revision before is on {plural(missing, 'node')})"
            if missing > 0
            else ""
        )
    return ""


async def _capacity(spec: NoGo, plan: Plan, world: World) -> list[Preflight]:
    """Whether what drained pods ask for is free on the other nodes: in sum, so a yes may still be a no."""
    effects = [e for s in plan.steps.values() for e in s.fault.effects]
    gone = {e.ref.name for e in effects if e.kind is Kind.NODE}
    moving = {e.ref.uid for e in effects if _moves(e)}
    if not moving:
        return []
    if not spec.spare_capacity and await total(world.kube, NODES) > UNASKED:
        return []  # a warning is not worth a list of all pods of so large a cluster
    nodes = [n async for n in world.kube.each(NODES) if not is_down(n)]
    free: dict[str, float] = defaultdict(float)
    for node in nodes:
        if node["metadata"]["name"] not in gone:
            _add(free, amounts((node.get("status") or {}).get("allocatable") or {}))
    staying = {n["metadata"]["name"] for n in nodes} - gone
    wanted: dict[str, float] = defaultdict(float)
    async for pod in world.kube.each(PODS):
        if is_finished(pod):
            continue
        if pod["metadata"]["uid"] in moving:
            _add(wanted, requests(pod))
        elif pod["spec"].get("nodeName") in staying:
            _add(free, requests(pod), -1)
    short = [
        f"{name} {_text(wanted[name])} of {_text(max(free[name], 0))} free"
        for name in sorted(wanted)
        if _is_scarce(name) and wanted[name] > free[name]
    ]
    if not short:
        return []
    text = f"the other nodes have no room for {plural(len(moving), 'pod')} that must move: {'; '.join(short)}"
    if spec.spare_capacity:
        return [_no(text, "drain fewer nodes, or set noGo.spareCapacity to false")]
    return [_no(text, level="warning")]


def _moves(effect: Effect) -> bool:
    daemon = effect.owner is not None and effect.owner.kind == "DaemonSet"
    return effect.kind is Kind.POD and effect.comes and effect.ends and not daemon


def _is_scarce(resource: str) -> bool:
    """CPU, memory, and what devices a node has: GPUs, and the network devices beside them."""
    return resource in ("cpu", "memory") or "/" in resource


def _add(total: dict[str, float], amounts: dict[str, float], times: int = 1) -> None:
    for name, amount in amounts.items():
        total[name] += times * amount


def _text(amount: float) -> str:
    return f"{amount / 2**30:.1f}Gi" if amount >= 2**30 else f"{amount:g}"
