"""Protection that no selector can express: the label on a pod's node, or on a workload above the pod.

Where Chaos Mesh chooses anew, pods that are made later are chosen by labels of their own alone. So a selector
that could reach what is protected otherwise is refused; what is there already, the gate looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gameday.experiment.text import some
from gameday.extend import PlanError
from gameday.faults.chaos_selector import label_selector, nodes_of
from gameday.platform.objects import PROTECT, Object, Ref, Resource, labels_of
from gameday.platform.resources import NODES

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

WORKLOADS = (
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("apps/v1", "DaemonSet", "daemonsets"),
    Resource("apps/v1", "ReplicaSet", "replicasets"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("batch/v1", "CronJob", "cronjobs"),
)


async def check_reach(selector: Object, namespaces: Sequence[str], kube: Kube) -> None:
    """Raises PlanError where pods that are made later could be protected by more than their own label."""
    labelled, nodes = await asyncio.gather(kube.list(NODES, labels=PROTECT), nodes_of(selector, kube))
    names = [n["metadata"]["name"] for n in labelled if nodes is None or n["metadata"]["name"] in nodes]
    if names:
        raise PlanError(
            f"its selector chooses anew each time, and may come to {some(sorted(names))}, which carries the "
            f"label {PROTECT}: leave it out by `nodes` or `nodeSelectors`"
        )
    asked = [kube.list(kind, space, labels=PROTECT) for kind in WORKLOADS for space in namespaces]
    chosen = label_selector(selector)
    for workload in (w for found in await asyncio.gather(*asked) for w in found):
        if chosen.matches(labels_of(_template(workload))):
            raise PlanError(
                f"its selector chooses anew each time, and {Ref.of(workload)} carries the label {PROTECT}: "
                f"pods that it makes later would be chosen. Label the pods in its template as well"
            )


def _template(workload: Object) -> Object:
    """The template of a workload's pods."""
    spec = workload.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    return dict(spec.get("template") or {})
