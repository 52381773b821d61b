"""Kueue and JobSet beside faults on nodes: what a plan foretells of gangs is what their controllers then do.

Jobs want two nodes of eight GPUs, in one zone or anywhere: zone-a has gpu-0 and gpu-3, all others one each.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.store import ensure_namespace
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from gameday.platform.resources import PODS
from tests.e2e import experiments
from tests.support.polling import eventually
from tests.support.program import Program, Running
from tests.support.snapshot import Snapshot
from tests.systems.kueue import RealKueue

API = "kueue.x-k8s.io/v1beta2"
SPACE = "queues"
QUEUE = {"kueue.x-k8s.io/queue-name": "research"}
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
REQUIRED = {"kueue.x-k8s.io/podset-required-topology": ZONE}
PREFERRED = {"kueue.x-k8s.io/podset-preferred-topology": ZONE}
JOB = Ref("batch/v1", "Job", "gang", SPACE)
JOBSET = Ref("jobset.x-k8s.io/v1alpha2", "JobSet", "gang", SPACE)

pytestmark = pytest.mark.usefixtures("queue")


def _setup() -> list[Object]:
    """A queue whose quota are four nodes of eight GPUs, placed by zone and node."""
    resources = {"cpu": "1000", "memory": "8Ti", "nvidia.com/gpu": "32"}
    quota = [{"name": name, "nominalQuota": amount} for name, amount in resources.items()]
    group = {"coveredResources": [*resources], "flavors": [{"name": "h100", "resources": quota}]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        _kueue("Topology", "nodes", {"levels": [{"nodeLabel": ZONE}, {"nodeLabel": HOST}]}),
        _kueue(
            "ResourceFlavor",
            "h100",
            {"nodeLabels": {"nvidia.com/gpu.present": "true"}, "topologyName": "nodes"},
        ),
        _kueue("ClusterQueue", "all", {"namespaceSelector": {}, "resourceGroups": [group]}),
        _kueue("LocalQueue", "research", {"clusterQueue": "all"}, namespace=SPACE),
    ]


def _kueue(kind: str, name: str, spec: Object, **more: str) -> Object:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, **more}, "spec": spec}


@pytest.fixture(scope="module")
async def queue(kube: Kube, kueue: RealKueue) -> AsyncIterator[None]:
    await ensure_namespace(kube)
    made = [Ref.of(await kube.create(obj)) for obj in _setup()]
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", SPACE)))
    await eventually(lambda: kube.get(made[-1]), lambda o: is_true(o, "Active"))
    yield
    for ref in reversed(made):
        await kube.delete(ref)
        await eventually(lambda ref=ref: kube.find(ref), lambda found: found is None)  # type: ignore[misc]


def _template(topology: dict[str, str]) -> Object:
    resources = {"limits": {"nvidia.com/gpu": "8"}}
    container = {"name": "main", "image": "example.com/training:1", "resources": resources}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"metadata": {"annotations": topology}, "spec": spec}


def _job(topology: dict[str, str], **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gang", "namespace": SPACE, "labels": QUEUE},
        "spec": {"parallelism": 2, "completions": 2, "template": _template(topology), **spec},
    }


def _jobset(restarts: int, limit: int, *, queued: bool = True) -> Object:
    spec = {"parallelism": 1, "completions": 1, "backoffLimit": limit, "template": _template(PREFERRED)}
    if not queued:
        spec["template"] = _template({})
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "gang", "namespace": SPACE, "labels": QUEUE if queued else {}},
        "spec": {
            "failurePolicy": {"maxRestarts": restarts},
            "replicatedJobs": [{"name": "workers", "replicas": 2, "template": {"spec": spec}}],
        },
    }


async def _pods(kube: Kube) -> list[Object]:
    """Those of the gang that are not over."""
    listed = await kube.list(PODS, SPACE)
    over = ("Failed", "Succeeded")
    return [
        p for p in listed if p["status"].get("phase") not in over and "deletionTimestamp" not in p["metadata"]
    ]


def _runs(pods: list[Object]) -> bool:
    return len(pods) == 2 and all(p["status"].get("phase") == "Running" for p in pods)


def _runs_without(pods: list[Object], lost: Object) -> bool:
    return _runs(pods) and lost["metadata"]["uid"] not in {p["metadata"]["uid"] for p in pods}


def _nodes(pods: list[Object]) -> list[str]:
    return sorted(p["spec"]["nodeName"] for p in pods)


@asynccontextmanager
async def submitted(kube: Kube, body: Object) -> AsyncIterator[list[Object]]:
    """The pods of this job, once both run; nothing of it is left afterwards."""
    ref = Ref.of(await kube.create(body))
    try:
        yield await eventually(lambda: _pods(kube), _runs, within=60)
    finally:
        await kube.delete(ref, propagation="Background")
        for resource in (PODS, await kube.resource(API, "Workload")):
            await eventually(lambda r=resource: kube.list(r, SPACE), lambda left: not left, within=60)  # type: ignore[misc]


async def _workload(kube: Kube) -> Object:
    (found,) = await kube.list(await kube.resource(API, "Workload"), SPACE)
    return found


STEADY = {
    "name": "queue",
    "kubernetes": {
        "resource": "localqueues.kueue.x-k8s.io/research",
        "namespace": SPACE,
        "jsonPath": "{.spec.clusterQueue}",
    },
    "is": "all",
    "interval": "500ms",
}


def _experiment(folder: Path, fault: Object, hold: str = "10s", **spec: Any) -> Path:
    target = {
        "context": "gameday-.*",
        "namespaces": [SPACE],
        "nodes": {"selector": "nvidia.com/gpu.present=true"},
    }
    radius = {"nodes": 2, "pods": 2, "gpus": 16}
    return experiments.write(
        folder,
        method=[{**fault, "for": hold}],
        target=target,
        steadyState=[STEADY],
        blastRadius=radius,
        **spec,
    )


def _drain(*nodes: str, force: bool = False) -> Object:
    return {"drain": {"nodes": {"names": list(nodes)}, "force": force}}


async def _foretold(gameday: Program, file: Path) -> str:
    ended = await asyncio.to_thread(gameday, "plan", file, env={"COLUMNS": "400"})
    assert ended.code == 0, ended.output
    return " ".join(ended.output.split())


def _taint(effect: str, *nodes: str) -> Object:
    return {"taint": {"nodes": {"names": list(nodes)}, "key": "gameday.dev/broken", "effect": effect}}


def _was_queued_again(workload: Object) -> bool:
    """Whether it was evicted for its nodes; the condition that says so stays after it is admitted again."""
    conditions = workload["status"].get("conditions") or ()
    return any(c["type"] == "Requeued" and c["reason"] == "NodeFailures" for c in conditions)


async def _in(run: Running) -> None:
    await asyncio.to_thread(run.fault_is, "in")


async def _passed(run: Running) -> None:
    ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output


@pytest.mark.parametrize("how", ["drain", "taint"])
async def test_a_pod_that_ends_gets_another_node(
    how: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with submitted(kube, _job(PREFERRED)) as pods:
        lost, kept = sorted(pods, key=lambda p: str(p["spec"]["nodeName"]))
        node = lost["spec"]["nodeName"]
        fault = _drain(node) if how == "drain" else _taint("NoExecute", node)
        file = _experiment(tmp_path, fault, hold="15s")
        name = (await _workload(kube))["metadata"]["name"]
        said = await _foretold(gameday, file)
        assert "1 gang loses 1 pod" in said
        assert f"Workload {SPACE}/{name} loses 1 of its pods: Kueue looks for another node for it" in said
        assert f"Job {SPACE}/gang loses 1 of its pods: each is made anew (0 of 6 failures so far)" in said
        with gameday.started(file) as run:
            await _in(run)
            # The Job's controller waits ten seconds before it makes a pod anew.
            now = await eventually(lambda: _pods(kube), lambda found: _runs_without(found, lost), within=60)
            await _passed(run)
        assert node not in _nodes(now)
        assert kept["metadata"]["uid"] in {p["metadata"]["uid"] for p in now}
        assert not _was_queued_again(await _workload(kube))
        assert not (await _workload(kube))["status"].get("unhealthyNodes")


async def test_where_there_is_no_other_node_all_are_queued_again_and_run_after_a_recovery(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with submitted(kube, _job(REQUIRED)) as pods:
        nodes = _nodes(pods)
        file = _experiment(tmp_path, _drain(nodes[0]), hold="60s")
        said = await _foretold(gameday, file)
        assert "where there is none, the whole workload is evicted and queued again" in said
        with gameday.started(file) as run:
            await _in(run)
            await eventually(lambda: _workload(kube), _was_queued_again)
            name = run.kill()
        await eventually(lambda: _pods(kube), lambda left: not left)
        assert not is_true(await _workload(kube), "QuotaReserved")  # as long as the node is cordoned
        ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
        assert ended.code == 0, ended.output
        now = await eventually(lambda: _pods(kube), _runs, within=60)
        assert _nodes(now) == nodes


async def test_two_nodes_at_once_are_too_many(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with submitted(kube, _job(PREFERRED)) as pods:
        nodes = _nodes(pods)
        file = _experiment(tmp_path, _drain(*nodes), hold="5s")
        said = await _foretold(gameday, file)
        assert "1 gang loses 2 pods" in said
        assert "Kueue replaces one node of a workload at a time, and here are several" in said
        with gameday.started(file) as run:
            await _in(run)
            await eventually(lambda: _workload(kube), _was_queued_again)
            await _passed(run)
        now = await eventually(lambda: _pods(kube), _runs, within=90)
        assert not {p["metadata"]["uid"] for p in now} & {p["metadata"]["uid"] for p in pods}


@pytest.mark.parametrize("how", ["cordon", "taint"])
async def test_while_its_pods_run_nothing_follows(
    how: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with submitted(kube, _job(PREFERRED)) as pods:
        node = _nodes(pods)[0]
        fault = {"cordon": {"nodes": {"names": [node]}}} if how == "cordon" else _taint("NoSchedule", node)
        file = _experiment(tmp_path, fault, hold="5s")
        said = await _foretold(gameday, file)
        assert "has 1 of its pods touched, and the plan ends none of them" in said
        assert "gang loses" not in said
        with gameday.started(file) as run:
            await _passed(run)
        now = await _pods(kube)
        assert {p["metadata"]["uid"] for p in now} == {p["metadata"]["uid"] for p in pods}
        workload = await _workload(kube)
        assert is_true(workload, "Admitted")
        assert not _was_queued_again(workload)
        assert not workload["status"].get("unhealthyNodes")


async def test_a_job_that_allows_no_failure_fails(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Whatever Kueue would have done: its other pods end, and nothing makes them again."""
    async with submitted(kube, _job(PREFERRED, backoffLimit=0)) as pods:
        file = _experiment(tmp_path, _drain(_nodes(pods)[0], force=True), hold="5s")
        words = f"Job {SPACE}/gang loses 1 of its pods: it fails for good, and all of its pods end"
        assert f"{words} (0 failures so far, backoffLimit 0)" in await _foretold(gameday, file)
        with gameday.started(file) as run:
            await _passed(run)
        await eventually(lambda: kube.get(JOB), lambda o: is_true(o, "Failed"))
        await eventually(lambda: _pods(kube), lambda left: not left)


