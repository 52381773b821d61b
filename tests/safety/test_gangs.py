"""Which groups lose a member, and which disagreements of Slurm and Kubernetes are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.extend import Fault
from gameday.faults.drain import Drain, DrainSpec
from gameday.faults.taint import Taint
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.slurm.model import Node
from gameday.platform.world import World
from gameday.probes.slurm_kubernetes import _difference
from gameday.safety.gang_kinds import MARKS, NATIVE, is_gang
from gameday.safety.gangs import _gangs, gangs, groups
from gameday.safety.plan import Plan, StepPlan, with_effects
from tests.platform.arrange import pod, running
from tests.safety.cases import case
from tests.safety.test_effects import plan
from tests.support.kinds import Served, create, serving
from tests.support.program import Program
from tests.support.snapshot import Snapshot
from tests.support.unruly import LOSE_REQUEST, connect, unruly

CORDON = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
KILL = {
    "podKill": {"selector": "gang=member", "namespace": "training", "pick": "all"},
    "for": "1s",
}


EVICTED = [{"type": "DisruptionTarget", "status": "True"}]
IGNORE, FAIL = ({"action": action, "onPodConditions": EVICTED} for action in ("Ignore", "FailJob"))


Marks = tuple[
    dict[str, str], dict[str, str], str, Object | None, str
]  # labels, annotations, name, group, words


def group(api_version: str, kind: str, name: str, **spec: Any) -> Object:
    meta = {"name": name, "namespace": "training"}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": spec}


MPI = {"training.kubeflow.org/operator-name": "mpi-operator", "training.kubeflow.org/job-name": "nccl"}
TORCH = {
    "training.kubeflow.org/operator-name": "pytorchjob-controller",
    "training.kubeflow.org/job-name": "llama",
}
LWS = {"leaderworkerset.sigs.k8s.io/name": "vllm", "leaderworkerset.sigs.k8s.io/group-index": "3"}
RESTART = {"event": "PodEvicted", "action": "RestartJob"}
KAI = "scheduling.run.ai/v2alpha2"
GANGS: list[Marks] = [
    (
        {"jobset.sigs.k8s.io/jobset-name": "llm"},
        {},
        "JobSet training/llm",
        None,
        "all of its Jobs are made anew",
    ),
    (
        {"kueue.x-k8s.io/podset": "main"},
        {"kueue.x-k8s.io/workload": "job-llm", "kueue.x-k8s.io/podset-required-topology": "rack"},
        "Workload training/job-llm",
        None,
        "Kueue looks for another node for it, once",
    ),
    (
        {},  # its queue's flavors all have a topology, and the job named none
        {"kueue.x-k8s.io/workload": "job-any", "kueue.x-k8s.io/podset-unconstrained-topology": "true"},
        "Workload training/job-any",
        None,
        "Kueue looks for another node for it, once",
    ),
    ({"kueue.x-k8s.io/pod-group-name": "pods"}, {}, "Workload training/pods", None, "its quota stays"),
    (
        {"scheduling.x-k8s.io/pod-group": "ring"},
        {},
        "PodGroup training/ring of the scheduler plugins",
        group("scheduling.x-k8s.io/v1alpha1", "PodGroup", "ring", minMember=4),
        "nothing of it starts below 4 members",
    ),
    (
        {},  # Volcano marks pods by an annotation alone, but for those of its own Jobs
        {"scheduling.k8s.io/group-name": "podgroup-1"},
        "PodGroup training/podgroup-1 of Volcano",
        group("scheduling.volcano.sh/v1beta1", "PodGroup", "podgroup-1", minMember=16),
        "nothing of it starts below 16 members",
    ),
    (
        {"volcano.sh/job-name": "vj", "volcano.sh/task-spec": "worker"},
        {},
        "Job training/vj of Volcano",
        group(
            "batch.volcano.sh/v1alpha1",
            "Job",
            "vj",
            policies=[{"event": "PodEvicted", "action": "RestartJob"}],
        ),
        "its policy says RestartJob",
    ),
    (
        LWS,
        {},
        "LeaderWorkerSet training/vllm",
        group("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "vllm", leaderWorkerTemplate={"size": 4}),
        "all 4 pods of the group are deleted and made anew",
    ),
    (
        {"ray.io/cluster": "ray", "ray.io/node-type": "worker", "ray.io/group": "gpus"},
        {},
        "RayCluster training/ray",
        group("ray.io/v1", "RayCluster", "ray", workerGroupSpecs=[{"groupName": "gpus", "numOfHosts": 2}]),
        "all hosts of each replica that loses one (group gpus)",
    ),
    (MPI, {}, "MPIJob training/nccl", None, "workers are made anew, but the launcher's run ends with them"),
    (TORCH, {}, "PyTorchJob training/llama", None, "the others of the job wait for them or fail with them"),
    (
        {},
        {"pod-group-name": "pg-1"},
        "PodGroup training/pg-1 of KAI",
        group("scheduling.run.ai/v2alpha2", "PodGroup", "pg-1", minMember=8, stalenessGracePeriod="30s"),
        "below 8 members for 30s, KAI evicts all of its pods",
    ),
    (
        {},
        {"pod-group-name": "alone"},
        "",
        group("scheduling.run.ai/v2alpha2", "PodGroup", "alone", minMember=1),
        "",
    ),
]
KINDS = [
    Served("scheduling.x-k8s.io/v1alpha1", "PodGroup", "podgroups"),
    Served("scheduling.volcano.sh/v1beta1", "PodGroup", "podgroups"),
    Served("batch.volcano.sh/v1alpha1", "Job", "jobs"),
    Served("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets"),
    Served("ray.io/v1", "RayCluster", "rayclusters"),
    Served("scheduling.run.ai/v2alpha2", "PodGroup", "podgroups"),
]


async def test_the_gangs_that_are_touched_are_named(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Also those whose pods only are on a node that is touched; and what their controllers would do."""
    made: list[Ref] = []
    async with serving(kube, KINDS):
        try:
            for labels, annotations, _, obj, _ in GANGS:
                member = pod("training", labels, node="gpu-0")
                member["metadata"]["annotations"] = annotations
                made.append(await running(kube, member))
                if obj is not None:
                    made.append(await create(kube, obj))
            ended = await plan(gameday, tmp_path, CORDON)
        finally:
            for ref in reversed(made):
                await kube.delete(ref, grace=0)
    assert ended.code == 0, ended.output
    text = " ".join(ended.output.split())
    assert "gangs lose" not in text, text
    assert "PodGroup training/alone" not in text
    for _, _, name, _, words in GANGS:
        assert not name or f"{name} has 1 of its pods" in text, (name, text)
        assert words in text, text


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fault", "spec", "lost"),
    [
        (Taint(), {"key": "gameday.dev/broken", "effect": "NoSchedule"}, 0),
        (Taint(), {"key": "gameday.dev/broken", "effect": "NoExecute"}, 3),
        (Drain(), {}, 3),
    ],
    ids=["NoSchedule", "NoExecute", "drain"],
)
async def test_only_pods_that_end_are_lost(
    fault: Fault[Any], spec: dict[str, Any], lost: int, tmp_path: Path
) -> None:
    """A JobSet that is Kueue's Workload as well, and two groups of a LeaderWorkerSet, on one node."""
    llm = {"jobset.sigs.k8s.io/jobset-name": "llm", "kueue.x-k8s.io/workload": "w"}
    marks = [llm, LWS, {**LWS, "leaderworkerset.sigs.k8s.io/group-index": "4"}]
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await arranged(kube, [member(labels) for labels in marks])
        world = World(kube, namespaces=("training",), step="1")
        planned = await fault.plan(fault.Spec.model_validate({"nodes": {"names": ["gpu-0"]}, **spec}), world)
        planned = await with_effects(fault, planned, world)
        step = StepPlan("1", "a step", "a fault", 1.0, 1, planned)
        texts = [f.message for f in await gangs(case(tmp_path, Plan(1, steps={"1": step}), world))]
    assert ("3 gangs lose 3 pods" in texts) == bool(lost), texts
    assert len([t for t in texts if " loses " in t]) == lost, texts
    assert len([t for t in texts if "the plan ends none of them" in t]) == 3 - lost, texts
    said = next(t for t in texts if t.startswith("LeaderWorkerSet training/vllm"))
    assert "2 of its pods in its groups 3, 4" in said


