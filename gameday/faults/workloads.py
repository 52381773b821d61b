"""Workloads as victims: their pods, the GPUs that those hold by their template, and how far a rollout is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gameday.extend import PlanError
from gameday.platform.devices import gpus
from gameday.platform.objects import Object, Ref
from gameday.platform.templates import NoTemplate, pod_template
from gameday.platform.world import Victim, World


async def workload_victim(workload: Object, world: World, pods: int | None = None) -> Victim:
    """A workload with `pods` of its pods, by default all. Raises PlanError where they can't be known."""
    if pods is None and workload["kind"] == "DaemonSet":
        if not observed(workload):
            raise PlanError(f"{Ref.of(workload)}: its controller has not seen it: its pods can't be counted")
        pods = int(workload["status"]["desiredNumberScheduled"])
    elif pods is None:
        pods = int(workload["spec"].get("replicas", 1))
    held = gpus(await template_of(workload, world)) * pods
    return Victim(Ref.of(workload), "workload", gpus=held, pods=pods)


async def template_of(workload: Object, world: World) -> Object:
    """The template of a workload's pods. Raises PlanError where it can't be read."""
    try:
        return await pod_template(world.kube, workload)
    except NoTemplate as error:
        raise PlanError(f"{error}: what its pods hold is not known") from error


def observed(workload: Object) -> bool:
    """Whether the controller's status is of the spec as it is now.

    Of a Rollout it is text, and before Argo Rollouts 1.0 it was a hash, which says nothing.
    """
    seen = str((workload.get("status") or {}).get("observedGeneration") or "0")
    return not seen.isdigit() or int(seen) >= int(workload["metadata"].get("generation") or 0)


async def rolling(workloads: Iterable[Ref], world: World) -> list[str]:
    """Workloads whose pods are not all there, Ready and of the present template, by their own status."""
    found = await asyncio.gather(*(world.kube.find(ref) for ref in sorted(workloads, key=str)))
    return [f"{Ref.of(w)}: {said}" for w in found if w is not None and (said := _left(w))]


def _left(workload: Object) -> str:
    """How far a rollout is; "" when it is over. Field names are those of apps/v1, and of argoproj.io."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    if spec.get("paused"):
        return ""
    if not observed(workload):
        return "its controller has not seen the change yet"
    if workload["kind"] == "Rollout":  # it rests at each of its steps
        return str(status.get("message") or "it progresses") if status.get("phase") == "Progressing" else ""
    if workload["kind"] == "DaemonSet":
        wanted = int(status.get("desiredNumberScheduled") or 0)
        have = (status.get("updatedNumberScheduled") or 0, status.get("numberReady") or 0)
    else:
        wanted = int(spec.get("replicas", 1))
        have = (status.get("updatedReplicas") or 0, status.get("readyReplicas") or 0)
    strategy = (spec.get("updateStrategy") or {}).get("type")
    ready = min(have) if strategy != "OnDelete" else int(have[1])
    return f"{ready} of {wanted} pods are new and Ready" if ready < wanted else ""
