"""The `slurm` fault on a real Slurm: a running job, a drain, a requeue, kill -9 in between, all restored.

Kubernetes is the platform of the other tests, with nodes of the same names but nothing that ties the two.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import write
from tests.support.polling import until
from tests.support.program import Ended, Program
from tests.support.slurm import RealSlurm

WAYS = ("url and scontrol", "scontrol", "url")
PROBE = {
    "name": "partition",
    "slurm": {"partition": "gpu"},
    "is": ">= 1",
    "during": "ignore",
    "interval": "500ms",
}


def way_to(slurm: RealSlurm, way: str) -> dict[str, Any]:
    """spec.target.slurm. slurmrestd alone will do only where it can update nodes."""
    if way == "url" and slurm.root is None:
        pytest.skip("slurmrestd 22.05 only reads")
    named = {"url": slurm.url} if "url" in way else {}
    return named | ({"local": True} if "scontrol" in way else {})


def experiment(folder: Path, access: dict[str, Any], *steps: dict[str, Any], **spec: Any) -> Path:
    target = {
        "context": "gameday-.*",
        "namespaces": ["training"],
        "nodes": {"selector": "nvidia.com/gpu.present=true"},
        "slurm": access,
    }
    settings = {
        "target": target,
        "blastRadius": {"nodes": 2, "gpus": 32, "partitions": ["gpu"]},
        "steadyState": [PROBE],
        "recovery": {"within": "90s"},
    }
    return write(folder, method=list(steps), **{**settings, **spec})


@pytest.fixture
def program(gameday: Program, slurm: RealSlurm) -> Program:
    """gameday with this Slurm's token and scontrol, and not the platform's simulated one."""
    gameday.environment |= {**slurm.environment, "GAMEDAY_SLURM_URL": ""}
    return gameday


def audited(ended: Ended) -> set[str]:
    return {e["state"] for e in ended.of("audited")}


@pytest.mark.parametrize("way", WAYS)
def test_a_node_is_drained_under_a_running_job(
    way: str, slurm: RealSlurm, program: Program, tmp_path: Path
) -> None:
    """The job goes on, nothing new starts there, and the node comes back: gpu-0 in both schedulers."""
    access = way_to(slurm, way)
    job = slurm.submit("trainer", "--nodelist=gpu-0")
    slurm.until_running(job)
    drain = {"slurm": {"drain": {"job": "trainer"}, "reason": "a test"}, "for": "30s"}
    with program.started(experiment(tmp_path, access, drain)) as run:
        run.fault_is("in")
        assert slurm.node("gpu-0").startswith("ALLOCATED+DRAIN gameday ")
        assert slurm.node("gpu-0").endswith(": a test")
        assert slurm.job(job)["JobState"] == "RUNNING"
        run.signal(signal.SIGTERM)
        ended = run.ended()
    assert ended.code == 130, ended.output
    assert slurm.node("gpu-0").split()[0] == "ALLOCATED"
    fault = ended.of("fault")[0]
    assert fault["targets"] == ["Node gpu-0"]
    assert audited(ended) == {"restored"}


@pytest.mark.parametrize("way", WAYS)
def test_killed_in_between(way: str, slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    """kill -9, then `gameday recover` with another token, from the record alone."""
    access = way_to(slurm, way)
    drain = {"slurm": {"drain": {"names": ["gpu-1", "gpu-2"]}}, "for": "60s"}
    with program.started(experiment(tmp_path, access, drain)) as run:
        run.fault_is("in")
        name = run.kill()
        kept = [p for p in run.folder.rglob("*") if p.is_file()]
        assert not [p.name for p in kept if b"eyJ" in p.read_bytes()]  # how tokens begin
    assert slurm.node("gpu-1").startswith("IDLE+DRAIN gameday ")
    program.environment["SLURM_JWT"] = slurm.token()
    ended = program("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "undone       SlurmNode gpu-2, which the run had changed (idle → DRAIN)" in ended.output
    assert {slurm.node(n).split()[0] for n in ("gpu-1", "gpu-2")} == {"IDLE"}


def test_a_node_that_only_slurm_knows(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    """It is among no target's nodes of Kubernetes: the target names none."""
    access = {"local": True}
    drain = {"slurm": {"drain": {"names": ["bare-1"]}}, "for": "1s"}
    target = {"context": "gameday-.*", "namespaces": ["training"], "slurm": access}
    ended = program.run(experiment(tmp_path, access, drain, target=target))
    assert (ended.code, slurm.node("bare-1").split()[0]) == (0, "IDLE"), ended.output
    wrong = program.run(experiment(tmp_path, access, drain))
    assert "not in Kubernetes, so not among the target's nodes" in wrong.output