def member(labels: dict[str, str]) -> Object:
    """A running pod on gpu-0 that something makes again: what makes it can't be seen."""
    owner = {"apiVersion": "example.com/v1", "kind": "Maker", "name": "m", "uid": "1", "controller": True}
    made = pod("training", labels, node="gpu-0")
    made["metadata"]["ownerReferences"] = [owner]
    return made


async def arranged(kube: Kube, pods: list[Object]) -> None:
    """A namespace and two nodes, one of them with these pods."""
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "training"}})
    for name in ("gpu-0", "gpu-1"):
        await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}})
    for each in pods:
        await create(kube, each, phase="Running")


@pytest.mark.fast
async def test_a_group_that_cannot_be_read_is_named_and_stops_nothing(tmp_path: Path) -> None:
    """Its own controllers are away, say, and with them the webhook that converts it."""
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await arranged(kube, [member({"batch.kubernetes.io/job-name": "llm"})])
        world = World(kube, namespaces=("training",), step="1")
        planned = await Drain().plan(DrainSpec.model_validate({"nodes": {"names": ["gpu-0"]}}), world)
        planned = await with_effects(Drain(), planned, world)
        for _ in range(20):  # however often it is asked
            server.lose(LOSE_REQUEST, "GET .*/jobs/llm")
        step = StepPlan("1", "a step", "a fault", 1.0, 1, planned)
        found = await gangs(case(tmp_path, Plan(1, steps={"1": step}), world))
    assert found[0].message == "1 gang loses 1 pod"
    (warning,) = [f for f in found if f.level == "warning"]
    assert warning.message.startswith("Job training/llm could not be read")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("spec", "failed", "words"),
    [
        ({"backoffLimit": 0}, 0, "it fails for good, and all of its pods end (0 failures so far"),
        ({}, 5, "each is made anew (5 of 6 failures so far)"),
        ({}, 6, "it fails for good"),
        ({"backoffLimitPerIndex": 1}, 6, "until its index has failed 2 times"),
        ({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1}, 0, "until its index has failed 1 time"),
        ({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0}, 0, "it fails for good, and all of its pods end"),
        ({"backoffLimit": 0, "podFailurePolicy": {"rules": [IGNORE]}}, 0, "ignores evictions"),
        ({"podFailurePolicy": {"rules": [FAIL, IGNORE]}}, 0, "fails for good at an eviction"),
    ],
)
def test_when_a_job_fails(spec: dict[str, Any], failed: int, words: str) -> None:
    job = {"spec": {"parallelism": 2, **spec}, "status": {"failed": failed}}
    assert words in follows("batch.kubernetes.io/job-name", job, [{"metadata": {}}])


