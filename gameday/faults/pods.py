"""Which pods a fault means, within the target's namespaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gameday.experiment.values import picked
from gameday.faults.base import FaultPlan, PlanError
from gameday.platform.objects import Object, Ref, controller, gpus, is_finished
from gameday.platform.resources import PODS
from gameday.platform.world import Victim, World


def pod_victim(pod: Object) -> Victim:
    meta = pod["metadata"]
    ref = Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"])
    return Victim(ref, "pod", pod["spec"].get("nodeName", ""), gpus(pod))


async def running_pods(namespace: str, selector: str, world: World) -> list[Object]:
    """The pods that run and are not going away, by name."""
    found = await world.kube.list(PODS, namespace, labels=selector)
    alive = [p for p in found if not is_finished(p) and "deletionTimestamp" not in p["metadata"]]
    return sorted(alive, key=lambda p: str(p["metadata"]["name"]))


async def pick_pods(spec: Any, world: World) -> list[Object]:
    """The pods that a spec with selector, namespace and pick means. Raises PlanError when there are none."""
    check_namespaces([spec.namespace], world)
    pods = await running_pods(spec.namespace, spec.selector, world)
    if not pods:
        raise PlanError(f"no running pod matches {spec.selector} in namespace {spec.namespace}")
    return world.sample(pods, picked(spec.pick, len(pods)))


async def pods_now(plan: FaultPlan, world: World) -> list[Object]:
    """The pods that were approved; for those replaced since, as many of their successors, admitted."""
    pods = await running_pods(plan.spec.namespace, plan.spec.selector, world)
    uids = {v.ref.uid for v in plan.victims}
    chosen = [p for p in pods if p["metadata"]["uid"] in uids]
    others = [p for p in pods if p["metadata"]["uid"] not in uids and controller(p)]
    chosen += world.sample(others, len(plan.victims) - len(chosen))
    world.admit([pod_victim(p) for p in chosen])
    return chosen


def check_namespaces(namespaces: Iterable[str], world: World) -> None:
    """Raises PlanError for a namespace that the experiment's target does not name."""
    outside = sorted(set(namespaces) - set(world.namespaces))
    if outside:
        allowed = ", ".join(world.namespaces) or "none"
        raise PlanError(f"namespace {', '.join(outside)} is outside the target (its namespaces: {allowed})")
