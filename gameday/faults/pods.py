"""Which pods a fault means, within the target's namespaces."""

from __future__ import annotations

from collections.abc import Iterable

from gameday.faults.base import PlanError
from gameday.platform.objects import Object, Ref, gpus, is_finished
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


def check_namespaces(namespaces: Iterable[str], world: World) -> None:
    """Raises PlanError for a namespace that the experiment's target does not name."""
    outside = sorted(set(namespaces) - set(world.namespaces))
    if outside:
        allowed = ", ".join(world.namespaces) or "none"
        raise PlanError(f"namespace {', '.join(outside)} is outside the target (its namespaces: {allowed})")
