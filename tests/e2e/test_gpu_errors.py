"""XIDs, throttled GPUs and MIG: in force by evidence, noticed, and taken back by whoever is left."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.platform import dcgm, gpud
from gameday.platform.devices import allocatable_gpus
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from tests.e2e.experiments import write
from tests.platform.arrange import pod, running
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

NODE = "gpu-4"


def _method(hold: str = "40s", node: str = NODE, **mode: Any) -> list[dict[str, Any]]:
    return [{"gpu": {"nodes": {"names": [node]}, **mode}, "for": hold}]


async def _node(kube: Kube) -> Object:
    return await kube.get(Ref("v1", "Node", NODE))


async def _quarantined(kube: Kube) -> bool:
    node = await _node(kube)
    tainted = any(t["key"] == "nvidia.com/gpu.unhealthy" for t in node["spec"].get("taints") or ())
    return tainted and bool(node["spec"].get("unschedulable"))


async def _free(kube: Kube) -> bool:
    node = await _node(kube)
    return not is_true(node, "XIDErrors") and not node["spec"].get("unschedulable")


async def test_an_xid_in_dcgm_takes_the_node_out_of_service_until_it_is_over(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=_method(xid={"error": "fell off the bus", "gpus": [0, 1]}))
    with gameday.started(file) as run:
        run.fault_is("in")
        assert await dcgm.value(kube, NODE, 1, dcgm.XID_FIELD) == 79
        await eventually(lambda: _quarantined(kube))
        run.signal(signal.SIGINT)
        ended = run.ended()
    evidence = {e["state"]: e.get("evidence") for e in ended.of("fault")}
    assert evidence["in"] == [f"{NODE} GPU {g}: DCGM field 230 is 79" for g in (0, 1)]
    assert "DCGM was restarted" in str(
        ended.of("change")
    )  # its health would hold it against the node for ever
    assert await dcgm.value(kube, NODE, 1, dcgm.XID_FIELD) == 0
    await eventually(lambda: _free(kube))


async def test_pods_that_the_remediator_evicts_are_in_the_verdict(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    one = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    lone = await running(kube, pod("platform", node=NODE, containers=[one]))
    file = write(tmp_path, method=_method(xid={"error": "fell off the bus", "gpus": [0]}))
    with gameday.started(file) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await eventually(lambda: _gone(kube, lone))
        told = {"object": f"Pod platform/{lone.name}", "condition": "Terminating", "status": "True"}
        await asyncio.to_thread(run.until, lambda e: told.items() <= e.items(), "the eviction is in the log")
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended)
    gone = {e["object"] for e in ended.of("condition-changed") if _goes(e)}
    [verdict] = ended.of("verdict")
    said = re.search(r"(\d+) pods? (?:was|were) ended by what reacted to the fault", verdict["reason"])
    assert said, verdict
    assert int(said[1]) >= len(gone)
    assert "everything else was put back" in verdict["reason"]
    await eventually(lambda: _free(kube))


async def _gone(kube: Kube, ref: Ref) -> bool:
    return await kube.find(ref) is None


def _goes(event: dict[str, Any]) -> bool:
    return (event["condition"], event["status"], event.get("node")) == ("Terminating", "True", NODE)


async def test_an_xid_that_asks_for_nothing_takes_nothing(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=_method("4s", xid={"error": 63})))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert not [e for e in ended.of("condition-changed") if e["condition"] in ("XIDErrors", "Unschedulable")]


async def test_another_field_of_dcgm(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=_method(xid={"field": 202, "value": 99999}))) as run:
        run.fault_is("in")
        assert await dcgm.value(kube, NODE, 0, 202) == 99999
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert "DCGM's own next sample replaces the value" in " ".join(ended.output.split())
    assert await dcgm.value(kube, NODE, 0, 202) is None


@pytest.mark.parametrize("mode", ["dcgm", "kernelLog", "gpud", "throttle"])
async def test_a_killed_run_is_taken_back_by_another_process(
    mode: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    wanted: dict[str, Any] = {"xid": {"error": 74, "via": mode}}
    if mode == "throttle":
        wanted = {"throttle": {"powerLimit": "50%", "gpus": [6, 7]}}
    with gameday.started(write(tmp_path, method=_method(**wanted))) as run:
        run.fault_is("in")
        name = run.kill()
        ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "nothing is in force" in gameday("status").output
    await eventually(lambda: _free(kube))
    assert await dcgm.value(kube, NODE, 0, dcgm.XID_FIELD) == 0
    url = gameday.platform.gpud_url.replace("{node}", NODE)
    assert await gpud.health(url, gpud.XID_COMPONENT) == "Healthy"


async def test_the_report_says_who_reacted(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=_method("10s", xid={"error": 119, "via": "gpud"})))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert ended.folder is not None
    text = (ended.folder / "report.md").read_text()
    table = text.partition("## Who reacted")[2].partition("\n## ")[0]
    for who in (
        "GPUd | accelerator-nvidia-error-xid Unhealthy",
        "Node condition | XIDErrors is True",
        "Taint",
        "Cordon",
    ):
        assert f"| 1 gpu | {who}" in table, table
    assert "| Taint | did not react" not in table
    await eventually(lambda: _free(kube))


def _partitioned(folder: Path, hold: str) -> Path:
    """The node is emptied and then partitioned: the MIG manager gives up on GPUs that somebody holds."""
    nodes = {"nodes": {"names": [NODE]}}
    drain = {"drain": {**nodes, "deleteEmptyDirData": True}, "for": "15s" if hold == "1s" else "60s"}
    mig = {"gpu": {**nodes, "mig": {"config": "all-1g.10gb", "allowInUse": True}}, "for": hold}
    method = [{"parallel": [drain, {"sequence": [{"wait": "6s"}, mig]}]}]
    return write(folder, method=method, blastRadius={"nodes": 2, "pods": 20, "gpus": 32})


async def _whole(kube: Kube) -> bool:
    node = await _node(kube)
    labels = node["metadata"]["labels"]
    back = (labels["nvidia.com/mig.config"], labels["nvidia.com/mig.config.state"])
    return back == ("all-disabled", "success") and allocatable_gpus(node) == 8


async def test_gpus_are_partitioned_and_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(_partitioned(tmp_path, "1s"))
    evidence = [e for e in ended.of("fault") if e["kind"] == "gpu" and e.get("evidence")]
    assert [e["state"] for e in evidence] == ["in", "out"], ended.output
    assert evidence[0]["evidence"] == [f"{NODE}: all-1g.10gb, state success, 56 nvidia.com/gpu allocatable"]
    assert await _whole(kube)


async def test_partitions_go_when_the_run_was_killed(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(_partitioned(tmp_path, "60s")) as run:
        run.until(lambda e: e["type"] == "fault" and (e["kind"], e["state"]) == ("gpu", "in"), "MIG is in")
        name = run.kill()
        ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert await _whole(kube), "what is called restored was read back: the MIG manager has followed"


async def test_a_drain_around_partitions_ends_after_them_when_the_run_is_stopped(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Pods that came back before the GPUs are whole would keep the MIG manager from making them so."""
    with gameday.started(_partitioned(tmp_path, "60s")) as run:
        run.until(lambda e: e["type"] == "fault" and (e["kind"], e["state"]) == ("gpu", "in"), "MIG is in")
        run.signal(signal.SIGTERM)
        ended = run.ended()
    assert ended.verdict == "interrupted", ended.output
    undone = [e["summary"] for e in ended.of("change") if e["state"] == "undone"]
    assert ["mig.config" in undone[0], "unschedulable" in undone[1]] == [True, True], undone
    assert await _whole(kube)


