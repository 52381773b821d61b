"""The embedded API's controllers do with workloads what Kubernetes' own do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, condition, is_ready, is_true
from gameday.platform.resources import EVENTS, NODES, PODS
from gameday.sandbox.controllers.scheduler import node_fits
from tests.support.polling import eventually


@pytest.fixture
async def space(small: Kube) -> AsyncIterator[str]:
    name = f"test-{uuid4().hex[:6]}"
    ref = Ref.of(await small.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    yield name
    await small.delete(ref)


def template(app: str, image: str = "one", **spec: Any) -> Object:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def workload(kind: str, space: str, app: str, spec: Object, api_version: str = "apps/v1") -> Object:
    selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": app}}}
    metadata = {"name": app, "namespace": space}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": selector | spec}


async def ready_pods(kube: Kube, space: str, count: int) -> list[Object]:
    async def ready() -> list[Object]:
        pods = await kube.list(PODS, space)
        return [p for p in pods if is_ready(p)] if all(is_ready(p) for p in pods) else []

    return await eventually(ready, lambda pods: len(pods) == count)


def rolled(deployment: Object, replicas: int) -> bool:
    status = deployment["status"]
    generation = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return bool(generation and status.get("updatedReplicas") == status.get("replicas") == replicas)


async def test_a_deployment_scales_replaces_and_rolls(small: Kube, space: str) -> None:
    app = workload("Deployment", space, "web", {"replicas": 3, "template": template("web")})
    ref = Ref.of(await small.create(app))
    pods = await ready_pods(small, space, 3)
    assert len({p["spec"]["nodeName"] for p in pods}) == 3, "not spread"
    await small.delete(Ref.of(pods[0]))
    replaced = await ready_pods(small, space, 3)
    assert pods[0]["metadata"]["uid"] not in {p["metadata"]["uid"] for p in replaced}
    await small.patch(ref, {"spec": {"replicas": 5}}, "merge")
    await ready_pods(small, space, 5)
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}}
    await small.patch(ref, image, "strategic")

    done = await eventually(lambda: small.get(ref), lambda found: rolled(found, 5))
    assert is_true(done, "Available")
    images = {p["spec"]["containers"][0]["image"] for p in await ready_pods(small, space, 5)}
    assert images == {"two"}
    await small.delete(ref)
    await eventually(lambda: small.list(PODS, space), lambda pods: not pods)


async def test_a_rolling_update_keeps_as_many_pods_ready_as_its_strategy_promises(
    small: Kube, space: str
) -> None:
    rolling = {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}
    spec = {"replicas": 12, "template": template("web"), "strategy": rolling}
    ref = Ref.of(await small.create(workload("Deployment", space, "web", spec)))
    await ready_pods(small, space, 12)
    serving: dict[str, bool] = {}
    counts: list[int] = []
    listed = asyncio.Event()

    async def count() -> None:
        async for kind, pod in follow(small, PODS, space):
            if kind != "SYNCED":
                gone = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
                serving[pod["metadata"]["name"]] = not gone and is_ready(pod)
            else:
                listed.set()
            if listed.is_set():
                counts.append(sum(serving.values()))

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await asyncio.wait_for(listed.wait(), 30)
        image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}}
        await small.patch(ref, image, "strategic")
        await eventually(lambda: small.get(ref), lambda found: rolled(found, 12))
        counting.cancel()
    assert min(counts) >= 11, counts


async def test_a_daemon_set_is_on_every_node_cordoned_or_not(small: Kube, space: str) -> None:
    cordoned = Ref("v1", "Node", "gpu-1")
    await small.patch(cordoned, {"spec": {"unschedulable": True}}, "merge")
    try:
        tainted = await eventually(lambda: small.get(cordoned), lambda n: bool(n["spec"].get("taints")))
        assert tainted["spec"]["taints"][0]["key"] == "node.kubernetes.io/unschedulable"
        await small.create(workload("DaemonSet", space, "agent", {"template": template("agent")}))
        nodes = {n["metadata"]["name"] for n in await small.list(NODES)}
        pods = await ready_pods(small, space, len(nodes))
        assert {p["spec"]["nodeName"] for p in pods} == nodes
    finally:
        await small.patch(cordoned, {"spec": {"unschedulable": None}}, "merge")
    await eventually(lambda: small.get(cordoned), lambda n: not n["spec"].get("taints"))


async def test_a_daemon_stays_where_only_a_new_one_is_kept_off(small: Kube, space: str) -> None:
    node = Ref("v1", "Node", "gpu-1")
    ref = Ref.of(await small.create(workload("DaemonSet", space, "agent", {"template": template("agent")})))
    count = len(await small.list(NODES))
    before = {p["metadata"]["uid"] for p in await ready_pods(small, space, count)}
    taint = {"key": "example.com/broken", "effect": "NoSchedule"}
    await small.patch(node, {"spec": {"taints": [taint]}}, "merge")
    try:
        await eventually(
            lambda: small.get(ref), lambda d: d["status"].get("desiredNumberScheduled") == count - 1
        )
        assert {p["metadata"]["uid"] for p in await ready_pods(small, space, count)} == before
        await small.patch(node, {"spec": {"taints": [taint | {"effect": "NoExecute"}]}}, "merge")
        await ready_pods(small, space, count - 1)
    finally:
        await small.patch(node, {"spec": {"taints": None}}, "merge")


async def test_an_indexed_job_replaces_a_worker_of_the_same_index(small: Kube, space: str) -> None:
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    job = workload(
        "Job", space, "work", spec | {"template": template("work", restartPolicy="Never")}, "batch/v1"
    )
    ref = Ref.of(await small.create(job))
    label = "batch.kubernetes.io/job-completion-index"
    pods = await ready_pods(small, space, 3)
    assert sorted(p["metadata"]["labels"][label] for p in pods) == ["0", "1", "2"]
    victim = next(p for p in pods if p["metadata"]["labels"][label] == "1")
    await small.delete(Ref.of(victim))
    pods = await ready_pods(small, space, 3)
    assert sorted(p["metadata"]["labels"][label] for p in pods) == ["0", "1", "2"]
    counted = await eventually(lambda: small.get(ref), lambda j: j["status"].get("ready") == 3)
    assert counted["status"]["active"] == 3


def _names(pods: list[Object]) -> list[str]:
    return sorted(p["metadata"]["name"] for p in pods)


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
async def test_a_stateful_set_numbers_its_pods(policy: str, small: Kube, space: str) -> None:
    """In order, no pod is there before its predecessor is ready, and the last one goes first."""
    spec = {"replicas": 3, "podManagementPolicy": policy, "serviceName": "db", "template": template("db")}
    ref = Ref.of(await small.create(workload("StatefulSet", space, "db", spec)))
    pods = await ready_pods(small, space, 3)
    assert _names(pods) == ["db-0", "db-1", "db-2"]
    by_name = {p["metadata"]["name"]: p for p in pods}
    assert by_name["db-1"]["spec"]["hostname"] == "db-1"
    assert by_name["db-1"]["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    if policy == "OrderedReady":
        for before, after in (("db-0", "db-1"), ("db-1", "db-2")):
            ready = condition(by_name[before], "Ready")["lastTransitionTime"]
            assert ready <= by_name[after]["metadata"]["creationTimestamp"]
    gone = Ref.of(by_name["db-1"])
    await small.delete(gone)
    await eventually(lambda: small.find(gone), lambda pod: not pod or pod["metadata"]["uid"] != gone.uid)
    assert _names(await ready_pods(small, space, 3)) == ["db-0", "db-1", "db-2"]
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}}
    await small.patch(ref, image, "strategic")

    def updated(found: Object) -> bool:
        status = found["status"]
        return bool(status["currentRevision"] == status["updateRevision"]) and rolled(found, 3)

    await eventually(lambda: small.get(ref), updated)
    assert {p["spec"]["containers"][0]["image"] for p in await ready_pods(small, space, 3)} == {"two"}
    await small.patch(ref, {"spec": {"replicas": 1}}, "merge")
    assert _names(await ready_pods(small, space, 1)) == ["db-0"]


@pytest.mark.parametrize("end", ["fails", "is deleted", "is gone at once"])
async def test_a_job_without_patience_fails_with_its_first_pod(end: str, small: Kube, space: str) -> None:
    """A pod that is deleted is a failure, too (isPodFailed in pkg/controller/job/job_controller.go)."""
    spec = {"backoffLimit": 0, "template": template("work", restartPolicy="Never")}
    ref = Ref.of(await small.create(workload("Job", space, "work", spec, "batch/v1")))
    (pod,) = await ready_pods(small, space, 1)
    if end == "fails":
        await small.patch(Ref.of(pod), {"status": {"phase": "Failed"}}, "merge", subresource="status")
    else:
        await small.delete(Ref.of(pod), grace=0 if end == "is gone at once" else None)
    failed = await eventually(lambda: small.get(ref), lambda j: is_true(j, "Failed"))
    assert condition(failed, "Failed")["reason"] == "BackoffLimitExceeded"
    assert failed["status"]["failed"] == 1
    left = {p["metadata"]["name"] for p in await small.list(PODS, space)}
    assert left <= {pod["metadata"]["name"]}, "replaced"


async def test_what_fits_nowhere_waits_and_says_why(small: Kube, space: str) -> None:
    gpus = {"resources": {"limits": {"nvidia.com/gpu": "9"}}, "name": "c", "image": "i"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big", "namespace": space}}
    ref = Ref.of(await small.create(pod | {"spec": {"containers": [gpus]}}))
    waiting = await eventually(
        lambda: small.get(ref),
        lambda p: any(c.get("reason") == "Unschedulable" for c in p["status"].get("conditions", [])),
    )
    message = waiting["status"]["conditions"][0]["message"]
    assert message.startswith("0/6 nodes are available: ")
    assert "Insufficient nvidia.com/gpu" in message

    async def events() -> list[str]:
        return [e["reason"] for e in await small.list(EVENTS, space)]

    await eventually(events, lambda reasons: "FailedScheduling" in reasons)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("operator", "size", "fits"),
    [("Gt", "7", True), ("Gt", "8", False), ("Lt", "9", True), ("Lt", "many", False), ("NotIn", "8", False)],
)
def test_node_affinity_compares_numbers(operator: str, size: str, fits: bool) -> None:
    expression = {"key": "size", "operator": operator, "values": [size]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    node = {"metadata": {"name": "n", "labels": {"size": "8"}}, "spec": {}}
    assert (node_fits({"spec": {"affinity": affinity}}, node) is None) == fits


async def test_a_no_execute_taint_evicts_what_does_not_tolerate_it(small: Kube, space: str) -> None:
    specs = {"stays": {"tolerations": [{"operator": "Exists"}]}, "goes": {}}
    for name, extra in specs.items():
        spec = {"nodeName": "gpu-3", "containers": [{"name": "c", "image": "i"}], **extra}
        await small.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": space}, "spec": spec}
        )
    await ready_pods(small, space, 2)
    node = Ref("v1", "Node", "gpu-3")
    taint = {"key": "maintenance", "effect": "NoExecute"}
    await small.patch(node, {"spec": {"taints": [taint]}}, "merge")
    try:
        left = await eventually(lambda: small.list(PODS, space), lambda pods: len(pods) == 1)
        assert left[0]["metadata"]["name"] == "stays"
    finally:
        await small.patch(node, {"spec": {"taints": None}}, "merge")


async def test_pods_of_a_node_that_is_gone_are_forgotten(small: Kube, space: str) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"lost-{space}"}}
    ref = Ref.of(await small.create(node))
    spec = {"nodeName": ref.name, "containers": [{"name": "c", "image": "i"}]}
    await small.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lost", "namespace": space}, "spec": spec}
    )
    await small.delete(ref)
    await eventually(lambda: small.list(PODS, space), lambda pods: not pods)


async def test_a_mirror_pod_comes_back_and_a_slow_pod_takes_its_time(small: Kube, space: str) -> None:
    node = Ref("v1", "Node", "gpu-2")
    key = "sandbox.gameday.dev/static-pods"
    await small.patch(node, {"metadata": {"annotations": {key: "proxy"}}}, "merge")
    mirror = Ref("v1", "Pod", "proxy-gpu-2", "kube-system")
    first = await eventually(lambda: small.find(mirror), lambda p: p is not None and is_ready(p))
    assert first is not None
    await small.delete(mirror)
    again = await eventually(
        lambda: small.find(mirror),
        lambda p: p is not None and p["metadata"]["uid"] != first["metadata"]["uid"],
    )
    assert again is not None
    await small.patch(node, {"metadata": {"annotations": {key: None}}}, "merge")
    await small.delete(mirror)
    slow = {"name": "slow", "namespace": space, "annotations": {"sandbox.gameday.dev/stop-seconds": "1.5"}}
    spec = {"containers": [{"name": "c", "image": "i"}]}
    ref = Ref.of(await small.create({"apiVersion": "v1", "kind": "Pod", "metadata": slow, "spec": spec}))
    await ready_pods(small, space, 1)
    await small.delete(ref)
    ending = await small.get(ref)
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
    await eventually(lambda: small.find(ref), lambda p: p is None)


async def test_a_pods_containers_restart_in_place(small: Kube, embedded: Object, space: str) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": space}, "spec": spec}
    ref = Ref.of(await small.create(pod))
    await ready_pods(small, space, 1)
    url = f"{embedded['control']}/pods/{space}/p/restart"
    async with aiohttp.ClientSession() as session, session.post(url) as response:
        assert response.status == 200
    state = (await small.get(ref))["status"]["containerStatuses"][0]
    assert state["restartCount"] == 1
    assert state["lastState"]["terminated"]["exitCode"] == 143
