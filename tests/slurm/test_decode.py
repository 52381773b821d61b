"""What Slurm's versions say in their own ways becomes the same facts."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.platform.slurm import decode
from gameday.platform.slurm.model import Job, Node, Partition, expand, gpus_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("gpu-0", ("gpu-0",)),
        ("gpu-[0-2,7],login", ("gpu-0", "gpu-1", "gpu-2", "gpu-7", "login")),
        ("n[08-11]", ("n08", "n09", "n10", "n11")),
        ("r[1-2]n[1,3]", ("r1n1", "r1n3", "r2n1", "r2n3")),
        ("(null)", ()),
    ],
)
def test_hostlists(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", 0),
        ("(null)", 0),
        ("gpu:8", 8),
        ("gpu:h100:8(S:0-1)", 8),
        ("gpu:a100:4(S:0,1),gpu:h100:2,nic:8", 6),
        ("cpu=32,mem=1M,gres/gpu=16,gres/gpu:h100=16", 16),
        ("cpu=32,gres/gpu:a100=4,gres/gpu:h100=8", 12),  # tracked by type alone
        ("gres:gpu:8", 8),
        ("gres/gpu:h100:8,gres/nic:2", 8),
        ("gres/gpu", 1),
    ],
)
def test_gpus(text: str, gpus: int) -> None:
    assert gpus_of(text) == gpus


REASON = "gameday r1: State=x a=b"
OLD = {"name": "n", "state": "mixed", "state_flags": ["DRAIN"], "reason": REASON, "partitions": ["gpu"]}
NEW = {"name": "n", "state": ["MIXED", "DRAIN"], "reason": REASON, "partitions": ["gpu"]}
LINE = (
    f"NodeName=n Gres=(null) OS=Linux 6.1 #1 SMP State=MIXED+DRAIN Partitions=gpu Reason={REASON} [root@2026]"
)


@pytest.mark.parametrize(
    "node", [decode.node(OLD), decode.node(NEW), decode.node_line(LINE)], ids=["v0.0.38", "v0.0.39", "text"]
)
def test_a_node_is_the_same_in_all_versions(node: Node) -> None:
    assert node == Node("n", frozenset({"MIXED", "DRAIN"}), REASON, ("gpu",))
    assert (node.word, node.out) == ("draining", True)


@pytest.mark.parametrize(
    ("state", "word", "out"),
    [
        ("IDLE", "idle", False),
        ("IDLE+DRAIN", "drained", True),
        ("DOWN*+DRAIN", "drained", True),
        ("DOWN*", "down", True),
        ("ALLOCATED", "allocated", False),
        ("IDLE+CLOUD+POWERED_DOWN", "idle", False),
        ("MIXED+NOT_RESPONDING", "mixed", False),
    ],
)
def test_states_of_nodes(state: str, word: str, out: bool) -> None:
    node = decode.node_line(f"NodeName=n State={state} Partitions=gpu")
    assert (node.word, node.out, node.reason) == (word, out, "")
    assert ("NOT_RESPONDING" in node.states) == ("*" in state or "NOT_RESPONDING" in state)


def test_a_job_is_the_same_in_all_versions() -> None:
    common = {"job_id": 7, "name": "my job", "partition": "gpu", "nodes": "n[0-1]", "restart_cnt": 2}
    old = decode.job(
        {**common, "job_state": "RUNNING", "state_reason": "None", "tres_alloc_str": "gres/gpu=8"}
    )
    new = decode.job({**common, "job_state": ["RUNNING"], "tres_alloc_str": "gres/gpu=8", "requeue": True})
    line = decode.job_line(
        "JobId=7 JobName=my job UserId=root(0) JobState=RUNNING Reason=None Requeue=1 Restarts=2"
        " Partition=gpu ReqNodeList=(null) NodeList=n[0-1] TRES=cpu=2,gres/gpu=8 Command=(null)"
    )
    assert old == new == line == Job(7, "my job", "RUNNING", "", ("n0", "n1"), "gpu", 2, True, 8)


UNTRACKED = "cpu=32,mem=256G,node=2,billing=32"  # AccountingStorageTRES names no GPUs, as by default
RUNS = {"job_id": 7, "job_state": ["RUNNING"], "tres_alloc_str": UNTRACKED}


@pytest.mark.parametrize(
    "said",
    [
        {"gres_detail": ["gpu:h100:8(IDX:0-7)", "gpu:h100:8(IDX:0-7)"]},
        {"tres_per_node": "gres:gpu:8", "node_count": 2},
        {"tres_per_node": "gres/gpu:8", "node_count": {"set": True, "infinite": False, "number": 2}},
        {"tres_per_job": "gres/gpu:16", "node_count": 2},
        {"tres_per_task": "cpu:4,gres/gpu=4", "tasks": {"set": True, "number": 4}},
        {"tres_per_socket": "gres/gpu:4", "node_count": 2, "sockets_per_node": 2},
    ],
    ids=lambda said: next(iter(said)),
)
def test_gpus_that_a_cluster_does_not_track_are_counted_all_the_same(said: dict[str, Any]) -> None:
    """Seen as none, a job of 16 GPUs would pass a blast radius of none."""
    assert decode.job(RUNS | said).gpus == 16


@pytest.mark.parametrize(
    "said", ["NumNodes=2 TresPerNode=gres:gpu:8", "NumNodes=1-2 NumTasks=2 TresPerTask=gres/gpu:8"]
)
def test_the_same_in_text(said: str) -> None:
    assert decode.job_line(f"JobId=7 JobState=RUNNING TRES={UNTRACKED} {said} Command=(null)").gpus == 16


def test_a_job_without_gpus_has_none() -> None:
    assert decode.job(RUNS | {"tres_per_node": "", "gres_detail": [], "node_count": 2}).gpus == 0


def test_a_partition_is_the_same_in_all_versions() -> None:
    old = decode.partition({"name": "gpu", "state": "UP", "nodes": "n[0-1]"})
    new = decode.partition(
        {"name": "gpu", "partition": {"state": ["UP"]}, "nodes": {"configured": "n[0-1]", "total": 2}}
    )
    line = decode.partition_line("PartitionName=gpu AllowGroups=ALL Nodes=n[0-1] State=UP TotalNodes=2")
    assert old == new == line == Partition("gpu", "UP", ("n0", "n1"))
