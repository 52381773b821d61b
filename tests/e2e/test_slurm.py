"""Slurm on the platform: faults by slurmrestd and by scontrol in a pod, with the glue that follows."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from gameday.sandbox.fleet.slurm.scontrol import RETURNS
from tests.e2e.experiments import CORDON, write
from tests.support.platforms import Platform
from tests.support.polling import eventually, until
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("real Slurms are in tests/slurm")

EXEC = {"namespace": "slurm", "selector": "app.kubernetes.io/component=controller", "container": "slurmctld"}
RUNS = {
    "name": "trainer runs",
    "slurm": {"job": "trainer"},
    "is": "RUNNING",
    "during": "ignore",
    "interval": "500ms",
}
DRAIN = {"slurm": {"drain": {"names": ["gpu-6"]}, "reason": "a test"}, "for": "60s"}


def experiment(
    folder: Path, *steps: dict[str, Any], slurm: dict[str, Any] | None = None, **spec: Any
) -> Path:
    target = {
        "context": "gameday-.*",
        "namespaces": ["training"],
        "nodes": {"selector": "nvidia.com/gpu.present=true"},
        **({"slurm": slurm} if slurm else {}),
    }
    radius = {"nodes": 2, "gpus": 32, "partitions": ["gpu"]}
    settings = {"target": target, "blastRadius": radius, "steadyState": [RUNS], **spec}
    return write(folder, method=list(steps), **settings)


class Asked:
    """The platform's Slurm, asked as anybody would: with HTTP."""

    def __init__(self, platform: Platform) -> None:
        self._url = platform.slurm_url
        self._headers = {"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": platform.slurm_token}

    def __call__(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/slurm/v0.0.45/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def node(self, name: str) -> tuple[list[str], str]:
        found = next(n for n in self("nodes")["nodes"] if n["name"] == name)
        return found["state"], found["reason"]

    def job(self) -> dict[str, Any]:
        found: dict[str, Any] = next(j for j in self("jobs")["jobs"] if j["name"] == "trainer")
        return found


@pytest.fixture
def slurm(platform: Platform) -> Asked:
    asked = Asked(platform)
    until(lambda: asked.job()["job_state"] == ["RUNNING"], "the training job runs")
    return asked


@pytest.mark.parametrize("way", ["url", "exec"])
async def test_a_drain_is_killed_and_recovered_elsewhere(
    way: str, gameday: Program, slurm: Asked, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The glue cordons the node in Kubernetes, and takes that back once the drain is."""
    if way == "exec":
        gameday.environment["GAMEDAY_SLURM_URL"] = ""
    with gameday.started(experiment(tmp_path, DRAIN, slurm={"exec": EXEC} if way == "exec" else None)) as run:
        run.fault_is("in")
        states, reason = slurm.node("gpu-6")
        assert "DRAIN" in states
        assert reason == f"gameday {run.folder.name}: a test"
        node = Ref("v1", "Node", "gpu-6")
        await eventually(lambda: kube.get(node), lambda n: bool(n["spec"].get("unschedulable")))
        name = run.kill()
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "undone       SlurmNode gpu-6" in ended.output
    assert "DRAIN" not in slurm.node("gpu-6")[0]


def test_the_job_leaves_a_drained_node(
    gameday: Program, slurm: Asked, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    restarts = slurm.job()["restart_cnt"]
    drain = {"slurm": {"drain": {"job": "trainer", "pick": 1}, "waitForJobs": True}, "for": "60s"}
    with gameday.started(experiment(tmp_path, drain)) as run:
        run.fault_is("in")
        until(lambda: slurm.job()["job_state"] == ["RUNNING"], "it runs elsewhere")
        left = next(e for e in run.events if e["type"] == "fault")["targets"][0].removeprefix("Node ")
        assert left not in slurm.job()["nodes"].split(",")
        assert slurm.job()["restart_cnt"] == restarts + 1
        run.signal(signal.SIGTERM)
        ended = run.ended()
    assert ended.code == 130, ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


@pytest.mark.parametrize(
    ("returns", "verdict", "by"), [("2", "passed", "the platform itself"), ("1", "deviated", "somebody else")]
)
async def test_a_node_that_comes_back_by_itself(
    returns: str,
    verdict: str,
    by: str,
    gameday: Program,
    slurm: Asked,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """By what Slurm is told to do with a node that registers; a resume stands for its registration."""
    pods = await kube.list(PODS, EXEC["namespace"], labels=EXEC["selector"])
    said = {RETURNS: returns}
    await kube.patch(Ref.of(pods[0]), {"metadata": {"annotations": said}}, "merge")
    down = {"slurm": {"down": {"names": ["gpu-7"]}}, "for": "60s"}
    try:
        with gameday.started(experiment(tmp_path, down, slurm={"exec": EXEC})) as run:
            await asyncio.to_thread(run.fault_is, "in")
            slurm("node/gpu-7", {"state": ["RESUME"]})
            ended = await asyncio.to_thread(run.ended)
    finally:
        await kube.patch(Ref.of(pods[0]), {"metadata": {"annotations": {RETURNS: None}}}, "merge")
    assert ended.verdict == verdict, ended.output
    assert ended.of("fault")[-1]["by"] == by
    warned = "comes back when it registers, and the step ends then" in " ".join(ended.output.split())
    assert warned == (returns == "2")


def test_down_and_requeue_and_hold(
    gameday: Program, slurm: Asked, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    restarts = slurm.job()["restart_cnt"]
    steps = [
        {"slurm": {"down": {"names": ["gpu-7"]}}, "for": "1s"},
        {"slurm": {"requeue": "trainer"}, "for": "1s"},
        {"slurm": {"holdPartition": {"name": "gpu", "state": "INACTIVE"}}, "for": "1s"},
    ]
    ended = gameday.run(experiment(tmp_path, *steps))
    assert ended.code == 0, ended.output
    assert [e["state"] for e in ended.of("fault")] == ["injecting", "in", "undoing", "out"] * 3
    assert slurm.job()["restart_cnt"] > restarts
    assert slurm("partitions")["partitions"][0]["partition"]["state"] == ["UP"]


def test_a_cordon_in_kubernetes_drains_in_slurm_within_the_grace(
    gameday: Program, slurm: Asked, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Longer than the glue takes, the two agree; with no grace at all, the node and its side are named."""
    agree = {"name": "agree", "slurmKubernetesAgree": {"grace": "10s"}, "is": 0, "interval": "500ms"}
    at_once = {**agree, "name": "at once", "slurmKubernetesAgree": {"grace": "0s"}, "during": "ignore"}
    with gameday.started(experiment(tmp_path, CORDON, steadyState=[agree, at_once])) as run:
        run.fault_is("in")
        until(lambda: "DRAIN" in slurm.node("gpu-0")[0], "the glue drains")
        assert slurm.node("gpu-0")[1] == "slurm-operator: node is cordoned in Kubernetes"
        run.until(
            lambda e: e["type"] == "probed" and "gpu-0 is cordoned" in e.get("series", ""), "it was seen"
        )
        run.signal(signal.SIGTERM)
        ended = run.ended()
    probed = [e for e in ended.of("probed") if e["probe"] == "agree"]
    assert {e["state"] for e in probed} == {"holds"}
    until(lambda: "DRAIN" not in slurm.node("gpu-0")[0], "the glue takes its drain back")


def test_an_admins_drain_is_left(
    gameday: Program, slurm: Asked, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    theirs, other = [n for n in (f"gpu-{i}" for i in range(8)) if slurm.node(n)[0] == ["IDLE"]][-2:]
    slurm(f"node/{theirs}", {"state": ["DRAIN"], "reason": "bad cable"})
    try:
        both = {"slurm": {"drain": {"names": [theirs, other]}}, "for": "1s"}
        ended = gameday.run(experiment(tmp_path, both))
        assert ended.code == 0, ended.output
        assert f"Slurm node {theirs} is drained already (bad cable), and is left so" in ended.output
        assert slurm.node(theirs) == (["IDLE", "DRAIN"], "bad cable")
        assert "DRAIN" not in slurm.node(other)[0]
    finally:
        slurm(f"node/{theirs}", {"state": ["RESUME"]})


def test_slurmctld_is_down_in_the_middle(
    gameday: Program, platform: Platform, slurm: Asked, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, DRAIN)) as run:
        run.fault_is("in")
        platform.control("slurm/stop")
        try:
            run.signal(signal.SIGTERM)
            run.until(
                lambda e: e["type"] == "warn" and "slurmctld does not answer" in e["message"],
                "the undo waits",
            )
        finally:
            platform.control("slurm/start")
        ended = run.ended()
    assert ended.code == 130, ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}
    assert "DRAIN" not in slurm.node("gpu-6")[0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"drain": {"names": ["gpu-99"]}}, ["there is no Slurm node gpu-99", "gpu-0"]),
        ({"drain": {"partition": "cpu"}}, ["there is no partition cpu in Slurm, only gpu"]),
        ({"drain": {"job": "nobody"}}, ["Slurm has no job nobody that waits or runs"]),
        ({"drain": {"job": "pretrain"}}, ["job 1002 (pretrain) is PENDING, so it has no nodes"]),
        ({"drain": {"partition": "gpu"}}, ["8 nodes (at most 2"]),
        ({"resume": {"names": ["gpu-6"]}}, ["gpu-6: in service in Slurm already, nothing would change"]),
        ({"requeue": 4711}, ["Slurm has no job 4711"]),
        ({"requeue": "pretrain"}, ["job 1002 (pretrain) is PENDING: only a job that runs"]),
        ({"holdPartition": {"name": "cpu"}}, ["there is no partition cpu"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_refused_by_what_slurm_says(
    step: dict[str, Any], words: list[str], gameday: Program, slurm: Asked, tmp_path: Path
) -> None:
    ended = gameday.run(experiment(tmp_path, {"slurm": step, "for": "1s"}))
    assert ended.code == 4, ended.output
    assert not ended.of("change")
    for word in words:
        assert word in " ".join(ended.output.split()), ended.output


@pytest.mark.parametrize(
    ("environment", "access", "words"),
    [
        ({"GAMEDAY_SLURM_URL": ""}, None, "no Slurm is configured: name one in spec.target.slurm"),
        ({"SLURM_JWT": "wrong"}, None, "does not accept the token"),
        ({"SLURM_JWT": ""}, None, "no token for slurmrestd"),
        ({"GAMEDAY_SLURM_URL": "http://127.0.0.1:1"}, None, "does not answer"),
        ({"GAMEDAY_SLURM_URL": ""}, {"exec": {**EXEC, "selector": "app=nobody"}}, "no Ready pod in slurm"),
        ({"GAMEDAY_SLURM_URL": "", "PATH": "/nowhere"}, {"local": True}, "scontrol can't be run here"),
    ],
    ids=["none", "wrong token", "no token", "nobody", "no pod", "no scontrol"],
)
def test_refused_by_the_way_to_slurm(
    environment: dict[str, str], access: dict[str, Any] | None, words: str, gameday: Program, tmp_path: Path
) -> None:
    ended = gameday.run(experiment(tmp_path, DRAIN, slurm=access), env=environment)
    assert ended.code == 4, ended.output
    assert words in " ".join(ended.output.split()), ended.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slurm: {drain: {names: [a]}, requeue: 1}", "expected exactly one of `drain`"),
        ("slurm: {drain: {names: [a], job: b}}", "expected exactly one of `names`, `partition` and `job`"),
        ("slurm: {holdPartition: {name: gpu, state: UP}}", "UP"),
        ("slurm: {reason: why}", "expected exactly one of `drain`"),
    ],
)
@pytest.mark.fast
def test_a_wrong_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    import yaml

    from gameday.experiment.loader import load
    from gameday.experiment.problems import InvalidExperiment

    with pytest.raises(InvalidExperiment) as caught:
        load(experiment(tmp_path, yaml.safe_load(text)))
    assert said in str(caught.value)