@pytest.mark.fast
def test_a_job_is_a_gang_of_its_own_unless_a_jobset_says_so() -> None:
    alone, of_one = {"batch.kubernetes.io/job-name": "a"}, {"batch.kubernetes.io/job-name": "b"}
    labels = [alone, {**of_one, "jobset.sigs.k8s.io/jobset-name": "llm"}]
    pods = [{"metadata": {"uid": str(i), "namespace": "n", "labels": m}} for i, m in enumerate(labels)]
    assert sorted(str(one.ref) for one in groups(pods)) == ["Job n/a", "JobSet n/llm"]
    assert not is_gang({"spec": {"parallelism": 1}})
    assert is_gang({"spec": {"parallelism": 2}})


@pytest.mark.fast
def test_groups_that_share_pods_are_one_gang() -> None:
    """And a LeaderWorkerSet is as many as it has groups that lose a member."""
    jobset, kueue = "jobset.sigs.k8s.io/jobset-name", "kueue.x-k8s.io/workload"
    marks = [{jobset: "a", kueue: "w"}, {jobset: "a", kueue: "w"}, {jobset: "b"}, LWS]
    marks.append({**LWS, "leaderworkerset.sigs.k8s.io/group-index": "4"})
    pods = [{"metadata": {"uid": str(i), "namespace": "n", "labels": m}} for i, m in enumerate(marks)]
    losing = groups(pods)
    assert (len(losing), _gangs(losing)) == (4, 4)


def follows(key: str, obj: Object | None, pods: list[Object]) -> str:
    return next(m for m in MARKS if m.key == key).follows(obj or {}, pods)


