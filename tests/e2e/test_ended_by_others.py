"""A fault that somebody else ends is out from then on: in the log, in the report and in the verdict."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import CORDON, SCALE, write
from tests.support import gitops
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

DEPLOYMENT = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")
LONG = "120s"  # no test waits for so long
DELAY = {
    "action": "delay",
    "mode": "one",
    "selector": {"namespaces": ["platform"], "labelSelectors": {"app": "job-queue-controller"}},
    "delay": {"latency": "10ms"},
}


def _faults(ended: Ended) -> list[tuple[str, str]]:
    return [(e["state"], e.get("by", "")) for e in ended.of("fault")]


def _report(ended: Ended) -> dict[str, Any]:
    assert ended.folder is not None
    report = json.loads((ended.folder / "report.json").read_text())
    assert isinstance(report, dict)
    return report


async def test_what_somebody_puts_back_ends_the_fault_and_the_hold(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    kube.write_as("platform-team")
    with gameday.started(write(tmp_path, method=[{**SCALE, "for": LONG}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await kube.patch(DEPLOYMENT, {"spec": {"replicas": 2}}, "merge")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    somebody = "platform-team"
    assert _faults(ended) == [("injecting", ""), ("in", ""), ("undoing", somebody), ("out", somebody)]
    report = _report(ended)
    assert f"was ended by {somebody} after" in report["why"]
    assert [f["by"] for f in report["faults"]] == [somebody]
    (finding,) = [f for f in report["findings"] if f["rule"] == "ended-by-others"]
    assert "Deployment platform/job-queue-controller: spec.replicas is 2" in finding["evidence"]
    assert ended.folder is not None
    assert f"ended by {somebody}" in (ended.folder / "report.md").read_text()
    assert f"ended by {somebody}" in (ended.folder / "report.html").read_text()


async def test_the_hold_goes_on_where_the_file_says_so(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {**SCALE, "for": "8s", "holdWhenEnded": True}
    with gameday.started(write(tmp_path, method=[step])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await kube.patch(DEPLOYMENT, {"spec": {"replicas": 2}}, "merge")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert [state for state, _ in _faults(ended)] == ["injecting", "in", "undoing", "out"]
    is_in, out = ended.of("fault")[1], ended.of("fault")[3]
    (step_over,) = ended.of("step-finished")
    assert step_over["at"] - is_in["at"] >= 8
    assert step_over["at"] > out["at"]
    assert "was ended by" in _report(ended)["why"]


async def test_a_fault_is_in_as_long_as_a_part_of_it_stands(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    def uncordon(name: str) -> Any:
        return kube.patch(Ref("v1", "Node", name), {"spec": {"unschedulable": None}}, "merge")

    with gameday.started(write(tmp_path, method=[{**CORDON, "for": LONG}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await uncordon("gpu-0")
        await asyncio.to_thread(
            run.until, lambda e: e["type"] == "warn" and "ended in part" in e["message"], "told of a part"
        )
        assert [e["state"] for e in run.events if e["type"] == "fault"][-1] == "in"
        await uncordon("gpu-1")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert _faults(ended)[-1] == ("out", "somebody else")


async def test_self_heal_is_named_as_who_ended_it(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await gitops.heals_at_once(kube, gitops.INFERENCE)
    scale = {"workload": "deployment/inference", "namespace": "inference", "replicas": 10}
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[{"scale": scale, "for": LONG}]))
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert _faults(ended)[-1] == ("out", "argocd-controller")


async def test_an_object_that_somebody_deletes_ends_its_fault(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    chaos = {"kind": "NetworkChaos", "spec": DELAY}
    with gameday.started(write(tmp_path, method=[{"chaosMesh": chaos, "for": LONG}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        (made,) = [e["object"] for e in run.events if e["type"] == "change" and e["state"] == "made"]
        namespace, name = made.split(" ")[1].split("/")
        await kube.delete(Ref("chaos-mesh.org/v1alpha1", "NetworkChaos", name, namespace))
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert _faults(ended)[-1] == ("out", "somebody else")


async def test_its_own_duration_ends_an_experiment_of_chaos_mesh(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The object is there still; that is foreseen, and nobody's fault."""
    chaos = {"kind": "NetworkChaos", "spec": {**DELAY, "duration": "5s"}}
    file = write(tmp_path, method=[{"chaosMesh": chaos, "for": "30s"}])
    ended = await asyncio.to_thread(gameday.run, file)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "its duration 5s is shorter than the step's `for` 30s" in " ".join(ended.output.split())
    assert _faults(ended)[-1] == ("out", "the platform itself")
    (finding,) = [f for f in _report(ended)["findings"] if f["rule"] == "ended-by-others"]
    assert finding["severity"] == "notice"
    assert "Chaos Mesh ended it, by its duration of 5s" in " ".join(finding["evidence"])


