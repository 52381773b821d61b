"""A kept plan is asked as much as a new one: whatever its objects have become since is held against it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform import sriov
from gameday.platform.devices import gpus
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.platform.arrange import pod, unique
from tests.safety.test_effects import made, refused, running_on
from tests.safety.test_gate import keep, run
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

QUEUE = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")
WORKLOAD = {"workload": f"deployment/{QUEUE.name}", "namespace": QUEUE.namespace}
RADIUS = {
    "nodes": 2,
    "pods": 8,
    "gpus": 64,
    "namespaces": ["platform"],
    "services": ["inference/inference"],
}


@asynccontextmanager
async def patched(kube: Kube, ref: Ref, body: Object, back: Object) -> AsyncIterator[None]:
    await kube.patch(ref, body, "merge")
    try:
        yield
    finally:
        await kube.patch(ref, back, "merge")


async def refused_once(
    gameday: Program,
    folder: Path,
    step: dict[str, Any],
    change: AbstractAsyncContextManager[Any],
    *words: str,
    **spec: Any,
) -> None:
    """A plan is kept, its objects change, and its run is refused in these words before anything is done."""
    file = write(folder, method=[{"for": "1s", **step}], **{"blastRadius": RADIUS, **spec})
    kept = await keep(gameday, file)
    async with change:
        refused(await run(gameday, file, "--plan", kept), *words)


# -- objects that are not any more what the plan was made from ---------------------------------------


@pytest.mark.parametrize(
    ("wanted", "now", "words"),
    [
        (0, 1, "spec.replicas was 2 when it was planned, and is 1 now"),
        (1, 3, "spec.replicas was 2 when it was planned, and is 3 now"),
        (3, 4, "would end, which was not approved"),
        (0, 0, "has 0 replicas already: nothing would change"),
    ],
    ids=["fewer", "more", "the other way", "as wanted"],
)
async def test_a_workload_of_another_size(
    wanted: int,
    now: int,
    words: str,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    step = {"scale": {**WORKLOAD, "replicas": wanted}}
    sizes = ({"spec": {"replicas": n}} for n in (now, 2))
    await refused_once(gameday, tmp_path, step, patched(kube, QUEUE, *sizes), words)


async def test_what_is_to_be_warned_of_by_now_is_told(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Less than was approved may be done; somebody else's cordon stays."""
    step = {"cordon": {"nodes": {"names": ["gpu-6", "gpu-7"]}}, "for": "1s"}
    file, node = (
        write(tmp_path, method=[step], blastRadius={"nodes": 2, "gpus": 16}),
        Ref("v1", "Node", "gpu-7"),
    )
    kept = await keep(gameday, file)
    async with patched(kube, node, *({"spec": {"unschedulable": on}} for on in (True, None))):
        ended = await run(gameday, file, "--plan", kept)
        assert (await kube.get(node))["spec"]["unschedulable"]
    assert ended.code == 0, ended.output
    said = [e["message"] for e in ended.of("preflight") if e["level"] == "warning"]
    assert "step 1: gpu-7: cordon is in force already, and will be left so" in said


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("80", "spec.hard.pods was 100 when it was planned, and is 80 now"),
        ("40", "allows 40 of pods; 50 would be 50, which is no less"),
    ],
)
async def test_a_quota_that_was_lowered_since(
    now: str, words: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with made(kube, _quota("100")) as ref:
        hard = ({"spec": {"hard": {"pods": n}}} for n in (now, "100"))
        step = {"quota": {"name": ref.name, "namespace": "platform", "hard": {"pods": "50"}}}
        await refused_once(gameday, tmp_path, step, patched(kube, ref, *hard), words)


async def test_a_share_of_a_quota_is_what_it_came_to_when_it_was_approved(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with made(kube, _quota("100")) as ref:

        async def used() -> int:
            return int(((await kube.get(ref)).get("status") or {}).get("used", {}).get("pods", 0))

        before = await eventually(used, lambda count: count > 0)
        step = {"quota": {"name": ref.name, "namespace": "platform", "hard": {"pods": "100%"}}, "for": "1s"}
        file = write(tmp_path, method=[step], blastRadius=RADIUS)
        kept = await keep(gameday, file)
        async with made(kube, pod("platform")):
            await eventually(used, lambda count: count > before)
            ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output
    (change,) = [e for e in ended.of("change") if e["state"] == "made"]
    assert f"spec.hard.pods: 100 → {before}" in change["summary"]


def _quota(pods: str) -> Object:
    meta = {"name": unique("quota"), "namespace": "platform"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": pods}}}


@asynccontextmanager
async def emptied(kube: Kube, node: Ref) -> AsyncIterator[None]:
    """A node that takes no pods, and on which nobody holds a GPU."""

    async def holders() -> list[Object]:
        return [p for p in await kube.list(PODS, fields={"spec.nodeName": node.name}) if gpus(p)]

    async with patched(kube, node, *({"spec": {"unschedulable": on}} for on in (True, None))):
        for holder in await holders():
            await kube.delete(Ref.of({"apiVersion": "v1", "kind": "Pod"} | holder), grace=0)
        await eventually(holders, lambda found: not found)
        yield


async def test_a_node_whose_gpus_somebody_holds_by_now(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    node = Ref("v1", "Node", "gpu-6")
    step = {"gpu": {"nodes": {"names": [node.name]}, "mig": {"config": "all-1g.10gb"}}}
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    async with emptied(kube, node):
        holder = running_on(kube, node.name, "training", containers=[{"name": "a", "image": "a", **limits}])
        await refused_once(gameday, tmp_path, step, holder, "gpu-6: GPUs are held by 1 pod")


async def test_a_machine_that_nobody_would_replace_any_more(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pool = "node.cluster.x-k8s.io/pool=elastic"
    target = {"namespaces": ["platform", "training", "inference"], "nodes": {"selector": pool}}
    machines = await kube.resource("cluster.x-k8s.io/v1beta2", "Machine")
    (machine,) = await kube.list(machines)
    cluster = Ref(machine["apiVersion"], "Cluster", machine["spec"]["clusterName"], "platform")
    await refused_once(
        gameday,
        tmp_path,
        {"machine": {"nodes": {"selector": pool}}},
        patched(kube, cluster, {"spec": {"paused": True}}, {"spec": {"paused": None}}),
        "is paused (spec.paused)",
        target=target,
    )


async def test_a_route_into_which_somebody_else_injects_by_now(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ref = Ref("networking.istio.io/v1", "VirtualService", "inference", "inference")
    routes = (await kube.get(ref))["spec"]["http"]
    theirs = {"abort": {"httpStatus": 418, "percentage": {"value": 1}}}
    await refused_once(
        gameday,
        tmp_path,
        {"istio": {"virtualService": "inference", "namespace": "inference", "abort": {"httpStatus": 503}}},
        patched(
            kube,
            ref,
            {"spec": {"http": [{**routes[0], "fault": theirs}, *routes[1:]]}},
            {"spec": {"http": routes}},
        ),
        'was unset when it was planned, and is {"abort": {"httpStatus": 418',
    )


async def test_a_field_that_drifted_by_itself(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ref = Ref("apps/v1", "Deployment", "inference", "inference")
    drift = {"resource": "deployment/inference", "namespace": "inference", "path": "spec.minReadySeconds"}
    before = (await kube.get(ref))["spec"].get("minReadySeconds")
    seconds = ({"spec": {"minReadySeconds": n}} for n in (1, before))
    await refused_once(
        gameday,
        tmp_path,
        {"argocd": {"drift": {**drift, "value": 7}}},
        patched(kube, ref, *seconds),
        "spec.minReadySeconds was unset when it was planned, and is 1 now",
    )


# -- who uses a VF -----------------------------------------------------------------------------------


async def _trainer(kube: Kube) -> Object:
    found = await kube.list(PODS, "training", labels="app=trainer", fields={"status.phase": "Running"})
    return next(p for p in found if sriov.attachments(p))


def _attached(found: Object, pci: str | None) -> Object:
    """A patch by which a pod's network is this device instead of its own, or none."""
    ours = sriov.attachments(found)[0].pci
    status = found["metadata"]["annotations"][sriov.STATUS].replace(ours, pci) if pci else "[]"
    return {"metadata": {"annotations": {sriov.STATUS: status}}}


@asynccontextmanager
async def _other_user(kube: Kube, user: Object, other: Object) -> AsyncIterator[None]:
    """Another pod has the VF of this one, which has none meanwhile."""
    annotations = {sriov.STATUS: user["metadata"]["annotations"][sriov.STATUS]}
    other["metadata"]["annotations"] = annotations
    back = {"metadata": {"annotations": annotations}}
    async with patched(kube, Ref.of(user), _attached(user, None), back), made(kube, other):
        yield


def _disabled(user: Object) -> dict[str, Any]:
    """A step on the VF of a pod, named by its address."""
    nodes = {"names": [user["spec"]["nodeName"]]}
    return {"vf": {"nodes": nodes, "pciAddress": sriov.attachments(user)[0].pci, "state": "disable"}}


async def test_a_vf_that_another_pod_uses_by_now(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Named by its address: it is somebody else's pod that would lose its network."""
    user = await _trainer(kube)
    taken_over = _other_user(kube, user, pod("training", node=user["spec"]["nodeName"]))
    await refused_once(gameday, tmp_path, _disabled(user), taken_over, "and is Pod training/pod-")


async def test_a_protected_pod_that_uses_the_vf_by_now(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Of the same controller: each may take the other's place, but not one that is protected."""
    user = await _trainer(kube)
    other = pod("training", {"gameday.dev/protect": "true"}, node=user["spec"]["nodeName"])
    other["metadata"]["ownerReferences"] = user["metadata"]["ownerReferences"]
    taken_over = _other_user(kube, user, other)
    await refused_once(
        gameday, tmp_path, _disabled(user), taken_over, "carries the label gameday.dev/protect"
    )


async def test_the_vf_that_a_named_pod_has_by_now(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The pod got another one since the plan: the one that it had is somebody else's, or nobody's."""
    user = await _trainer(kube)
    name, node = user["metadata"]["name"], user["spec"]["nodeName"]
    had = sriov.attachments(user)[0].pci
    used = {pci for at, pci in sriov.users(await kube.list(PODS)) if at == node}
    states = await sriov.node_states(kube, node)
    vfs = sriov.functions(states[node])
    before = next(v for v in vfs if v.pci == had)
    after = next(v for v in vfs if v.pci not in used and v.resource == before.resource)
    vf = {"pod": {"name": name, "namespace": "training"}, "pick": "all", "state": "disable"}
    step = {"vf": vf, "for": "1s"}
    file = write(tmp_path, method=[step], blastRadius=RADIUS)
    kept = await keep(gameday, file)
    async with patched(kube, Ref.of(user), _attached(user, after.pci), _attached(user, had)):
        ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output
    (seen,) = [e["evidence"] for e in ended.of("fault") if e["state"] == "in"]
    assert f"VF {after.number} of {after.pf}: state disable" in " ".join(seen)
    assert f"VF {before.number} of {before.pf}:" not in " ".join(seen)


# -- within a run ------------------------------------------------------------------------------------


async def test_what_changes_while_the_run_waits_is_not_injected_into(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"scale": {**WORKLOAD, "replicas": 1}, "for": "1s"}
    file = write(tmp_path, method=[{"wait": "4s"}, step], blastRadius=RADIUS)
    with gameday.started(file) as running:
        await asyncio.to_thread(running.until, lambda e: e["type"] == "step-started", "the wait begins")
        sizes = ({"spec": {"replicas": n}} for n in (3, 2))
        async with patched(kube, QUEUE, *sizes):
            ended = await asyncio.to_thread(running.ended)
    assert ended.code == 3, ended.output
    text = " ".join(ended.output.split())
    assert "spec.replicas was 2 when it was planned, and is 3 now" in text
    assert not ended.of("change")


async def test_steps_beside_each_other_on_one_node_are_their_own_doing(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Planned by itself the second would be refused by now, since the first has cordoned the node."""
    nodes = {"nodes": {"names": ["gpu-6"]}}
    drain = {"drain": {**nodes, "deleteEmptyDirData": True, "force": True}, "for": "1s"}
    method = [{"parallel": [{"cordon": nodes, "for": "8s"}, {"sequence": [{"wait": "3s"}, drain]}]}]
    file = write(tmp_path, method=method)
    kept = await keep(gameday, file)
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output


async def test_a_step_in_force_beside_hides_no_refusal_but_that_it_is_so_already(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    node = Ref("v1", "Node", "gpu-6")
    nodes = {"nodes": {"names": [node.name]}}
    mig = {"gpu": {**nodes, "mig": {"config": "all-1g.10gb"}}, "for": "1s"}
    taint = {"taint": {**nodes, "key": "gameday.dev/broken", "effect": "NoSchedule"}, "for": "60s"}
    method = [{"parallel": [taint, {"sequence": [{"wait": "15s"}, mig]}]}]
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    containers = [{"name": "a", "image": "a", **limits}]
    async with emptied(kube, node):
        with gameday.started(write(tmp_path, method=method, blastRadius=RADIUS)) as running:
            await asyncio.to_thread(running.fault_is, "in")
            async with running_on(kube, node.name, "training", containers=containers):
                ended = await asyncio.to_thread(running.ended)
    assert ended.code == 3, ended.output
    assert "gpu-6: GPUs are held by 1 pod" in " ".join(ended.output.split())
    assert not any("mig.config" in e["summary"] for e in ended.of("change"))


async def test_a_step_in_force_beside_hides_no_other_user_of_a_vf(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The steps share the node, where a VF that nobody uses is the node's."""
    user = await _trainer(kube)
    node = user["spec"]["nodeName"]
    vf = {"vf": {"nodes": {"names": [node]}, "resource": "openshift.io/mlnx_rdma", "pick": "all", "vlan": 5}}
    cordon = {"cordon": {"nodes": {"names": [node]}}, "for": "40s"}
    method = [{"parallel": [cordon, {"sequence": [{"wait": "10s"}, {**vf, "for": "1s"}]}]}]
    with gameday.started(write(tmp_path, method=method, blastRadius=RADIUS)) as running:
        await asyncio.to_thread(running.fault_is, "in")
        async with _other_user(kube, user, pod("training", node=node)):
            ended = await asyncio.to_thread(running.ended)
    assert ended.code == 3, ended.output
    assert "and is Pod training/pod-" in " ".join(ended.output.split())
    assert {e["step"] for e in ended.of("fault") if e["state"] == "in"} == {"1.1"}


async def test_a_successor_takes_the_place_of_an_approved_pod(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    kill = {"selector": "app=job-queue-controller", "namespace": "platform", "pick": "all", "grace": 0}
    file = write(tmp_path, method=[{"podKill": kill, "for": "1s"}])
    kept = await keep(gameday, file)
    approved = {v["ref"]["uid"] for v in json.loads(kept.read_text())["steps"][0]["victims"]}
    assert len(approved) == 2
    for found in await _queue_pods(kube):
        await kube.delete(Ref.of(found), grace=0)

    def replaced(found: list[Object]) -> bool:
        return len(found) == 2 and all(is_ready(p) and p["metadata"]["uid"] not in approved for p in found)

    await eventually(lambda: _queue_pods(kube), replaced)
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output


async def _queue_pods(kube: Kube) -> list[Object]:
    found = await kube.list(PODS, "platform", labels="app=job-queue-controller")
    return [{"apiVersion": "v1", "kind": "Pod"} | p for p in found]
