"""Pods that end and that nothing makes again are named by the plan, and end only where the file allows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from gameday.platform.resources import PODS
from tests.e2e.experiments import EVERYWHERE, write
from tests.platform.arrange import pod, running, unique
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

NODE = "gpu-1"
NODES = {"nodes": {"names": [NODE]}}
SELECTED = {"selector": "app=alone", "namespace": "platform"}
KILL = {
    "kind": "PodChaos",
    "spec": {
        "action": "pod-kill",
        "mode": "all",
        "selector": {"namespaces": ["platform"], "labelSelectors": {"app": "alone"}},
    },
}
TAINT: dict[str, Any] = {**NODES, "key": "gameday.dev/broken", "effect": "NoExecute"}
IGNORE = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
TARGET = {
    "context": "gameday-.*",
    "namespaces": [*EVERYWHERE, "gpu-operator"],
    "nodes": {"selector": "nvidia.com/gpu.present=true"},
    "allowProtected": ["Namespace/gpu-operator"],
}


def _said(ended: Ended) -> str:
    return " ".join(ended.output.split())


async def _refused(gameday: Program, file: Path, *words: str) -> None:
    for ended in [await asyncio.to_thread(gameday, "plan", file), await asyncio.to_thread(gameday.run, file)]:
        assert ended.code == 4, ended.output
        assert not ended.of("change")
        for word in words:
            assert word in _said(ended)


@pytest.mark.parametrize(
    ("fault", "options", "allow"),
    [
        pytest.param("taint", TAINT, "force", id="taint"),
        pytest.param("drain", NODES, "force", id="drain"),
        pytest.param("nodeShutdown", NODES, "force", id="nodeShutdown"),
        pytest.param("podKill", SELECTED, "force", id="podKill"),
        pytest.param("chaosMesh", KILL, "losePods", id="chaosMesh"),
    ],
)
async def test_a_bare_pod_ends_by_permission_alone(
    fault: str,
    options: dict[str, Any],
    allow: str,
    kube: Kube,
    gameday: Program,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    ref = await running(kube, pod("platform", {"app": "alone"}, node=NODE))
    hold = {} if fault == "podKill" else {"for": "10m" if fault == "nodeShutdown" else "1s"}
    try:
        words = f"pod platform/{ref.name}: lost for good, no controller makes it again"
        file = write(tmp_path, method=[{fault: options, **hold}], target=TARGET, maxHold="15m")
        await _refused(gameday, file, f"{words} ({allow}: true allows it)")
        file = write(
            tmp_path, method=[{fault: {**options, allow: True}, **hold}], target=TARGET, maxHold="15m"
        )
        planned = await asyncio.to_thread(gameday, "plan", file)
        assert planned.code == 0, planned.output
        assert f"step 1 is not undone in full: {words}" in _said(planned)
        assert f"not undone: {words}" in _said(planned)
        if fault == "nodeShutdown":
            return
        ended = await asyncio.to_thread(gameday.run, file)
        assert ended.code == 0, ended.output
        (gone,) = [e for e in ended.of("ended") if e["object"] == f"Pod platform/{ref.name}"]
        assert gone["done"] == "ended for good"
    finally:
        await kube.delete(Ref("v1", "Pod", ref.name, ref.namespace), grace=0)


async def test_a_machine_takes_a_bare_pod_along(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    (node, *_) = [
        m["status"]["nodeRef"]["name"]
        for m in await kube.list(await kube.resource("cluster.x-k8s.io/v1beta2", "Machine"))
    ]
    ref = await running(kube, pod("platform", node=node))
    try:
        target = {
            "context": "gameday-.*",
            "namespaces": ["platform"],
            "nodes": {"selector": "kubernetes.io/os"},
        }
        step = {"machine": {"nodes": {"names": [node]}}, "for": "1s"}
        file = write(tmp_path, method=[step], target=target)
        await _refused(gameday, file, f"pod platform/{ref.name}: lost for good", "force: true")
    finally:
        await kube.delete(Ref("v1", "Pod", ref.name, ref.namespace), grace=0)


@asynccontextmanager
async def _job(kube: Kube, **spec: Any) -> AsyncIterator[str]:
    """A Job whose pods run on the node."""
    name = unique("train")
    made: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "platform"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
            "containers": [{"name": "main", "image": "none"}],
        }}, **spec},
    }  # fmt: skip
    ref = Ref.of(await kube.create(made))
    try:
        labels = f"batch.kubernetes.io/job-name={name}"
        await eventually(
            lambda: kube.list(PODS, "platform", labels=labels),
            lambda pods: [p["status"].get("phase") for p in pods] == ["Running"] * spec.get("parallelism", 1),
        )
        yield name
    finally:
        await kube.delete(ref, propagation="Foreground")
        await eventually(lambda: kube.list(PODS, "platform", labels=labels), lambda pods: not pods)


@pytest.mark.parametrize("step", [{"taint": TAINT}, {"drain": NODES}], ids=lambda s: next(iter(s)))
async def test_a_job_without_a_failure_left_ends_for_good(
    step: dict[str, Any],
    platform: Platform,
    kube: Kube,
    gameday: Program,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    ((fault, options),) = step.items()
    async with _job(kube, backoffLimit=0) as name:
        words = f"lost for good, Job platform/{name} fails with it and ends all its pods"
        await _refused(
            gameday, write(tmp_path, method=[{**step, "for": "1s"}], target=TARGET), words, "backoffLimit 0"
        )
        file = write(tmp_path, method=[{fault: {**options, "force": True}, "for": "1s"}], target=TARGET)
        ended = await asyncio.to_thread(gameday.run, file)
        assert ended.code == 0, ended.output
        assert "ended for good" in [e["done"] for e in ended.of("ended")]
        if fault == "drain" or platform.name != "sandbox":  # where a taint takes pods before they count
            job = Ref("batch/v1", "Job", name, "platform")
            await eventually(lambda: kube.get(job), lambda found: is_true(found, "Failed"))


async def test_a_job_that_ignores_evictions_makes_its_pod_again(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A plain deletion is no eviction: the same Job fails by it."""
    async with _job(kube, backoffLimit=0, podFailurePolicy={"rules": [IGNORE]}) as name:
        ended = await asyncio.to_thread(
            gameday, "plan", write(tmp_path, method=[{"taint": TAINT, "for": "1s"}], target=TARGET)
        )
        assert ended.code == 0, ended.output
        assert "replaced by controllers, not restored" in _said(ended)
        assert "lost for good" not in _said(ended)
        selector = f"batch.kubernetes.io/job-name={name}"
        kill = {"podKill": {"selector": selector, "namespace": "platform"}}
        await _refused(gameday, write(tmp_path, method=[kill]), "lost for good", "backoffLimit 0")


async def test_the_blast_radius_counts_all_pods_of_a_job_that_fails(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with _job(kube, backoffLimit=0, parallelism=3, completions=3) as name:
        selector = f"batch.kubernetes.io/job-name={name}"
        kill = {"podKill": {"selector": selector, "namespace": "platform", "force": True}}

        async def planned(pods: int) -> Ended:
            file = write(tmp_path, method=[kill], target=TARGET, blastRadius={"pods": pods})
            return await asyncio.to_thread(gameday, "plan", file)

        refused = await planned(2)
        assert refused.code == 4, refused.output
        assert "3 pods (at most 2)" in _said(refused)
        assert (await planned(3)).code == 0
