"""Programs on nodes, end to end: however a run ends, the node is as it was, and nothing else is left."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.loader import InvalidExperiment, load
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.resources import CONFIG_MAPS, PODS
from tests.e2e.experiments import write
from tests.support.platforms import Platform
from tests.support.polling import eventually, until
from tests.support.program import Program, Running
from tests.support.snapshot import Snapshot

NODE = "gpu-6"
SHUTDOWN = {"nodeShutdown": {"nodes": {"names": [NODE]}}, "for": "60s"}
RADIUS = {"nodes": 1, "gpus": 8}
FOUND_LOST = 150.0  # seconds in which a real control plane calls a silent node lost, on a busy machine
LABELLED = "app.kubernetes.io/name=gameday-node"


def _shutdown(folder: Path, hold: str = "60s", program: dict[str, Any] | None = None, **spec: Any) -> Path:
    target: dict[str, Any] = {"context": "gameday-.*", "nodes": {"selector": "nvidia.com/gpu.present=true"}}
    target |= {
        "namespaces": ["inference", "platform", "training"]
    }  # of the pods that are given up with a lost node
    target |= {"nodeProgram": program} if program else {}
    method = [{**SHUTDOWN, "for": hold}]
    return write(folder, method=method, **{"target": target, "blastRadius": RADIUS, **spec})


async def _nothing_left(kube: Kube) -> None:
    """Of all that a program needs in the cluster; the namespace itself stays."""
    rbac = "rbac.authorization.k8s.io/v1"
    kinds = [("v1", "ServiceAccount"), (rbac, "Role"), (rbac, "RoleBinding")]
    resources = [PODS, CONFIG_MAPS, *[await kube.resource(*k) for k in kinds]]
    for resource in resources:
        found = await kube.list(resource, "gameday", labels=LABELLED)
        assert [o["metadata"]["name"] for o in found] == [], resource.kind


async def _node(kube: Kube) -> Object:
    return await kube.get(Ref("v1", "Node", NODE))


async def _is_back(kube: Kube) -> None:
    await eventually(lambda: _node(kube), is_ready, within=60)


def _in_force(run: Running) -> None:
    run.until(
        lambda e: e["type"] == "fault" and e["state"] == "in", "the node is called lost", within=FOUND_LOST
    )


async def _program(kube: Kube) -> Object:
    """The one pod with a program that runs."""
    found = await kube.list(PODS, "gameday", labels=LABELLED)
    assert len(found) == 1, [p["metadata"]["name"] for p in found]
    return found[0]


async def _last_words(kube: Kube) -> dict[str, Any]:
    """What the program left in its pod's status when it ended."""
    pod = await eventually(lambda: _program(kube), lambda p: p["status"]["phase"] == "Succeeded", within=60)
    said: dict[str, Any] = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    return said


def _log_at_the_kubelet(platform: Platform, node: Object, pod: Object) -> str:
    """Where the kubelet itself serves the program's log, which the API server is not needed for."""
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    scheme = platform.api_url.partition(":")[0]
    return f"{scheme}://localhost:{port}/containerLogs/gameday/{pod['metadata']['name']}/program"