@pytest.fixture
async def holder(kube: Kube) -> AsyncIterator[str]:
    """A pod that holds a GPU of the node."""
    one = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
    container = {"name": "main", "image": "example.com/holder:1", "resources": one}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "holder", "namespace": "training"},
        "spec": {"nodeName": NODE, "containers": [container]},
    }
    await kube.create(pod)
    try:
        await eventually(lambda: _runs(kube, Ref.of(pod)))
        yield "training/holder"
    finally:
        await kube.delete(Ref.of(pod), grace=0)


async def _runs(kube: Kube, pod: Ref) -> bool:
    return bool((await kube.get(pod))["status"].get("phase") == "Running")


async def test_a_partition_that_fails_names_who_holds_the_gpus(
    gameday: Program, kube: Kube, holder: str, tmp_path: Path
) -> None:
    mig = {"config": "all-1g.10gb", "allowInUse": True}
    bounds = {"nodes": 1, "gpus": 8, "pods": 8}
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=_method(mig=mig), blastRadius=bounds))
    failed = next(e for e in ended.of("fault") if e["state"] == "failed")
    assert f"failed to make all-1g.10gb of {NODE}: GPUs are held by" in failed["message"], failed
    assert holder in failed["message"]
    assert await _whole(kube)


@pytest.mark.parametrize(
    ("node", "mode", "complaint"),
    [
        ("cpu-0", {"xid": {"error": 79}}, "cpu-0: no DCGM pod runs there"),
        ("cpu-0", {"mig": {"config": "all-1g.10gb"}}, "cpu-0: no label nvidia.com/mig.config"),
        ("cpu-0", {"deviceLoss": {}}, "cpu-0: no allocatable GPU"),
        (NODE, {"xid": {"error": 79, "gpus": [8]}}, f"{NODE} has 8 GPUs: there is no GPU 8"),
        (NODE, {"mig": {"config": "all-1g.5gb", "allowInUse": True}}, "did you mean `all-1g."),
        (NODE, {"mig": {"config": "all-disabled", "allowInUse": True}}, "is in force already"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_touched(
    node: str, mode: dict[str, Any], complaint: str, gameday: Program, tmp_path: Path
) -> None:
    anywhere = {
        "context": "gameday-.*",
        "namespaces": ["platform", "training", "inference"],
        "nodes": {"selector": "kubernetes.io/os=linux"},
    }
    ended = gameday("plan", write(tmp_path, method=_method(node=node, **mode), target=anywhere))
    assert ended.code != 0
    assert complaint in " ".join(ended.output.split()), ended.output


def test_a_throttle_that_the_gpus_refuse_is_found_before_the_baseline(
    gameday: Program, tmp_path: Path
) -> None:
    ended = gameday.run(write(tmp_path, method=_method(throttle={"powerLimit": 100})))
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert "100 W is not within 200 W" in " ".join(ended.output.split())
    assert ended.of("fault") == []
