"""How many pods a workload has is not guessed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gameday.extend import PlanError
from gameday.faults.workloads import workload_victim
from gameday.platform.kube import Kube
from gameday.platform.world import World

pytestmark = pytest.mark.fast
NOWHERE = World(cast(Kube, None))  # nothing is asked of it: the template is in the workload
TEMPLATE = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}}


def daemon_set(**status: int) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "exporter", "namespace": "platform", "generation": 1},
        "spec": {"template": TEMPLATE},
        "status": {"currentNumberScheduled": 0, "desiredNumberScheduled": 0, **status},
    }


async def test_a_daemon_set_has_a_pod_on_each_of_its_nodes() -> None:
    victim = await workload_victim(daemon_set(observedGeneration=1, desiredNumberScheduled=3), NOWHERE)
    assert (victim.pods, victim.gpus) == (3, 24)


async def test_one_that_its_controller_has_not_seen_is_not_without_pods() -> None:
    """The API server shows zeros until then."""
    with pytest.raises(PlanError, match="its controller has not seen it"):
        await workload_victim(daemon_set(), NOWHERE)