async def test_a_job_that_ignores_evictions_counts_none(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    policy = {"rules": [ignored]}
    async with submitted(kube, _job(PREFERRED, backoffLimit=0, podFailurePolicy=policy)) as pods:
        node = _nodes(pods)[0]
        file = _experiment(tmp_path, _drain(node), hold="15s")
        said = await _foretold(gameday, file)
        assert "loses 1 of its pods: its podFailurePolicy ignores evictions: each is made anew" in said
        with gameday.started(file) as run:
            await _in(run)
            now = await eventually(lambda: _pods(kube), _runs, within=60)
            await _passed(run)
        assert node not in _nodes(now)
        assert not (await kube.get(JOB))["status"].get("failed")


async def test_a_jobset_and_its_workload_are_one_gang_and_all_is_made_anew(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with submitted(kube, _jobset(restarts=3, limit=0)) as pods:
        node = _nodes(pods)[0]
        file = _experiment(tmp_path, _drain(node), hold="15s")
        said = await _foretold(gameday, file)
        assert "1 gang loses 1 pod" in said
        words = "where a Job of it fails (backoffLimit 0), all are made anew (0 of 3 restarts are used)"
        assert f"JobSet {SPACE}/gang loses 1 of its pods: {words}" in said
        assert f"Job {SPACE}/gang-workers" not in said
        with gameday.started(file) as run:
            await _in(run)
            await eventually(lambda: kube.get(JOBSET), lambda o: o["status"].get("restarts") == 1)
            now = await eventually(lambda: _pods(kube), _runs, within=60)
            await _passed(run)
        assert node not in _nodes(now)
        assert not {p["metadata"]["uid"] for p in now} & {p["metadata"]["uid"] for p in pods}


async def test_a_jobset_without_restarts_left_fails(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """One that no queue holds, so that the plan knows it by itself alone."""
    async with submitted(kube, _jobset(restarts=0, limit=0, queued=False)) as pods:
        file = _experiment(tmp_path, _drain(_nodes(pods)[0], force=True), hold="5s")
        said = await _foretold(gameday, file)
        assert "where a Job of it fails (backoffLimit 0), it fails (0 of 0 restarts are used)" in said
        with gameday.started(file) as run:
            await _passed(run)
        await eventually(lambda: kube.get(JOBSET), lambda o: is_true(o, "Failed"))
        await eventually(lambda: _pods(kube), lambda left: not left)


async def test_a_kueue_that_is_away_comes_to_it_later(
    kueue: RealKueue, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Meanwhile no pod is made: the API server asks its webhooks first."""
    async with submitted(kube, _job(PREFERRED)) as pods:
        node = _nodes(pods)[0]
        file = _experiment(tmp_path, _drain(node), hold="60s")
        with gameday.started(file) as run:
            await asyncio.to_thread(run.until, lambda e: e["type"] == "phase", "it has begun")
            kueue.stop()
            try:
                await _in(run)
                assert len(await _pods(kube)) == 1
            finally:
                kueue.start()
            now = await eventually(lambda: _pods(kube), _runs, within=120)
            assert node not in _nodes(now)
            run.signal(signal.SIGINT)
            ended = await asyncio.to_thread(run.ended)
        assert ended.code == 130, ended.output
