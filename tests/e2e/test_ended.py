"""What a run ends for good, by whatever fault, is counted in its verdict: what is gone, and no more."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import CORDON, EVERYWHERE, SCALE, write
from tests.platform.arrange import pod, running
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

QUEUE = {"namespaces": ["platform"], "labelSelectors": {"app": "job-queue-controller"}}
QUEUE_REF = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")
KILL: dict[str, Any] = {"action": "pod-kill", "mode": "all", "selector": QUEUE}
FLOW = {
    "entry": "first",
    "templates": [
        {"name": "first", "templateType": "Serial", "children": ["kill"]},
        {"name": "kill", "templateType": "PodChaos", "podChaos": KILL},
    ],
}
OFTEN = {"schedule": "@every 1s", "type": "PodChaos", "concurrencyPolicy": "Allow", "historyLimit": 2}
NO_EXECUTE = {"key": "gameday.dev/broken", "effect": "NoExecute"}
BUSY = "the node of some inference pod"
TARGET = {
    "context": "gameday-.*",
    "namespaces": [*EVERYWHERE, "gpu-operator"],
    "nodes": {"selector": "nvidia.com/gpu.present=true"},
    "allowProtected": ["Namespace/gpu-operator"],
}


async def _uids(kube: Kube) -> set[str]:
    return {p["metadata"]["uid"] for p in await kube.list(PODS) if "deletionTimestamp" not in p["metadata"]}


def _says(ended: Ended, sentence: str) -> None:
    """The same words in the log, on the terminal, and in the reports."""
    assert ended.folder is not None
    assert ended.events[-1]["reason"].endswith(sentence), ended.output
    reports = [(ended.folder / f"report.{form}").read_text() for form in ("md", "html", "json")]
    for text in (ended.output, *reports):
        assert sentence in " ".join(text.split())


@pytest.mark.parametrize(
    "step",
    [
        pytest.param({"chaosMesh": {"kind": "PodChaos", "spec": KILL}, "for": "1s"}, id="chaos"),
        pytest.param({"chaosMesh": {"kind": "Workflow", "spec": FLOW}, "for": "1s"}, id="workflow"),
        pytest.param(
            {"podKill": {"selector": "app=job-queue-controller", "namespace": "platform", "pick": "all"}},
            id="podKill",
        ),
        pytest.param({**SCALE, "for": "1s"}, id="scale"),
        pytest.param({"taint": {"nodes": {"names": [BUSY]}, **NO_EXECUTE}, "for": "1s"}, id="taint"),
        pytest.param(
            {"drain": {"nodes": {"names": [BUSY]}, "deleteEmptyDirData": True, "grace": 0}, "for": "1s"},
            id="drain",
        ),
    ],
)
async def test_pods_that_are_replaced(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot, step: dict[str, Any]
) -> None:
    serving = await eventually(lambda: kube.list(PODS, "inference", fields={"status.phase": "Running"}))
    file = write(tmp_path, method=[step], target=TARGET)
    file.write_text(file.read_text().replace(BUSY, serving[0]["spec"]["nodeName"]))
    before = await _uids(kube)
    ended = await asyncio.to_thread(gameday.run, file)
    assert ended.code == 0, ended.output
    gone = len(before - await _uids(kube))
    assert gone > 0
    many = f"{gone} pods were" if gone > 1 else "1 pod was"
    assert ended.folder is not None
    touched = json.loads((ended.folder / "report.json").read_text())["touched"]
    assert len([t for t in touched if t["object"].startswith("Pod ")]) == gone
    whole = "" if "podKill" in step else "; everything else was put back"
    _says(ended, f"steady state held within its bounds; {many} replaced{whole}")


async def test_a_pod_whose_controller_wants_none_by_then(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: replaced, since its controller was there when the step began."""
    kill = {"selector": "app=job-queue-controller", "namespace": "platform", "pick": 1, "grace": 0}
    there = {"resource": "deployment/job-queue-controller", "namespace": "platform"}
    generation = {**there, "jsonPath": "{.metadata.generation}"}
    steady = [{"name": "there", "kubernetes": generation, "is": ">= 1"}]
    file = write(tmp_path, method=[{"podKill": kill, "for": "8s"}], steadyState=steady)
    try:
        with gameday.started(file) as run:
            await asyncio.to_thread(run.fault_is, "in")
            await kube.patch(QUEUE_REF, {"spec": {"replicas": 0}}, "merge")
            ended = await asyncio.to_thread(run.ended)
    finally:
        await kube.patch(QUEUE_REF, {"spec": {"replicas": 2}}, "merge")
    assert ended.code == 0, ended.output
    _says(ended, "; 1 pod was ended")