@pytest.mark.parametrize(
    ("aborted", "end"),
    [(False, ("passed", "the platform itself")), (True, ("deviated", "somebody else"))],
    ids=["by its deadline", "by somebody's abort"],
)
async def test_a_workflow_that_ends_before_its_step(
    aborted: bool,
    end: tuple[str, str],
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """It was: in for as long as the step held it."""
    slow = {"name": "slow", "templateType": "NetworkChaos", "deadline": LONG if aborted else "20s"}
    all_ = {"name": "all", "templateType": "Serial", "children": ["slow"]}
    flow = {"entry": "all", "templates": [all_, {**slow, "networkChaos": DELAY}]}
    chaos = {"kind": "Workflow", "name": "flow", "namespace": "platform", "spec": flow}
    with gameday.started(write(tmp_path, method=[{"chaosMesh": chaos, "for": LONG}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        if aborted:
            ref = Ref("chaos-mesh.org/v1alpha1", "Workflow", "flow", "platform")
            annotations = {"workflow.chaos-mesh.org/abort": "true"}
            await kube.patch(ref, {"metadata": {"annotations": annotations}}, "merge")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.verdict, _faults(ended)[-1][1]) == end, ended.output
    foretold = "its templates' deadlines, 20s in all, are shorter than the step's `for`"
    assert (foretold in " ".join(ended.output.split())) is not aborted


async def test_a_part_that_another_step_deleted_hides_no_end_of_the_rest(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: nobody looked at the other pods of a step any more."""
    kube.write_as("platform-team")
    pods = {"selector": "app=job-queue-controller", "namespace": "platform"}
    resize = {"podResize": {**pods, "pick": "all", "cpu": "50%"}, "for": LONG}
    kill = {"podKill": {**pods, "pick": 1, "grace": 0}}
    before = {
        p["metadata"]["name"]: [{k: c[k] for k in ("name", "resources")} for c in p["spec"]["containers"]]
        for p in await kube.list(PODS, "platform", labels="app=job-queue-controller")
    }
    method = [{"parallel": [resize, {"sequence": [{"wait": "5s"}, kill]}]}]
    with gameday.started(write(tmp_path, method=method)) as run:
        killed = {"type": "change", "operation": "delete", "state": "made"}
        await asyncio.to_thread(run.until, lambda e: killed.items() <= e.items(), "a pod is killed")
        changes = [e for e in run.events if e["type"] == "change"]
        (dead,) = {e["object"] for e in changes if e["operation"] == "delete"}
        (left,) = {e["object"] for e in changes if e["operation"] == "patch"} - {dead}
        name = left.rpartition("/")[2]
        theirs = {"spec": {"containers": before[name]}}
        await kube.patch(Ref("v1", "Pod", name, "platform"), theirs, "strategic", subresource="resize")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert ("out", "platform-team") in _faults(ended)


async def test_steps_on_the_same_field_do_not_end_each_other(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The second of two overlapping changes is no end of the first."""
    one = {**SCALE, "for": "6s"}
    fewer = {"workload": "deployment/job-queue-controller", "namespace": "platform", "replicas": 1}
    other = {"scale": fewer, "for": "3s"}
    method = [{"parallel": [one, {"sequence": [{"wait": "2s"}, other]}]}]
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=method))
    assert ended.code == 0, ended.output
    assert {by for _, by in _faults(ended)} == {""}


async def test_a_step_that_deletes_does_not_end_what_another_changed(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Also when that step is over: nothing brings back what it deleted."""
    pods = {"selector": "app=job-queue-controller", "namespace": "platform", "pick": "all"}
    resize = {"podResize": {**pods, "cpu": "50%"}, "for": "8s"}
    kill = {"podKill": {**pods, "grace": 0}}
    method = [{"parallel": [resize, {"sequence": [{"wait": "2s"}, kill]}]}]
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=method))
    assert ended.code == 0, ended.output
    assert {by for _, by in _faults(ended)} == {""}
