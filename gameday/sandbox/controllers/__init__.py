"""What kube-controller-manager and kube-scheduler do on a real cluster, as far as experiments need it.

Only for the embedded API: on a real control plane the real ones are at work. Names, conditions and
event reasons are upstream's. All decide from one cache and write through one client.
"""

from __future__ import annotations

import asyncio

from gameday.sandbox.cache import Cache
from gameday.sandbox.controllers.budget import Budgets
from gameday.sandbox.controllers.daemonset import DaemonSets
from gameday.sandbox.controllers.deployment import Deployments
from gameday.sandbox.controllers.job import Jobs
from gameday.sandbox.controllers.nodes import Nodes
from gameday.sandbox.controllers.pods import Pods
from gameday.sandbox.controllers.quota import Quotas
from gameday.sandbox.controllers.replicaset import ReplicaSets
from gameday.sandbox.controllers.scheduler import Scheduler
from gameday.sandbox.controllers.statefulset import StatefulSets
from gameday.sandbox.recorder import Recorder

FOLLOWED = {
    "Pod": "v1",
    "Node": "v1",
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "ResourceQuota": "v1",
}


async def run_controllers(cache: Cache, recorder: Recorder, node_grace: float) -> None:
    """Run all of them until cancelled. `node_grace`: seconds without a Lease until a node is Unknown.

    Somebody else keeps `cache` following FOLLOWED.
    """
    pods = Pods(cache.kube, cache, recorder)
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.follow("coordination.k8s.io/v1", "Lease", "kube-node-lease"))
        await cache.synced(FOLLOWED)
        for controller in (
            Deployments(cache, recorder),
            ReplicaSets(cache, recorder, pods),
            StatefulSets(cache, recorder, pods),
            DaemonSets(cache, recorder, pods),
            Jobs(cache, recorder, pods),
            Budgets(cache, recorder),
            Quotas(cache, recorder),
            Nodes(cache, recorder, node_grace),
            Scheduler(cache, recorder),
        ):
            group.create_task(controller.run())
