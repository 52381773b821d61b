"""Which pods a fault means, within the target's namespaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from gameday.experiment.text import some
from gameday.experiment.values import picked
from gameday.extend import FaultError, FaultPlan, PlanError
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.node_pod import run_of
from gameday.platform.devices import gpus
from gameday.platform.objects import (
    PROTECT,
    Object,
    Ref,
    co_owners,
    controller,
    is_finished,
    labels_of,
    owner_ref,
)
from gameday.platform.resources import PODS
from gameday.platform.world import Approved, Victim, World


def pod_victim(pod: Object) -> Victim:
    """A pod as a target; one that is over holds no GPUs."""
    meta = pod["metadata"]
    ref = Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"])
    owner = owner_ref(controller(pod), meta["namespace"])
    held = 0 if is_finished(pod) else gpus(pod)
    node = pod["spec"].get("nodeName", "")
    return Victim(ref, "pod", node, held, owner=owner, co_owners=co_owners(pod))


async def running_pods(namespace: str, selector: str, world: World, *, started: bool = False) -> list[Object]:
    """The pods that run or will, and are not going away, by name; with `started` only those that run."""
    found = await world.kube.list(PODS, namespace, labels=selector)
    alive = [p for p in found if not is_finished(p) and "deletionTimestamp" not in p["metadata"]]
    alive = [p for p in alive if not started or p["status"].get("phase") == "Running"]
    return sorted(alive, key=lambda p: str(p["metadata"]["name"]))


async def pick_pods(spec: Any, world: World, *, started: bool = False) -> list[Object]:
    """The pods that a spec with selector, namespace and pick means. Raises PlanError when there are none."""
    check_namespaces([spec.namespace], world)
    pods = await running_pods(spec.namespace, spec.selector, world, started=started)
    if not pods:
        raise PlanError(f"no running pod matches {spec.selector} in namespace {spec.namespace}")
    if world.approved is None:
        return world.sample(pods, picked(spec.pick, len(pods)))
    where, found_by = "", world.approved.found_by
    if found_by:  # the nodes that the pods run on were approved
        where = f" on {some(sorted(world.approved.nodes))}"
        pods = [p for p in pods if p["spec"].get("nodeName") in world.approved.nodes]
    chosen = _again(pods, found_by or world.approved.uids, len(found_by) or world.approved.pods, world)
    if not chosen:
        raise PlanError(f"no pod that matches {spec.selector} in {spec.namespace}{where} may be touched now")
    return chosen


def _again(pods: list[Object], approved: Collection[str], count: int, world: World) -> list[Object]:
    """Those that were approved, by UID; for those replaced since, their successors. None is protected."""

    def may(pod: Object) -> bool:
        return PROTECT not in labels_of(pod) and (pod["metadata"]["uid"] in approved or bool(controller(pod)))

    return world.sample(list(filter(may, pods)), count, first=lambda p: p["metadata"]["uid"] in approved)


async def pods_now(target: Any, plan: FaultPlan[Any], world: World) -> list[Object]:
    """The pods of a plan; for those replaced since, as many of their successors, admitted.

    `target` has the selector and the namespace. None of them carries the label that protects.
    """
    pods = await running_pods(target.namespace, target.selector, world)
    approved = Approved(plan.victims, plan.data)
    chosen = _again(pods, approved.uids, approved.pods, world)
    if not chosen:
        raise FaultError(f"no pod that matches {target.selector} in {target.namespace} may be touched now")
    await world.admit([pod_victim(p) for p in chosen])
    return chosen


def is_ours(pod: Object, world: World) -> bool:
    """Whether a program of this very run runs in a pod: neither another run's, nor whatever has its label."""
    namespace = world.node_program.namespace if world.node_program else NAMESPACE
    return bool(world.run) and run_of(pod, namespace) == world.run


def check_namespaces(namespaces: Iterable[str], world: World) -> None:
    """Raises PlanError for a namespace that the experiment's target does not name."""
    outside = sorted(set(namespaces) - set(world.namespaces))
    if outside:
        allowed = ", ".join(world.namespaces) or "none"
        raise PlanError(f"namespace {', '.join(outside)} is outside the target (its namespaces: {allowed})")


def what_keeps(pod: Object, grace: int | None = None) -> str:
    """What may keep a pod that was asked to go, "" for nothing that shows; `grace` is the asked one's (s)."""
    meta = pod["metadata"]
    why = [f"finalizer {f}" for f in meta.get("finalizers") or ()]
    grace = meta.get("deletionGracePeriodSeconds", grace)
    grace = pod["spec"].get("terminationGracePeriodSeconds") if grace is None else grace
    why += [f"{grace} s to end in"] if grace else []
    return ", ".join(why)
