"""Every effect is in the plan, and what the file does not allow is refused: by the program, from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.platform.arrange import pod, running, unique
from tests.support.kinds import Served, serving
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

ISTIO = "networking.istio.io/v1"
SPACES = ["platform", "training", "inference"]
NODES = {"selector": "nvidia.com/gpu.present=true"}
NO_EXECUTE = {
    "taint": {
        "nodes": {"names": ["gpu-0"]},
        "key": "gameday.dev/broken",
        "effect": "NoExecute",
        "force": True,
    },
    "for": "1s",
}


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 4, ended.output
    assert not ended.of("change")
    for word in words:
        assert word in " ".join(ended.output.split())


async def plan(gameday: Program, folder: Path, *method: dict[str, Any], **spec: Any) -> Ended:
    return await asyncio.to_thread(gameday, "plan", write(folder, method=list(method), **spec))


@asynccontextmanager
async def made(kube: Kube, obj: Object) -> AsyncIterator[Ref]:
    ref = Ref.of(await kube.create(obj))
    try:
        yield ref
    finally:
        await kube.delete(ref, grace=0)


@asynccontextmanager
async def running_on(kube: Kube, node: str, namespace: str, **spec: Any) -> AsyncIterator[Ref]:
    ref = await running(kube, pod(namespace, node=node, **spec))
    try:
        yield ref
    finally:
        await kube.delete(ref, grace=0)


def taint(tolerate_for: int | None = None) -> list[Object]:
    toleration: Object = {"key": "gameday.dev/broken", "operator": "Exists", "effect": "NoExecute"}
    return [toleration | ({} if tolerate_for is None else {"tolerationSeconds": tolerate_for})]


async def test_a_taint_that_ends_pods_elsewhere(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: `pods: 0`, and 20 pods in four namespaces ended without a word."""
    async with running_on(kube, "gpu-0", "default") as ref:
        ended = await plan(gameday, tmp_path, NO_EXECUTE, blastRadius={"nodes": 1, "gpus": 8})
        refused(ended, "namespace default is outside the target", f"Pod default/{ref.name}")
        assert await kube.find(ref)


