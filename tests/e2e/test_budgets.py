"""A drain that a budget holds up says which pod waits for which budget, and gives the nodes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "nothing-may-go", "namespace": "platform"},
    "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "job-queue-controller"}}},
}


async def test_a_blocked_drain_names_the_pod_and_its_budget(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pod = (await kube.list(PODS, "platform", labels="app=job-queue-controller"))[0]
    drain = {"nodes": {"names": [pod["spec"]["nodeName"]]}, "deleteEmptyDirData": True, "timeout": "4s"}
    everywhere = ["platform", "training", "inference", "gateway", "slurm"]
    target = {"context": "gameday-.*", "namespaces": everywhere}
    file = write(tmp_path, method=[{"drain": drain, "for": "1s"}], target=target)
    await kube.create(BUDGET)
    try:
        ended = await asyncio.to_thread(gameday.run, file)
    finally:
        await kube.delete(Ref.of(BUDGET))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "not drained after 4 s" in ended.output
    assert f"holds platform/{pod['metadata']['name']}" in ended.output
    assert "nothing-may-go" in ended.output
    assert {e["state"] for e in ended.of("audited")} <= {"restored", "irreversible"}
