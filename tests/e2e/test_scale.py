"""Scaling what a HorizontalPodAutoscaler looks after: at 0 replicas its scaling is disabled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, condition, controller
from tests.e2e.experiments import write
from tests.platform.arrange import deployment, unique
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program


def _autoscaler(workload: str) -> Object:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": workload, "namespace": "platform"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
            "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


@asynccontextmanager
async def _autoscaled(kube: Kube, replicas: int) -> AsyncIterator[tuple[str, Ref]]:
    """A Deployment, which starts no pods, and its autoscaler."""
    made = await kube.create(deployment("platform", unique("web"), replicas))
    name = made["metadata"]["name"]
    autoscaler = Ref.of(await kube.create(_autoscaler(name)))
    try:
        yield name, autoscaler
    finally:
        await kube.delete(autoscaler)
        await kube.delete(Ref.of(made))


@pytest.mark.parametrize(
    ("before", "replicas", "words"),
    [
        (3, 0, ""),
        (3, 1, " will fight over"),
        (0, 2, " wakes up (at 0 replicas its scaling is disabled), and will fight over"),
    ],
)
async def test_an_autoscaler_fights_where_there_are_replicas(
    before: int, replicas: int, words: str, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    async with _autoscaled(kube, before) as (name, _):
        step: dict[str, Any] = {
            "workload": f"deployment/{name}",
            "namespace": "platform",
            "replicas": replicas,
        }
        planned = gameday("plan", write(tmp_path, method=[{"scale": step, "for": "1s"}]))
    assert planned.code == 0, planned.output
    said = " ".join(planned.output.split())
    warned = f"HorizontalPodAutoscaler {name}{words} the replicas of {name}"
    assert (warned in said) if words else ("HorizontalPodAutoscaler" not in said)


async def test_a_replica_set_is_its_deployments(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    """Whose controller sets its replicas back; of other makers nobody knows."""
    queue = await kube.get(Ref("apps/v1", "Deployment", "job-queue-controller", "platform"))
    made = await kube.create(deployment("platform", unique("web"), 2))
    name = made["metadata"]["name"]
    meta = {"name": unique("maker"), "namespace": "platform"}
    maker = Ref.of(await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}))
    sets = await kube.list(Resource("apps/v1", "ReplicaSet", "replicasets"), "platform")
    one = next(s["metadata"]["name"] for s in sets if _is_of(s, queue) and s["spec"]["replicas"])

    def planned(workload: str) -> tuple[int, str]:
        step = {"workload": workload, "namespace": "platform", "replicas": 0}
        ended = gameday("plan", write(tmp_path, method=[{"scale": step, "for": "1s"}]))
        return ended.code, " ".join(ended.output.split())

    try:
        code, said = await asyncio.to_thread(planned, f"rs/{one}")
        assert code == 4, said
        assert (
            "Deployment job-queue-controller sets its replicas back at once: scale deployment/job-q" in said
        )
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": maker.name, "uid": maker.uid}
        body = {"metadata": {"ownerReferences": [owner | {"controller": True}]}}
        await kube.patch(Ref.of(made), body, "merge")
        code, said = await asyncio.to_thread(planned, f"deployment/{name}")
        assert code == 0, said
        assert f"{name}: ConfigMap {maker.name} made it, and may set its replicas back" in said
    finally:
        await kube.delete(Ref.of(made))
        await kube.delete(maker)


def _is_of(obj: Object, owner: Object) -> bool:
    found = controller(obj)
    return found is not None and found["uid"] == owner["metadata"]["uid"]


async def test_the_real_controller_leaves_0_replicas_alone(platform: Platform, kube: Kube) -> None:
    if platform.name == "sandbox":
        pytest.skip("about the real controller: --platform cluster")
    async with _autoscaled(kube, 0) as (name, autoscaler):
        found = await eventually(lambda: kube.get(autoscaler), lambda h: bool(condition(h, "ScalingActive")))
        assert condition(found, "ScalingActive")["reason"] == "ScalingDisabled"
        assert (await kube.get(Ref("apps/v1", "Deployment", name, "platform")))["spec"]["replicas"] == 0
