"""A budget's status is what the disruption controller of Kubernetes 1.36 writes (disruption.go)."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.platform.objects import Object
from gameday.sandbox.apiserver.budgets import status

pytestmark = pytest.mark.fast
DEPLOYMENT = {"kind": "Deployment", "metadata": {"uid": "d", "name": "d"}, "spec": {"replicas": 5}}
REPLICAS = {"kind": "ReplicaSet", "metadata": {"uid": "r", "name": "r"}, "spec": {"replicas": 3}}


def pod(name: str, *, owned: bool = True, ready: bool = True, **meta: Any) -> Object:
    condition = {"type": "Ready", "status": str(ready)}
    metadata = {"name": name, "namespace": "n", "labels": {"app": "a"}, "uid": name, "owned": owned, **meta}
    return {"kind": "Pod", "metadata": metadata, "status": {"conditions": [condition]}}


def controller_of(obj: Object) -> Object | None:
    if obj["kind"] == "Pod":
        return REPLICAS if obj["metadata"]["owned"] else None
    return DEPLOYMENT if obj["kind"] == "ReplicaSet" else None


@pytest.mark.parametrize(
    ("spec", "expected", "desired", "allowed"),
    [
        ({"minAvailable": 2}, 4, 2, 1),
        ({"minAvailable": "50%"}, 5, 3, 0),
        ({"maxUnavailable": 2}, 5, 3, 0),
        ({"maxUnavailable": "41%"}, 5, 2, 1),
        ({"maxUnavailable": 9}, 5, 0, 3),
        ({}, 0, 0, 0),
    ],
)
def test_percentages_round_up_and_a_scale_is_the_deployments(
    spec: Object, expected: int, desired: int, allowed: int
) -> None:
    """Healthy are three of four pods: one is not ready."""
    budget = {"metadata": {"namespace": "n"}, "spec": {"selector": {}, **spec}}
    pods = [pod("a"), pod("b"), pod("c", owned=False), pod("d", ready=False)]
    found = status(budget, pods, controller_of)
    assert (found["expectedPods"], found["desiredHealthy"], found["disruptionsAllowed"]) == (
        expected,
        desired,
        allowed,
    )


def test_a_pod_whose_eviction_was_granted_does_not_count_until_it_should_be_gone() -> None:
    noted = {"a": "2999-01-01T00:00:00Z", "b": "2000-01-01T00:00:00Z", "gone": "2999-01-01T00:00:00Z"}
    budget = {
        "metadata": {"namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "minAvailable": 1},
        "status": {"disruptedPods": noted},
    }
    found = status(budget, [pod("a"), pod("b"), pod("c", deletionTimestamp="now")], controller_of)
    assert (found["currentHealthy"], found["disruptedPods"]) == (1, {"a": noted["a"]})
