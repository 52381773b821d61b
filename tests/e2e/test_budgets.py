"""A drain that a budget holds up says which pod waits for which budget, and gives the nodes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import EVERYWHERE, write
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "nothing-may-go", "namespace": "platform"},
    "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "job-queue-controller"}}},
}

# Wherever earlier tests moved the pod to, its node is among the target's.
ANYWHERE = {
    "context": "gameday-.*",
    "namespaces": EVERYWHERE,
    "nodes": {"selector": "kubernetes.io/hostname"},
}


async def test_a_blocked_drain_names_the_pod_and_its_budget(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pod = (await kube.list(PODS, "platform", labels="app=job-queue-controller"))[0]
    drain = {"nodes": {"names": [pod["spec"]["nodeName"]]}, "deleteEmptyDirData": True, "timeout": "9s"}
    file = write(tmp_path, method=[{"drain": drain, "for": "1s"}], target=ANYWHERE)
    await kube.create(BUDGET)
    try:
        ended = await asyncio.to_thread(gameday.run, file)
    finally:
        await kube.delete(Ref.of(BUDGET))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "allows no eviction now" in ended.output  # the plan foresaw it
    assert "not drained after 9 s" in ended.output
    assert f"holds platform/{pod['metadata']['name']}" in ended.output
    assert "nothing-may-go" in ended.output
    counted = [e for e in ended.of("progress") if e.get("total")]  # a busy machine tells of more
    said = [f"{e.get('done', 0)}/{e['total']} {e['message']}" for e in counted]
    assert len(said) > len(set(said))
    assert [ended.output.count(f" {text}\n") for text in set(said)] == [1] * len(set(said))
    assert {e["state"] for e in ended.of("audited")} <= {"restored", "irreversible"}


async def test_a_pod_with_two_budgets_is_refused_by_the_plan(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The server answers 500 for as long as it has both."""
    pod = (await kube.list(PODS, "platform", labels="app=job-queue-controller"))[0]
    drain = {"nodes": {"names": [pod["spec"]["nodeName"]]}, "deleteEmptyDirData": True}
    file = write(tmp_path, method=[{"drain": drain, "for": "1s"}], target=ANYWHERE)
    other = {**BUDGET, "metadata": {"name": "nor-this-one", "namespace": "platform"}}
    await kube.create(BUDGET)
    await kube.create(other)
    try:
        ended = await asyncio.to_thread(gameday.run, file)
    finally:
        await kube.delete(Ref.of(BUDGET))
        await kube.delete(Ref.of(other))
    assert ended.code != 0
    assert "more than one PodDisruptionBudget" in ended.output
    assert "nor-this-one" in ended.output
    assert "nothing-may-go" in ended.output
    assert not ended.of("intended")


async def test_a_pod_that_was_asked_to_go_and_does_not_is_named_with_what_keeps_it(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pod = Ref.of((await kube.list(PODS, "platform", labels="app=job-queue-controller"))[0])
    node = (await kube.get(pod))["spec"]["nodeName"]
    drain = {"nodes": {"names": [node]}, "deleteEmptyDirData": True, "timeout": "6s"}
    file = write(tmp_path, method=[{"drain": drain, "for": "1s"}], target=ANYWHERE)
    await kube.patch(pod, {"metadata": {"finalizers": ["example.com/hold"]}}, "merge")
    try:
        ended = await asyncio.to_thread(gameday.run, file)
    finally:
        await kube.patch(pod, {"metadata": {"finalizers": None}}, "merge")
    assert ended.code == 3, ended.output
    assert "not drained after 6 s" in ended.output
    assert f"still end: platform/{pod.name} (finalizer example.com/hold" in ended.output


async def test_a_budget_without_a_selector_is_for_no_pod(kube: Kube, world_unchanged: Snapshot) -> None:
    bare = {
        **BUDGET,
        "metadata": {"name": "for-nobody", "namespace": "platform"},
        "spec": {"minAvailable": 1},
    }
    await kube.create(bare)
    try:
        judged = await eventually(
            lambda: kube.get(Ref.of(bare)), lambda found: "expectedPods" in (found.get("status") or {})
        )
        assert judged["status"]["expectedPods"] == 0
    finally:
        await kube.delete(Ref.of(bare))