def test_a_token_that_has_expired_stops_a_recovery(
    slurm: RealSlurm, program: Program, tmp_path: Path
) -> None:
    if slurm.root is None:
        pytest.skip("slurmrestd 22.05 only reads")
    drain = {"slurm": {"drain": {"names": ["gpu-1"]}}, "for": "60s"}
    with program.started(experiment(tmp_path, {"url": slurm.url}, drain)) as run:
        run.fault_is("in")
        name = run.kill()
    failed = program("recover", "--run", name, "--force", env={"SLURM_JWT": ""})
    assert failed.code == 5, failed.output
    assert "no token for slurmrestd" in failed.output
    assert slurm.node("gpu-1").startswith("IDLE+DRAIN")
    assert program("recover", "--run", name, "--force").code == 0
    assert slurm.node("gpu-1").split()[0] == "IDLE"


def test_a_job_is_requeued_and_runs_again(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    job = slurm.submit("trainer")
    slurm.until_running(job)
    running = {"name": "job", "slurm": {"job": "trainer"}, "is": "RUNNING", "during": "ignore"}
    requeue = {"slurm": {"requeue": "trainer"}, "for": "1s"}
    file = experiment(
        tmp_path, way_to(slurm, "url and scontrol"), requeue, steadyState=[{**running, "interval": "500ms"}]
    )
    ended = program.run(file)
    assert ended.code == 0, ended.output
    assert slurm.job(job)["JobState"] == "RUNNING"
    assert slurm.job(job)["Restarts"] == "1"
    assert audited(ended) == {"irreversible"}


def test_a_node_that_is_down_loses_its_job(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    """It is requeued onto another node at once, or after Slurm's delay; the node comes back."""
    job = slurm.submit("trainer", "--nodes=1", "--exclude=bare-1")
    slurm.until_running(job)
    node = slurm.job(job)["NodeList"]
    down = {"slurm": {"down": {"job": "trainer"}}, "for": "60s"}
    with program.started(experiment(tmp_path, way_to(slurm, "scontrol"), down)) as run:
        run.fault_is("in")
        assert slurm.node(node).startswith("DOWN gameday ")
        until(lambda: slurm.job(job)["JobState"] == "RUNNING", "it runs elsewhere", within=60)
        assert slurm.job(job)["NodeList"] != node
        run.signal(signal.SIGTERM)
        assert run.ended().code == 130
    until(lambda: slurm.node(node).split()[0] == "IDLE", "the node is back")


def test_a_held_partition_starts_nothing(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    hold = {"slurm": {"holdPartition": {"name": "gpu", "state": "DOWN"}}, "for": "60s"}
    with program.started(experiment(tmp_path, way_to(slurm, "url and scontrol"), hold)) as run:
        run.fault_is("in")
        job = slurm.submit("waits")
        until(lambda: slurm.job(job)["Reason"] == "PartitionDown", "it waits for the partition")
        run.signal(signal.SIGTERM)
        ended = run.ended()
    assert ended.code == 130, ended.output
    slurm.until_running(job)


def test_a_drained_node_is_resumed_and_drained_again(
    slurm: RealSlurm, program: Program, tmp_path: Path
) -> None:
    slurm("scontrol", "update", "nodename=gpu-2", "state=drain", "reason=bad cable")
    try:
        resume = {"slurm": {"resume": {"names": ["gpu-2"]}}, "for": "1s"}
        ended = program.run(experiment(tmp_path, way_to(slurm, "scontrol"), resume))
        assert ended.code == 0, ended.output
        assert slurm.node("gpu-2") == "IDLE+DRAIN bad cable"
    finally:
        slurm("scontrol", "update", "nodename=gpu-2", "state=resume")


def test_what_an_admin_does_meanwhile_stays(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    drain = {"slurm": {"drain": {"names": ["gpu-0", "gpu-1"]}}, "for": "60s"}
    try:
        with program.started(experiment(tmp_path, way_to(slurm, "url and scontrol"), drain)) as run:
            run.fault_is("in")
            slurm("scontrol", "update", "nodename=gpu-1", "state=drain", "reason=bad cable")
            run.signal(signal.SIGTERM)
            ended = run.ended()
        assert slurm.node("gpu-0").split()[0] == "IDLE"
        assert slurm.node("gpu-1") == "IDLE+DRAIN bad cable"
        kept = [e for e in ended.of("audited") if e["state"] == "kept"]
        assert [(e["object"], e["message"]) for e in kept] == [
            ("SlurmNode gpu-1", "it is drained (bad cable) by someone else, and left so")
        ]
    finally:
        slurm("scontrol", "update", "nodename=gpu-1", "state=resume")


def test_slurmctld_restarts_in_the_middle(slurm: RealSlurm, program: Program, tmp_path: Path) -> None:
    """The undo waits for it."""
    drain = {"slurm": {"drain": {"names": ["gpu-0"]}}, "for": "60s"}
    with program.started(experiment(tmp_path, way_to(slurm, "url and scontrol"), drain)) as run:
        run.fault_is("in")
        slurm.stop("slurmctld")
        run.signal(signal.SIGTERM)
        run.until(
            lambda e: e["type"] == "warn" and "slurmctld does not answer" in e["message"], "the undo waits"
        )
        slurm.start("slurmctld")
        ended = run.ended()
    assert ended.code == 130, ended.output
    assert audited(ended) == {"restored"}
    until(lambda: slurm.node("gpu-0").split()[0] == "IDLE", "the node is back", within=60)


def test_nodes_that_the_schedulers_disagree_about_are_named(
    slurm: RealSlurm, program: Program, tmp_path: Path
) -> None:
    """Nothing ties the platform's nodes to this Slurm, so that a drain here is not seen there."""
    agree = {
        "name": "agree",
        "slurmKubernetesAgree": {"grace": "1s"},
        "is": 0,
        "interval": "500ms",
    }
    drain = {"slurm": {"drain": {"names": ["gpu-0"]}}, "for": "5s"}
    file = experiment(tmp_path, way_to(slurm, "scontrol"), drain, steadyState=[agree])
    ended = program.run(file)
    assert ended.verdict == "deviated", ended.output
    broken = [e for e in ended.of("probed") if e["state"] == "broken"]
    assert broken[0]["value"] == 1
    assert broken[0]["series"].startswith("gpu-0 is drained in Slurm (gameday ")
    assert broken[0]["series"].endswith("), not in Kubernetes")


def test_slurmrestd_that_only_reads_is_refused_with_the_reason(
    slurm: RealSlurm, program: Program, tmp_path: Path
) -> None:
    if slurm.root is not None:
        pytest.skip("a newer slurmrestd updates nodes")
    drain = {"slurm": {"drain": {"names": ["gpu-0"]}}, "for": "5s"}
    ended = program.run(experiment(tmp_path, {"url": slurm.url}, drain))
    assert ended.code == 4, ended.output
    assert "speaks v0.0.38, which can't update nodes (Slurm 23.02 and later can)" in ended.output
    assert "name `exec` or `local` in spec.target.slurm too" in ended.output