@pytest.mark.fast
def test_only_the_restarts_that_count_use_up_a_jobset() -> None:
    key = "jobset.sigs.k8s.io/jobset-name"
    obj: dict[str, Any] = {
        "metadata": {},
        "spec": {"failurePolicy": {"maxRestarts": 3}},
        "status": {"restarts": 5, "restartsCountTowardsMax": 2},
    }
    assert "all are made anew (2 of 3 restarts are used)" in follows(key, obj, [])
    obj["status"] = {"restarts": 5}  # the other field is left out while none counts
    assert "all are made anew (0 of 3 restarts are used)" in follows(key, obj, [])
    obj["spec"]["failurePolicy"]["rules"] = [{"action": "FailJobSet"}]
    assert "all are made anew, unless a rule of its failurePolicy says otherwise" in follows(key, obj, [])
    obj["spec"]["failurePolicy"].pop("rules")
    obj["status"] = {"restartsCountTowardsMax": 3}
    train = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "name": "llm",
        "controller": True,
    }
    obj["metadata"] = {"ownerReferences": [train]}
    assert "it fails (3 of 3 restarts are used); TrainJob llm with it" in follows(key, obj, [])


@pytest.mark.fast
@pytest.mark.parametrize(("said", "limit"), [(0, 0), (2, 2), (None, 6)])
def test_when_a_job_of_a_jobset_fails(said: int | None, limit: int) -> None:
    """By the limit of the Job that loses the pod, and by Kubernetes' own where it says none."""
    jobs = [("leader", 9), ("workers", said)]
    replicated = [{"name": n, "template": {"spec": {"backoffLimit": v}}} for n, v in jobs]
    obj = {"metadata": {}, "spec": {"replicatedJobs": replicated}}
    member = {"metadata": {"labels": {"jobset.sigs.k8s.io/replicatedjob-name": "workers"}}}
    text = follows("jobset.sigs.k8s.io/jobset-name", obj, [member])
    assert text.startswith(f"where a Job of it fails (backoffLimit {limit}), it fails")


@pytest.mark.fast
def test_a_second_node_is_no_replacement() -> None:
    key = "kueue.x-k8s.io/workload"
    meta = {"annotations": {"kueue.x-k8s.io/podset-required-topology": "rack"}}
    pods: list[dict[str, Any]] = [{"metadata": meta, "spec": {"nodeName": f"gpu-{n}"}} for n in (0, 0, 1)]
    assert "looks for another node" in follows(key, None, pods[:2])
    assert "several" in follows(key, None, pods)


@pytest.mark.fast
def test_the_head_of_a_ray_cluster() -> None:
    head = {"metadata": {"labels": {"ray.io/node-type": "head"}}}
    assert "all tasks and actors are lost" in follows("ray.io/cluster", {}, [head])
    tolerant = {"spec": {"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}}
    assert "KubeRay makes the pods anew" in follows("ray.io/cluster", tolerant, [head])


@pytest.mark.fast
def test_kubernetes_own_groups() -> None:
    """Of the basic policy they are no gangs."""
    member = {"metadata": {"uid": "1", "namespace": "n"}, "spec": {"schedulingGroup": {"podGroupName": "g"}}}
    assert [str(one.ref) for one in groups([member])] == ["PodGroup n/g"]
    gang = {"spec": {"schedulingPolicy": {"gang": {"minCount": 4}}}}
    assert "below 4 members" in follows(NATIVE, gang, [member])
    assert is_gang(gang)
    assert not is_gang({"spec": {"schedulingPolicy": {"basic": {}}}})


OUT = frozenset({"IDLE", "DRAIN"})


def node(cordoned: bool) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {}, "spec": {"unschedulable": cordoned}, "status": {"conditions": ready}}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("glue", "reason", "cordoned", "words"),
    [
        ("none", "disk", False, "not in Kubernetes"),
        ("none", "", True, "cordoned in Kubernetes, but idle"),
        ("slinky", "disk", False, ""),  # somebody's own drain stays in Slurm, by design
        ("slinky", "slurm-operator: cordoned", False, "since slinky found it cordoned"),
        ("slinky", "slurm-operator: cordoned", True, ""),
        ("slinky", "", True, "cordoned in Kubernetes, but idle"),
        ("sunk", "disk", False, "not in Kubernetes"),
        ("sunk", "k8s:cordoned", False, "since sunk found it cordoned"),
        ("sunk", "", True, "cordoned in Kubernetes, but idle"),
    ],
)
def test_what_a_glue_does_not_carry_is_no_disagreement(
    glue: str, reason: str, cordoned: bool, words: str
) -> None:
    states = OUT if reason else frozenset({"IDLE"})
    found = _difference(Node("gpu-0", states, reason), node(cordoned), glue)
    assert bool(found) == bool(words)
    assert words in found