def _read(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
            return str(answer.read().decode())
    except (OSError, http.client.HTTPException):
        return ""


async def test_a_kubelet_stops_and_is_started_again(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(_shutdown(tmp_path, hold="2s")) as run:
        _in_force(run)
        pod = await _program(kube)
        spec = pod["spec"]
        assert (spec["nodeName"], spec["hostPID"], spec["hostNetwork"]) == (NODE, True, True)
        ended = run.ended()
    assert ended.verdict == "passed", ended.output
    faults = {e["state"]: e.get("evidence", []) for e in ended.of("fault")}
    assert "gpu-6: Ready is Unknown" in faults["in"][0]
    assert "gpu-6: systemd: kubelet is active" in faults["out"]
    assert "step 1" in next(e["message"] for e in ended.of("preflight") if e["check"] == "on the spot")
    await _nothing_left(kube)


async def test_killed_the_program_reverts_by_itself(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Nobody recovers anything: the run's Lease expires, and the node comes back. The rest is for recover."""
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        _in_force(run)
        name = run.kill()
    await eventually(lambda: _node(kube), is_ready, within=120)
    said = await _last_words(kube)
    assert said["event"] == "out"
    assert "whoever runs it is gone" in said["why"]
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    await _nothing_left(kube)


async def test_recover_makes_it_revert_from_the_record_alone(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        _in_force(run)
        name = run.kill()
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "kubelet is active" in ended.output
    await _is_back(kube)
    await _nothing_left(kube)


async def test_recover_where_the_pod_is_gone_sends_a_second_program(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Somebody deleted the pod by force, so that nobody heard its last words."""
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        _in_force(run)
        name = run.kill()
    await kube.delete(Ref.of({**await _program(kube), "apiVersion": "v1", "kind": "Pod"}), grace=0)
    await _is_back(kube)  # the program saw its pod gone
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "by a second program: nothing of this task is left on the node" in ended.output
    await _nothing_left(kube)


async def test_a_node_that_loses_its_power_meanwhile(
    gameday: Program, kube: Kube, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Nobody knows then, and recover says so; once the node runs again, a second program looks."""
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        _in_force(run)
        name = run.kill()
    platform.control(f"nodes/{NODE}/stop")
    try:
        failed = gameday("recover", "--run", name, "--force")
        assert failed.code == 5, failed.output
        said = " ".join(failed.output.split())
        assert f"node {NODE} is not Ready" in said
        assert f"gameday recover --run {name}" in said
    finally:
        platform.control(f"nodes/{NODE}/start")
    await _is_back(kube)
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "by a second program: systemd: kubelet is active" in " ".join(ended.output.split())
    await _nothing_left(kube)


async def test_abort(gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot) -> None:
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        _in_force(run)
        told = gameday("abort", run.folder.name, "--reason", "enough")
        assert told.code == 0, told.output
        ended = run.ended()
    assert ended.verdict == "aborted", ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}
    await _is_back(kube)
    await _nothing_left(kube)


@pytest.mark.parametrize("entry", [1, 2], ids=["the node is asked", "the program is made"])
async def test_aborted_while(
    entry: int, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(_shutdown(tmp_path, hold="10m")) as run:
        run.until(lambda e: e["type"] == "change" and e["entry"] == entry, "a program is about to be made")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert ended.code == 130, ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}
    await _is_back(kube)
    await _nothing_left(kube)


async def test_an_api_server_that_stays_away_longer_than_the_patience(
    gameday: Program, kube: Kube, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The node can't know better than to revert; the run says that its fault did not last."""
    with gameday.started(_shutdown(tmp_path, hold="10m", program={"patience": "3s"})) as run:
        _in_force(run)
        log = _log_at_the_kubelet(platform, await _node(kube), await _program(kube))
        assert _read(log) == ""  # the kubelet is stopped
        platform.stop_api()
        try:
            until(lambda: '"event": "out"' in _read(log), "the program says that it reverted")
        finally:
            platform.start_api()
        await _is_back(kube)
        said = await _last_words(kube)
        assert "the API server did not answer for" in said["why"]
        run.signal(signal.SIGINT)
        ended = run.ended()
        assert ended.code == 130, ended.output
    assert any("did not keep it in force to the end" in e["message"] for e in ended.of("warn"))
    await _nothing_left(kube)


async def test_an_image_that_nobody_has(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = _shutdown(tmp_path, program={"image": "registry.invalid/python:3"})
    ended = gameday.run(file)
    assert ended.code == 4, ended.output
    assert "ErrImagePull" in ended.output
    assert "registry.invalid/python:3" in ended.output
    assert not ended.of("fault")
    await _nothing_left(kube)


async def test_a_unit_that_the_node_does_not_have(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = [{"nodeShutdown": {"nodes": {"names": [NODE]}, "unit": "k3s-agent"}, "for": "5s"}]
    ended = gameday.run(write(tmp_path, method=method, blastRadius=RADIUS))
    assert ended.code == 4, ended.output
    assert "neither an active systemd unit k3s-agent nor a process" in " ".join(ended.output.split())
    refused = [e for e in ended.of("preflight") if e["level"] == "refused"]
    assert [e["check"] for e in refused] == ["on the spot"]
    assert not [e for e in ended.of("phase") if e["phase"] == "baseline"]
    await _nothing_left(kube)


async def test_a_namespace_that_is_not_there(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    ended = gameday.run(_shutdown(tmp_path, program={"namespace": "no-such-place"}))
    assert ended.code == 4, ended.output
    assert 'namespaces "no-such-place" not found' in ended.output
    await _nothing_left(kube)


async def test_a_namespace_that_admits_no_privileged_pods(
    gameday: Program, kube: Kube, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    if platform.name == "sandbox":
        pytest.skip("the embedded API has no Pod Security admission")
    meta = {"name": "guarded", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}
    space = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
    try:
        ended = gameday.run(_shutdown(tmp_path, program={"namespace": "guarded"}))
        assert ended.code == 4, ended.output
        said = " ".join(ended.output.split())
        assert "violates PodSecurity" in said
        assert "label it pod-security.kubernetes.io/enforce=privileged" in said
        left = await kube.list(CONFIG_MAPS, "guarded", labels=LABELLED)
        assert left == []
    finally:
        await kube.delete(space)


async def test_a_namespace_of_its_own(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The program's pod runs there, its Lease is in another one: it may read both."""
    ended = gameday.run(_shutdown(tmp_path, hold="1s", program={"namespace": "platform"}))
    assert ended.verdict == "passed", ended.output
    await _nothing_left(kube)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ({"pullPolicy": "Sometimes"}, "pullPolicy"),
        ({"patience": "0s"}, "patience"),
        ({"images": "python"}, "did you mean `image`"),
    ],
)
@pytest.mark.fast
def test_options_that_are_wrong(program: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment) as refused:
        load(_shutdown(tmp_path, program=program))
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("image", "warned"), [("registry.example/python:3.13", True), (f"python@sha256:{'0' * 64}", False)]
)
def test_an_image_that_may_be_exchanged_is_warned_about(
    image: str, warned: bool, gameday: Program, tmp_path: Path
) -> None:
    """It runs as root on the nodes: who may push to its registry would."""
    ended = gameday("plan", _shutdown(tmp_path, program={"image": image}))
    assert ("its tag may be moved" in " ".join(ended.output.split())) == warned, ended.output
