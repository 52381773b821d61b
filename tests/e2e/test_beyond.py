"""A fault is bounded by all that it sets going: pods that start, and consequences that nobody can count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import NODES, PODS
from tests.e2e.experiments import CORDON, write
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

INFERENCE = {"workload": "deployment/inference", "namespace": "inference"}
DRIFT = {"resource": "deployment/inference", "namespace": "inference"}


def _refused(ended: Ended, *words: str) -> None:
    assert ended.code == 4, ended.output
    for word in words:
        assert word in ended.output


def test_pods_that_start_are_counted(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    file = write(tmp_path, method=[{"scale": {**INFERENCE, "replicas": 400}, "for": "1s"}])
    _refused(gameday("plan", file), "388 pods (at most 16", "388 gpus (at most 32")


@pytest.fixture
async def important(kube: Kube) -> AsyncIterator[str]:
    """A Deployment whose pods may preempt others; none of them can run."""
    group = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "greedy"}}
    template = {
        "metadata": {"labels": {"app": "greedy"}},
        "spec": {
            "priorityClassName": "greedy",
            "nodeSelector": {"no": "such"},
            "containers": [{"name": "a", "image": "nothing.invalid/a"}],
        },
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "greedy"}}, "template": template}
    metadata = {"name": "greedy", "namespace": "platform"}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    made = [await kube.create(group | {"value": 100_000}), await kube.create(deployment)]
    yield "greedy"
    for obj in reversed(made):
        await kube.delete(Ref.of(obj))
    await eventually(lambda: kube.list(PODS, "platform", labels="app=greedy"), lambda pods: not pods)


async def test_pods_that_may_preempt_others_are_allowed_by_name(
    gameday: Program, tmp_path: Path, important: str
) -> None:
    workload = {"workload": f"deployment/{important}", "namespace": "platform"}
    method: list[dict[str, Any]] = [{"scale": {**workload, "replicas": 3}, "for": "1s"}]
    file = write(tmp_path, method=method)
    said = await asyncio.to_thread(gameday, "plan", file)
    _refused(said, "may preempt pods of lower ones in any namespace", "spec.blastRadius.others: [greedy]")
    allowed = write(tmp_path, method=method, blastRadius={"pods": 2, "others": [important]})
    said = await asyncio.to_thread(gameday, "plan", allowed)
    assert said.code == 0, said.output


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        ({"path": "/metadata/ownerReferences", "value": []}, "decides what becomes of the object"),
        ({"path": "metadata.finalizers", "value": ["a/b"]}, "only labels and annotations may drift"),
        ({"path": "spec.replicas", "value": 40}, "28 pods (at most 16"),
        ({"path": "spec.selector", "value": {}}, "what follows from a drift of spec.selector"),
        ({"path": "spec.revisionHistoryLimit", "value": 0}, "what follows from a drift of spec.revision"),
    ],
    ids=["owners", "finalizers", "more replicas", "another field", "a shorter history"],
)
def test_a_drift_is_bounded_by_what_follows_from_it(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot, drift: dict[str, Any], words: str
) -> None:
    method = [{"argocd": {"drift": {**DRIFT, **drift}}, "for": "1s"}]
    _refused(gameday("plan", write(tmp_path, method=method)), words)


async def test_a_drift_that_lets_a_rollout_begin_is_counted(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """All pods of a workload that was paused may be replaced."""
    inference = Ref("apps/v1", "Deployment", "inference", "inference")
    method = [{"argocd": {"drift": {**DRIFT, "path": "spec.paused", "value": False}}, "for": "1s"}]
    file = write(tmp_path, method=method, blastRadius={"pods": 0, "gpus": 0})
    await kube.patch(inference, {"spec": {"paused": True}}, "merge")
    try:
        _refused(await asyncio.to_thread(gameday, "plan", file), "12 pods (at most 0)")
    finally:
        await kube.patch(inference, {"spec": {"paused": None}}, "merge")
    said = await asyncio.to_thread(gameday, "plan", file)
    assert "spec.paused is unset already" in said.output


@asynccontextmanager
async def labelled(kube: Kube, nodes: list[str], key: str, value: str) -> AsyncIterator[None]:
    async def put(to: str | None) -> None:
        for name in nodes:
            await kube.patch(Ref("v1", "Node", name), {"metadata": {"labels": {key: to}}}, "merge")

    await put(value)
    try:
        yield
    finally:
        await put(None)


async def test_a_node_that_left_the_target_is_not_touched(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    target = {"context": "gameday-.*", "namespaces": [], "nodes": {"selector": "pool=chaos"}}
    method: list[dict[str, Any]] = [{**CORDON, "for": "1s"}]
    file, plan = write(tmp_path, method=method, target=target), tmp_path / "plan.json"
    async with labelled(kube, ["gpu-0", "gpu-1"], "pool", "chaos"):
        made = await asyncio.to_thread(gameday, "plan", file, "-o", plan)
        assert made.code == 0, made.output
    async with labelled(kube, ["gpu-0"], "pool", "chaos"):
        ended = await asyncio.to_thread(gameday.run, file, "--plan", plan)
        _refused(ended, "gpu-1: outside the target's nodes (pool=chaos)")
        assert not ended.of("change")


async def test_nobody_takes_the_place_of_an_approved_pod_on_a_protected_node(
    gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """The approved pod is gone when its step begins, and all that could be chosen for it is protected."""
    kill = {"podKill": {"selector": "app=inference", "namespace": "inference", "pick": 1}, "for": "1s"}
    file, plan = write(tmp_path, method=[kill]), tmp_path / "plan.json"
    made = await asyncio.to_thread(gameday, "plan", file, "-o", plan)
    assert made.code == 0, made.output
    (victim,) = json.loads(plan.read_text())["steps"][0]["victims"]
    await kube.delete(Ref.from_data(victim["ref"]))

    async def pods() -> list[Object]:
        return await kube.list(PODS, "inference", labels="app=inference")

    await eventually(pods, lambda found: len([p for p in found if p["spec"].get("nodeName")]) == 12)
    nodes = [n["metadata"]["name"] for n in await kube.list(NODES)]
    async with labelled(kube, nodes, "gameday.dev/protect", "true"):
        before = {p["metadata"]["uid"] for p in await pods()}
        ended = await asyncio.to_thread(gameday.run, file, "--plan", plan)
        assert ended.code in (3, 4), ended.output
        assert "carries the label gameday.dev/protect" in ended.output
        assert {p["metadata"]["uid"] for p in await pods()} >= before