async def test_a_taint_is_held_to_the_number_of_pods(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method, radius = [NO_EXECUTE], {"nodes": 1, "gpus": 8, "pods": 0}
    refused(gameday.run(write(tmp_path, method=method, blastRadius=radius)), "pods (at most 0")


async def test_a_taint_spares_those_that_tolerate_it(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """For ever, or for longer than it stands; one that tolerates it for a second does not stay."""
    async with (
        running_on(kube, "gpu-0", "default", tolerations=taint()),
        running_on(kube, "gpu-0", "default", tolerations=taint(10_000)),
        running_on(kube, "gpu-0", "default", tolerations=taint(1)) as lost,
    ):
        ended = await plan(gameday, tmp_path, NO_EXECUTE, blastRadius={"nodes": 1, "gpus": 8})
    refused(ended, f"touches 1 of its objects: Pod default/{lost.name}")


async def test_a_service_whose_requests_fail(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    fault = {"virtualService": "inference", "namespace": "inference", "abort": {"httpStatus": 503}}
    step = {"istio": fault, "for": "1s"}
    refused(
        await plan(gameday, tmp_path, step, blastRadius={}),
        "Service inference/inference",
        "abort 100% with 503",
        "spec.blastRadius.services: [inference/inference]",
    )
    allowed = await plan(gameday, tmp_path, step, blastRadius={"services": ["inference/inference"]})
    assert allowed.code == 0, allowed.output


async def test_pods_whose_owner_is_in_no_namespace(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """An owner reference gives no namespace: that of its pod was asked for, and the answer was of none."""
    kind = Served(f"f{uuid4().hex[:8]}.example.com/v1", "Fleet", "fleets", namespaced=False)
    fleet = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": unique("fleet")}}
    step = {"podKill": {"selector": "app=of-fleet", "namespace": "training", "force": True}}
    async with serving(kube, [kind]), made(kube, fleet) as owner:
        reference = {**owner.to_data(), "controller": True}
        member = pod("training", {"app": "of-fleet"}, node="gpu-0")
        member["metadata"]["ownerReferences"] = [reference]
        async with made(kube, member):
            ended = await plan(gameday, tmp_path, step)
            assert ended.code == 0, ended.output
            assert f"{owner}: 1 pod" in " ".join(ended.output.split())
            await kube.patch(owner, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
            refused(await plan(gameday, tmp_path, step), f"{owner} carries the label gameday.dev/protect")


def _routes(name: str, *http: Object, namespace: str = "inference", **spec: Any) -> Object:
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": ISTIO,
        "kind": "VirtualService",
        "metadata": meta,
        "spec": {**spec, "http": [*http]},
    }


def _abort(name: str) -> dict[str, Any]:
    return {
        "istio": {"virtualService": name, "namespace": "inference", "abort": {"httpStatus": 503}},
        "for": "1s",
    }


@pytest.mark.parametrize("space", ["", "training", "default"])
async def test_a_route_that_is_left_to_a_delegate(
    space: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    root, below = unique("root"), unique("pay")
    where = space or "inference"  # short names of hosts are those of the delegate's namespace
    led = {
        "route": [{"destination": {"host": "pay"}}, {"destination": {"host": "old.shop.svc.cluster.local"}}]
    }
    delegate = {"name": below, **({"namespace": space} if space else {})}
    async with (
        made(kube, _routes(below, led, namespace=where)) as ref,
        made(kube, _routes(root, {"name": "pay", "delegate": delegate}, hosts=["shop.example.com"])),
    ):
        step = _abort(root)
        services = [f"{where}/pay", "shop/old"]
        refused(
            await plan(gameday, tmp_path, step, blastRadius={}),
            *(f"spec.blastRadius.services: [{s}]" for s in services),
        )
        ended = await plan(gameday, tmp_path, step, blastRadius={"services": services})
        if space == "default":
            refused(ended, "namespace default is outside the target", str(ref))
        else:
            assert ended.code == 0, ended.output


@pytest.mark.parametrize(
    "route",
    [
        {"redirect": {"authority": "elsewhere.example.com"}},
        {"directResponse": {"status": 200}},
        {"delegate": {"name": "nobody"}},
        {"delegate": {"name": "inference"}},  # which has hosts of its own, and so is none
    ],
    ids=lambda r: next(iter(r)),
)
async def test_a_route_that_leads_to_no_service(
    route: Object, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    name = unique("root")
    async with made(kube, _routes(name, {"name": "away", **route}, hosts=["shop.example.com"])):
        refused(
            await plan(gameday, tmp_path, _abort(name), blastRadius={}),
            "route away, which leads to no service",
            f"spec.blastRadius.others: [{name}]",
        )
        allowed = await plan(gameday, tmp_path, _abort(name), blastRadius={"others": [name]})
        assert allowed.code == 0, allowed.output


async def test_a_quota_of_nothing(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": unique("quota"), "namespace": "platform"},
        "spec": {"hard": {"pods": "100"}},
    }
    async with made(kube, quota) as ref:
        step = {"quota": {"name": ref.name, "namespace": "platform", "hard": {"pods": "0"}}, "for": "1s"}
        refused(
            await plan(gameday, tmp_path, step, blastRadius={}), "spec.blastRadius.namespaces: [platform]"
        )
        allowed = await plan(gameday, tmp_path, step, blastRadius={"namespaces": ["platform"]})
        assert allowed.code == 0, allowed.output


async def test_a_partition_that_starts_no_jobs(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"slurm": {"holdPartition": {"name": "gpu"}}, "for": "1s"}
    refused(
        await plan(gameday, tmp_path, step, blastRadius={}),
        "no job starts on its 8 nodes with 64 GPUs",
        "spec.blastRadius.partitions: [gpu]",
    )


async def test_a_container_of_a_workflow(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    selector = {"namespaces": ["platform"], "labelSelectors": {"app": "job-queue-controller"}}
    templates = [
        {"name": "entry", "templateType": "Serial", "children": ["task", "kill"]},
        {
            "name": "task",
            "templateType": "Task",
            "task": {"container": {"name": "c", "image": "evil:1", "command": ["sh"]}},
        },
        {
            "name": "kill",
            "templateType": "PodChaos",
            "podChaos": {"action": "pod-kill", "mode": "one", "selector": selector},
        },
    ]
    step = {"chaosMesh": {"kind": "Workflow", "spec": {"entry": "entry", "templates": templates}}}
    refused(
        await plan(gameday, tmp_path, step, blastRadius={"pods": 1}),
        "runs any container: evil:1",
        "spec.blastRadius.others: [task]",
    )


async def test_gpus_are_bounded_where_nobody_names_them(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
    refused(await plan(gameday, tmp_path, step, blastRadius={"nodes": 1}), "8 gpus (at most 0")


async def test_nodes_that_are_down_already_are_lost_capacity(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
    node = Ref("v1", "Node", "gpu-5")
    await kube.patch(node, {"spec": {"unschedulable": True}}, "merge")
    try:
        ended = await plan(gameday, tmp_path, step, blastRadius={"nodes": 1, "gpus": 16})
        refused(ended, "2 nodes, 1 of them down already (at most 1")
    finally:
        await kube.patch(node, {"spec": {"unschedulable": None}}, "merge")


async def test_a_share_is_of_the_pods_that_run(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Two of six is more than 30%, however many others have finished."""
    namespace = unique("share")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "controller": True}
    async with made(kube, space):
        holder = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o", "namespace": namespace}}
        uid = (await kube.create(holder))["metadata"]["uid"]
        for number in range(12):
            obj = pod(namespace, {"app": "share"})
            obj["metadata"]["ownerReferences"] = [owner | {"name": "o", "uid": uid}]
            ref = await running(kube, obj)
            if number >= 6:
                await kube.patch(ref, {"status": {"phase": "Succeeded"}}, "merge", subresource="status")
        step = {"podKill": {"selector": "app=share", "namespace": namespace, "pick": 2}}
        target = {"namespaces": [namespace], "nodes": NODES}
        ended = await plan(gameday, tmp_path, step, target=target, blastRadius={"pods": "30%"})
        refused(ended, "2 pods (at most 1, of 6)")
        for found in await kube.list(PODS, namespace):
            await kube.delete(Ref.of({"apiVersion": "v1", "kind": "Pod"} | found), grace=0)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("tolerations", "stays"),
    [
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        ([{"key": "a", "operator": "Exists"}], None),
        ([{"key": "a", "value": "1"}], None),
        ([{"key": "a", "value": "2"}], 0.0),
        ([{"key": "a", "value": "1", "effect": "NoSchedule"}], 0.0),
        ([{"key": "a", "operator": "Exists", "tolerationSeconds": 30}], 30.0),
        ([{"operator": "Exists"}, {"key": "a", "operator": "Exists", "tolerationSeconds": 5}], 5.0),
        ([{"key": "a", "operator": "Exists", "tolerationSeconds": -1}], 0.0),
    ],
)
def test_how_long_a_pod_tolerates_a_taint(tolerations: list[Object], stays: float | None) -> None:
    from gameday.faults.losing import tolerated_for

    taint = {"key": "a", "value": "1", "effect": "NoExecute"}
    assert tolerated_for({"spec": {"tolerations": tolerations}}, taint) == stays