async def test_a_schedule_may_have_ended_more_than_are_known(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    often = {"kind": "Schedule", "spec": {**OFTEN, "podChaos": KILL}, "settleWithin": "20s"}
    radius = {"pods": 100}
    file = write(tmp_path, method=[{"chaosMesh": often, "for": "3s"}], blastRadius=radius)
    ended = await asyncio.to_thread(gameday.run, file)
    assert ended.code == 0, ended.output
    _says(ended, "; at least 2 pods were replaced; everything else was put back")


async def test_a_pod_that_nothing_makes_again(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ref = await running(kube, pod("platform", {"app": "alone"}, node="gpu-0"))
    try:
        selector = {"namespaces": ["platform"], "labelSelectors": {"app": "alone"}}
        kill = {"kind": "PodChaos", "spec": {**KILL, "selector": selector}, "losePods": True}
        step = {"chaosMesh": kill, "for": "1s"}
        ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[step]))
        assert ended.code == 0, ended.output
        _says(ended, "; 1 pod was ended for good; everything else was put back")
    finally:
        await kube.delete(Ref("v1", "Pod", ref.name, ref.namespace), grace=0)


async def test_nothing_was_ended(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _uids(kube)
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[{**CORDON, "for": "1s"}]))
    assert ended.code == 0, ended.output
    assert before <= await _uids(kube)
    _says(ended, "steady state held within its bounds; everything was put back")


async def test_a_pod_that_came_later_to_a_tainted_node(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: nobody said that the fault had ended it, and no plan that later pods would be."""
    serving = await eventually(lambda: kube.list(PODS, "inference", fields={"status.phase": "Running"}))
    node = serving[0]["spec"]["nodeName"]
    step = {"taint": {"nodes": {"names": [node]}, **NO_EXECUTE}, "for": "120s"}
    file = write(tmp_path, method=[step], target=TARGET)
    planned = await asyncio.to_thread(gameday, "plan", file)
    assert f"pods that come to {node} while the fault is in are ended as well" in " ".join(
        planned.output.split()
    )
    with gameday.started(file) as run:
        await asyncio.to_thread(run.fault_is, "in")
        late = await kube.create(pod("platform", {"app": "late"}, node=node))
        name = f"Pod platform/{late['metadata']['name']}"
        gone = {"object": name, "condition": "Deleted"}
        await asyncio.to_thread(run.until, lambda e: gone.items() <= e.items(), "the pod is ended")
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 130, ended.output
    assert [e["object"] for e in ended.of("ended") if e["done"] == "ended for good"] == [name]
    assert "1 pod was ended for good; " in ended.events[-1]["reason"]


async def test_a_pod_of_before_that_goes_as_a_workload_is_scaled_back(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: nobody looked at the pods of a workload that got more of them."""
    more = {"workload": "deployment/job-queue-controller", "namespace": "platform", "replicas": 4}
    pods = [p async for p in kube.each(PODS, "platform", labels="app=job-queue-controller")]
    cheap = Ref("v1", "Pod", pods[0]["metadata"]["name"], "platform")
    cost = {"controller.kubernetes.io/pod-deletion-cost": "-100"}
    await kube.patch(cheap, {"metadata": {"annotations": cost}}, "merge")
    with gameday.started(write(tmp_path, method=[{"scale": more, "for": "120s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await eventually(lambda: kube.get(QUEUE_REF), lambda d: d["status"].get("readyReplicas") == 4)
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 130, ended.output
    assert "when it is scaled back its controller chooses which pods end" in " ".join(ended.output.split())
    assert [(e["object"], e["done"]) for e in ended.of("ended")] == [(str(cheap), "replaced")]
    _says(ended, "; 1 pod was replaced; everything else was put back")
