"""Chaos Mesh's stand-in writes the statuses, records and finalizers that upstream's controllers write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any
from uuid import uuid4

import pytest

from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready, is_true
from gameday.platform.resources import PODS
from tests.support.polling import eventually

API = "chaos-mesh.org/v1alpha1"


@pytest.fixture(scope="module")
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """One for all these tests: a real one takes seconds to go."""
    name = f"chaos-{uuid4().hex[:6]}"
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", name)))
    yield name
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda found: found is None)


@pytest.fixture
async def space(kube: Kube, namespace: str) -> AsyncIterator[str]:
    """A namespace with three pods, each on a node with a chaos-daemon."""
    for index in range(3):
        await kube.create(pod(namespace, f"target-{index}", f"gpu-{index}"))
    await eventually(lambda: kube.list(PODS, namespace), lambda pods: all(is_ready(p) for p in pods))
    yield namespace
    for left in await kube.list(PODS, namespace):
        await kube.delete(Ref.of(left), grace=0)
    await eventually(lambda: kube.list(PODS, namespace), lambda pods: not pods)


def pod(space: str, name: str, node: str) -> Object:
    metadata = {"name": name, "namespace": space, "labels": {"app": "target"}}
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "example.com/main:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def chaos(kind: str, space: str, **spec: Any) -> Object:
    selector = {"namespaces": [space], "labelSelectors": {"app": "target"}}
    metadata = {"name": f"{kind.lower()}-{uuid4().hex[:6]}", "namespace": space}
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": metadata,
        "spec": {"mode": "all", "selector": selector, **spec},
    }


def delay(space: str, **spec: Any) -> Object:
    return chaos("NetworkChaos", space, action="delay", delay={"latency": "100ms"}, **spec)


def conditions(obj: Object) -> dict[str, bool]:
    return {c["type"]: c["status"] == "True" for c in obj.get("status", {}).get("conditions", [])}


async def injected(kube: Kube, ref: Ref) -> Object:
    return await eventually(lambda: kube.get(ref), lambda o: is_true(o, "AllInjected"))


async def test_it_is_injected_runs_out_and_goes(kube: Kube, space: str) -> None:
    ref = Ref.of(await kube.create(delay(space, duration="2s")))
    running = await injected(kube, ref)
    assert running["metadata"]["finalizers"] == ["chaos-mesh/records"]
    assert conditions(running) == {
        "Selected": True,
        "AllInjected": True,
        "AllRecovered": False,
        "Paused": False,
    }
    experiment = running["status"]["experiment"]
    assert experiment["desiredPhase"] == "Run"
    assert {r["id"] for r in experiment["containerRecords"]} == {f"{space}/target-{i}" for i in range(3)}
    over = await eventually(lambda: kube.get(ref), lambda o: is_true(o, "AllRecovered"))
    assert over["status"]["experiment"]["desiredPhase"] == "Stop"
    assert {r["recoveredCount"] for r in over["status"]["experiment"]["containerRecords"]} == {1}
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda o: o is None)


async def test_deleting_it_recovers_first(kube: Kube, space: str) -> None:
    kind = await kube.resource(API, "NetworkChaos")
    ref = Ref.of(await kube.create(delay(space)))
    await injected(kube, ref)
    seen: list[tuple[str, Object]] = []

    async def watch() -> None:
        async for change, obj in follow(kube, kind, space):
            if change != "SYNCED" and obj["metadata"]["name"] == ref.name:
                seen.append((change, obj))

    watching = asyncio.create_task(watch())
    try:
        await eventually(lambda: _length(seen))
        assert not is_true(seen[-1][1], "AllRecovered")
        await kube.delete(ref)
        await eventually(lambda: _length([c for c, _ in seen if c == "DELETED"]))
    finally:
        watching.cancel()
    last = seen[-1][1]
    assert is_true(last, "AllRecovered")
    assert {r["recoveredCount"] for r in last["status"]["experiment"]["containerRecords"]} == {1}


async def test_without_a_daemon_on_the_node_it_stays_out_and_says_so(kube: Kube, space: str) -> None:
    node = Ref("v1", "Node", "gpu-2")
    label = "sandbox.gameday.dev/no-chaos-daemon"
    await kube.patch(node, {"metadata": {"labels": {label: "true"}}}, "merge")
    try:
        on_node = {"spec.nodeName": "gpu-2"}
        await eventually(lambda: kube.list(PODS, "chaos-mesh", fields=on_node), lambda pods: not pods)
        ref = Ref.of(await kube.create(delay(space)))
        waiting = await eventually(lambda: kube.get(ref), lambda o: bool(_last_message(o)))
        assert _last_message(waiting) == "cannot find daemonIP on node gpu-2"
        phases = [r["phase"] for r in waiting["status"]["experiment"]["containerRecords"]]
        assert phases == ["Injected", "Injected", "Not Injected/Wait"]
        assert not is_true(waiting, "AllInjected")
        await kube.delete(ref)
        still = await eventually(lambda: kube.get(ref), lambda o: "deletionTimestamp" in o["metadata"])
        assert still["metadata"]["finalizers"] == ["chaos-mesh/records"]
    finally:
        await kube.patch(node, {"metadata": {"labels": {label: None}}}, "merge")
    await eventually(lambda: kube.find(ref), lambda o: o is None)  # the daemon is back


def _last_message(obj: Object) -> str:
    """What the last record has to say, if its last event was a failure."""
    records = obj.get("status", {}).get("experiment", {}).get("containerRecords") or [{}]
    events = records[-1].get("events") or [{}]
    return str(events[-1].get("message", ""))


async def test_a_stuck_recovery_keeps_the_finalizer_until_it_is_forced(kube: Kube, space: str) -> None:
    obj = delay(space)
    obj["metadata"]["annotations"] = {"sandbox.gameday.dev/stuck": "true"}
    ref = Ref.of(await kube.create(obj))
    await injected(kube, ref)
    await kube.delete(ref)
    stuck = await eventually(lambda: kube.get(ref), lambda o: "unable to flush" in _last_message(o))
    assert stuck["status"]["experiment"]["containerRecords"][0]["phase"] == "Injected/Wait"
    forced = {"metadata": {"annotations": {"chaos-mesh.chaos-mesh.org/cleanFinalizer": "forced"}}}
    await kube.patch(ref, forced, "merge")
    await eventually(lambda: kube.find(ref), lambda o: o is None)


async def test_pod_failure_swaps_the_image_and_gives_it_back(kube: Kube, space: str) -> None:
    ref = Ref.of(await kube.create(chaos("PodChaos", space, action="pod-failure", duration="1m")))
    await injected(kube, ref)
    broken = await eventually(lambda: kube.list(PODS, space), lambda pods: not any(map(is_ready, pods)))
    assert {p["spec"]["containers"][0]["image"] for p in broken} == {"gcr.io/google-containers/pause:latest"}
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda o: o is None)
    healed = await eventually(lambda: kube.list(PODS, space), lambda pods: all(map(is_ready, pods)))
    assert {p["spec"]["containers"][0]["image"] for p in healed} == {"example.com/main:1"}
    assert not any(p["metadata"].get("annotations") for p in healed)
    assert {p["status"]["containerStatuses"][0]["restartCount"] for p in healed} == {2}


async def test_pod_kill_of_a_share(kube: Kube, space: str) -> None:
    ref = Ref.of(
        await kube.create(chaos("PodChaos", space, action="pod-kill", mode="fixed-percent", value="50"))
    )
    await injected(kube, ref)
    await eventually(lambda: kube.list(PODS, space), lambda pods: len(pods) == 1)
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda o: o is None)


async def test_container_kill_restarts_the_container_in_its_pod(kube: Kube, space: str) -> None:
    def seen(pods: list[Object]) -> dict[str, int]:
        return {p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["restartCount"] for p in pods}

    before = seen(await kube.list(PODS, space))
    made = await kube.create(chaos("PodChaos", space, action="container-kill", containerNames=["main"]))
    after = await eventually(lambda: kube.list(PODS, space), lambda pods: set(seen(pods).values()) == {1})
    assert seen(after).keys() == before.keys()
    ended = after[0]["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert ended["exitCode"] != 0
    await kube.delete(Ref.of(made))


async def test_nothing_selected(kube: Kube, space: str) -> None:
    obj = delay(space)
    obj["spec"]["selector"]["labelSelectors"] = {"app": "nobody"}
    ref = Ref.of(await kube.create(obj))
    looked = await eventually(lambda: kube.get(ref), lambda o: bool(conditions(o)))
    assert not is_true(looked, "Selected")
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda o: o is None)


async def test_a_paused_one_recovers_and_comes_back(kube: Kube, space: str) -> None:
    ref = Ref.of(await kube.create(delay(space)))
    await injected(kube, ref)
    key = "experiment.chaos-mesh.org/pause"
    await kube.patch(ref, {"metadata": {"annotations": {key: "true"}}}, "merge")
    paused = await eventually(lambda: kube.get(ref), lambda o: is_true(o, "AllRecovered"))
    assert is_true(paused, "Paused")
    await kube.patch(ref, {"metadata": {"annotations": {key: None}}}, "merge")
    await injected(kube, ref)
    await kube.delete(ref)


async def test_a_schedule_and_a_workflow_make_their_experiments(kube: Kube, space: str) -> None:
    spec = delay(space, duration="1s")["spec"]
    schedule = {
        "apiVersion": API,
        "kind": "Schedule",
        "metadata": {"name": "often", "namespace": space},
        "spec": {
            "schedule": "@every 1s",
            "type": "NetworkChaos",
            "historyLimit": 1,
            "concurrencyPolicy": "Forbid",
            "networkChaos": spec,
        },
    }
    ref = Ref.of(await kube.create(schedule))
    kind = await kube.resource(API, "NetworkChaos")
    # By the label, since what an earlier test made may be on its way out still.
    await eventually(lambda: kube.list(kind, space, labels="managed-by=often"), bool)
    await kube.delete(ref)
    await eventually(lambda: kube.list(kind, space), lambda found: not found)
    serial = {"name": "entry", "templateType": "Serial", "children": ["slow"], "deadline": "20s"}
    slow = {
        "name": "slow",
        "templateType": "NetworkChaos",
        "deadline": "1s",
        "networkChaos": delay(space)["spec"],
    }
    flow = {
        "apiVersion": API,
        "kind": "Workflow",
        "metadata": {"name": "flow", "namespace": space},
        "spec": {"entry": "entry", "templates": [serial, slow]},
    }
    ref = Ref.of(await kube.create(flow))
    children = await eventually(lambda: kube.list(kind, space), lambda found: bool(found))
    assert children[0]["metadata"]["labels"]["chaos-mesh.org/workflow"] == "flow"
    await eventually(lambda: kube.get(ref), lambda o: is_true(o, "Accomplished"))
    await eventually(lambda: kube.list(kind, space), lambda found: not found)
    await kube.delete(ref)


async def _length(made: Collection[object]) -> int:
    return len(made)


async def test_a_workflow_that_is_deleted_in_the_foreground_begins_again(kube: Kube, space: str) -> None:
    """As upstream's own controllers do: see tests/systems."""
    slow = {"name": "slow", "templateType": "NetworkChaos", "deadline": "30s"}
    meta = {"name": "again", "namespace": space}
    spec = {"entry": "slow", "templates": [slow | {"networkChaos": delay(space)["spec"]}]}
    ref = Ref.of(await kube.create({"apiVersion": API, "kind": "Workflow", "metadata": meta, "spec": spec}))
    kind = await kube.resource(API, "NetworkChaos")
    made: set[str] = set()

    async def watch() -> None:
        async for change, obj in follow(kube, kind, space):
            if change == "ADDED":
                made.add(obj["metadata"]["name"])

    watching = asyncio.create_task(watch())
    await eventually(lambda: _length(made))
    (entry,) = await kube.list(await kube.resource(API, "WorkflowNode"), space)
    # The deletion waits for the entry node: it would be over now and then before the controller sees it.
    kept = [*entry["metadata"].get("finalizers", ()), "example.com/held"]
    await kube.patch(Ref.of(entry), {"metadata": {"finalizers": kept}}, "merge")
    try:
        await kube.delete(ref, propagation="Foreground")
        await eventually(lambda: _length(made), lambda count: count > 1)
    finally:
        watching.cancel()
        await kube.patch(Ref.of(entry), {"metadata": {"finalizers": None}}, "merge")
    await eventually(lambda: kube.find(ref), lambda found: found is None)
    await eventually(lambda: kube.list(kind, space), lambda found: not found)
