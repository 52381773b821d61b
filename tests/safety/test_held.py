"""A bound on GPUs holds for every GPU that is held, however it is asked for: by the program, from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.text import plural
from gameday.platform.effect import Effect, Kind
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import NODES, PODS
from gameday.safety.held import of_nodes, with_claims
from tests.platform.arrange import deployment, unique
from tests.safety.test_effects import made, plan, refused
from tests.support.kinds import Served, create, serving
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

API, SPACE, NODE = "resource.k8s.io/v1", "training", "gpu-1"
DRA = (
    Served(API, "ResourceClaim", "resourceclaims"),
    Served(API, "ResourceClaimTemplate", "resourceclaimtemplates"),
    Served(API, "ResourceSlice", "resourceslices", False, ("spec.nodeName", "spec.driver")),
    Served(API, "DeviceClass", "deviceclasses", False),
)


@asynccontextmanager
async def holding(kube: Kube, limits: dict[str, str], **more: Any) -> AsyncIterator[Ref]:
    """A Deployment of one pod on a node, bound there without a scheduler."""
    obj = deployment(SPACE, replicas=1)
    obj["spec"]["paused"] = False
    spec = obj["spec"]["template"]["spec"]
    spec |= {"nodeName": NODE, "tolerations": [{"operator": "Exists"}], **more}
    spec["containers"][0]["resources"] = {"limits": limits}
    ref = Ref.of(await kube.create(obj))
    try:
        await eventually(lambda: pods(kube, ref))
        yield ref
    finally:
        await kube.delete(ref)
        for pod in await pods(kube, ref):
            await kube.delete(Ref.of(pod), grace=0)
        await eventually(lambda: pods(kube, ref), lambda found: not found)


async def pods(kube: Kube, owner: Ref) -> list[Object]:
    return await kube.list(PODS, SPACE, labels=f"app={owner.name}")


def kill(owner: Ref) -> dict[str, Any]:
    return {"podKill": {"selector": f"app={owner.name}", "namespace": SPACE}}


def scale(owner: Ref) -> dict[str, Any]:
    return {
        "scale": {"workload": f"deployment/{owner.name}", "namespace": SPACE, "replicas": 0},
        "for": "1s",
    }


@pytest.mark.parametrize("name", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "habana.ai/gaudi"])
async def test_resources_that_were_not_counted(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot, name: str
) -> None:
    """It was: `gpus: 0`, and the pods that hold MIG devices were killed."""
    async with holding(kube, {name: "2"}) as owner:
        for step in (kill(owner), scale(owner)):
            ended = await plan(gameday, tmp_path, step, blastRadius={"pods": 1, "gpus": 1})
            refused(ended, "the plan touches 2 gpus (at most 1)")
            allowed = await plan(gameday, tmp_path, step, blastRadius={"pods": 1, "gpus": 2})
            assert allowed.code == 0, allowed.output


@pytest.fixture
async def dra(platform: Platform, kube: Kube) -> AsyncIterator[None]:
    """The kinds of dynamic resource allocation, without its scheduler: claims say what the test writes."""
    if platform.name != "sandbox":
        pytest.skip("a real control plane allocates by itself: see tests/e2e/test_gpu_device_taint.py")
    async with serving(kube, DRA):
        yield


def claim_of(pod: Object, *devices: Object) -> tuple[Object, Object]:
    """A claim that is reserved for a pod, and its status."""
    meta = pod["metadata"]
    claim = {
        "apiVersion": API,
        "kind": "ResourceClaim",
        "metadata": {"name": unique("claim"), "namespace": SPACE},
        "spec": {},
    }
    results = [
        {"driver": "gpu.nvidia.com", "pool": NODE, "device": f"gpu-{i}", **d} for i, d in enumerate(devices)
    ]
    status = {
        "allocation": {"devices": {"results": results}},
        "reservedFor": [{"resource": "pods", "name": meta["name"], "uid": meta["uid"]}],
    }
    return claim, status


async def test_devices_of_claims(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot, dra: None
) -> None:
    """Those for administrators are taken from nobody; those of a network are no GPUs.

    What the scheduler claimed for an extended resource is among the pod's requests already.
    """
    async with holding(kube, {"cpu": "1"}) as owner:
        (pod,) = await pods(kube, owner)
        claim, status = claim_of(pod, {}, {}, {"adminAccess": True}, {"driver": "dra.net"})
        ref = await create(kube, claim, **status)
        extended, status = claim_of(pod, {}, {})
        extended["metadata"]["annotations"] = {"resource.kubernetes.io/extended-resource-claim": "true"}
        await create(kube, extended, **status)
        ended = await plan(gameday, tmp_path, kill(owner), blastRadius={"pods": 1, "gpus": 1})
        refused(ended, "the plan touches 2 gpus (at most 1)")
        allowed = await plan(gameday, tmp_path, kill(owner), blastRadius={"pods": 1, "gpus": 2})
        assert allowed.code == 0, allowed.output
        await kube.delete(ref)


async def test_devices_that_nobody_can_count(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot, dra: None
) -> None:
    async with holding(kube, {"cpu": "1"}) as owner:
        (pod,) = await pods(kube, owner)
        claim, status = claim_of(pod, {"driver": "devices.acme.example"})
        ref = await create(kube, claim, **status)
        radius: dict[str, Any] = {"pods": 1, "gpus": 8}
        ended = await plan(gameday, tmp_path, kill(owner), blastRadius=radius)
        refused(ended, "nobody can say how many of them are GPUs", "others: [devices.acme.example]")
        radius = radius | {"others": ["devices.acme.example"]}
        allowed = await plan(gameday, tmp_path, kill(owner), blastRadius=radius)
        assert allowed.code == 0, allowed.output
        await kube.delete(ref)


@pytest.mark.parametrize(
    ("request_", "gpus", "words"),
    [
        ({"exactly": {"deviceClassName": "gpu.nvidia.com", "count": 3}}, 3, ""),
        ({"exactly": {"deviceClassName": "gpu.nvidia.com"}}, 1, ""),
        ({"exactly": {"deviceClassName": "gpu.nvidia.com", "adminAccess": True}}, 0, ""),
        ({"exactly": {"deviceClassName": "ours", "count": 2}}, 2, ""),
        ({"firstAvailable": [{"deviceClassName": "gpu.nvidia.com", "count": n} for n in (1, 4)]}, 4, ""),
        (
            {"exactly": {"deviceClassName": "gpu.nvidia.com", "allocationMode": "All"}},
            8,
            "others: [ResourceClaimTemplate/wanted]",
        ),
        ({"exactly": {"deviceClassName": "theirs"}}, 8, "others: [theirs]"),
    ],
)
async def test_what_a_template_of_claims_asks_for(
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
    dra: None,
    request_: Object,
    gpus: int,
    words: str,
) -> None:
    """A workload that is scaled down loses what each of its pods asks for."""
    made = [
        {
            "apiVersion": API,
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": "wanted", "namespace": SPACE},
            "spec": {"spec": {"devices": {"requests": [{"name": "gpu", **request_}]}}},
        },
        {
            "apiVersion": API,
            "kind": "DeviceClass",
            "metadata": {"name": "ours"},
            "spec": {"selectors": [{"cel": {"expression": 'device.driver == "gpu.nvidia.com"'}}]},
        },
    ]
    refs = [await create(kube, obj) for obj in made]
    claims = [{"name": "gpu", "resourceClaimTemplateName": "wanted"}]
    async with holding(kube, {"cpu": "1"}, resourceClaims=claims) as owner:
        radius = {"pods": 1, "gpus": gpus}
        ended = await plan(gameday, tmp_path, scale(owner), blastRadius=radius)
        if words:
            refused(ended, words)
        else:
            assert ended.code == 0, ended.output
            if gpus:
                ended = await plan(gameday, tmp_path, scale(owner), blastRadius=radius | {"gpus": gpus - 1})
                refused(ended, f"the plan touches {plural(gpus, 'gpu')} (at most")
    for ref in refs:
        await kube.delete(ref)


async def test_a_rollout_whose_template_is_another_workloads(
    kube: Kube, world_unchanged: Snapshot, dra: None
) -> None:
    """Its pods claim what the template over there asks for."""
    claim = {
        "apiVersion": API,
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "wanted", "namespace": SPACE},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "deviceClassName": "gpu.nvidia.com"}]}}},
    }
    app = deployment(SPACE)
    claims = [{"name": "gpu", "resourceClaimTemplateName": "wanted"}]
    app["spec"]["template"]["spec"]["resourceClaims"] = claims
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": app["metadata"]["name"]}
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": unique("rollout"), "namespace": SPACE},
        "spec": {"replicas": 0, "workloadRef": reference},
    }
    async with made(kube, claim), made(kube, app), made(kube, rollout) as ref:
        (effect,) = await with_claims([Effect(Kind.WORKLOAD, ref, gpus=0, pods=3)], kube)
    assert effect.gpus == 3


async def test_a_node_whose_gpus_a_driver_publishes(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot, dra: None
) -> None:
    """Parts of one GPU are that GPU; a pool's older generation is gone."""
    parts = [{"name": f"part-{i}", "consumesCounters": [{"counterSet": f"set-{i % 5}"}]} for i in range(20)]
    whole = [{"name": f"gpu-{i}"} for i in range(5)]
    refs = []
    for generation, devices in ((1, [{"name": f"old-{i}"} for i in range(99)]), (2, [*parts, *whole])):
        spec = {
            "driver": "gpu.nvidia.com",
            "nodeName": NODE,
            "pool": {"name": NODE, "generation": generation, "resourceSliceCount": 1},
            "devices": devices,
        }
        meta = {"name": unique("slice")}
        refs.append(
            await create(kube, {"apiVersion": API, "kind": "ResourceSlice", "metadata": meta, "spec": spec})
        )
    step = {"cordon": {"nodes": {"names": [NODE]}}, "for": "1s"}
    refused(
        await plan(gameday, tmp_path, step, blastRadius={"nodes": 1, "gpus": 8}), "the plan touches 10 gpus"
    )
    for ref in refs:
        await kube.delete(ref)


async def test_a_slice_of_several_nodes_says_of_each_device_where_it_is(
    kube: Kube, world_unchanged: Snapshot, dra: None
) -> None:
    spec = {
        "driver": "gpu.nvidia.com",
        "perDeviceNodeSelection": True,
        "pool": {"name": "rack", "generation": 1, "resourceSliceCount": 1},
        "devices": [
            *({"name": f"here-{i}", "nodeName": NODE} for i in range(12)),
            {"name": "there", "nodeName": "gpu-2"},
            {"name": "everywhere", "allNodes": True},
        ],
    }
    meta = {"name": unique("slice")}
    ref = await create(kube, {"apiVersion": API, "kind": "ResourceSlice", "metadata": meta, "spec": spec})
    try:
        nodes = await kube.list(NODES, fields={"metadata.name": NODE})
        assert await of_nodes(kube, nodes) == {NODE: 12}
    finally:
        await kube.delete(ref)
