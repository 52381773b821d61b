"""Either platform gives a test what it relies on: the same world, an API that comes and goes, kubectl."""

from __future__ import annotations

import asyncio
import os

from gameday.platform.errors import Unreachable
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import is_ready
from gameday.platform.resources import NODES
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot


async def kubectl(platform: Platform, *arguments: str) -> str:
    """What kubectl prints; fails with what it complained of."""
    process = await asyncio.create_subprocess_exec(
        platform.kubectl,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(platform.kubeconfig)},
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_the_same_world_is_on_both(kube: Kube, world_unchanged: Snapshot) -> None:
    nodes = await kube.list(NODES, labels="nvidia.com/gpu.present=true")
    assert len(nodes) == 8
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"8"}
    assert {
        "Deployment inference/inference",
        "Deployment platform/job-queue-controller",
        "DaemonSet chaos-mesh/chaos-daemon",
        "PodDisruptionBudget inference/inference",
        "Job training/trainer",
    } <= world_unchanged.keys()


async def test_the_api_server_comes_back_with_its_objects(
    platform: Platform, kube: Kube, world_unchanged: Snapshot
) -> None:
    kube.patience = 0.1
    try:
        await asyncio.to_thread(platform.stop_api)
        try:
            await kube.list(NODES)
            raise AssertionError("the API server still answers")
        except Unreachable:
            pass
        await asyncio.to_thread(platform.start_api)
        simulated = "sandbox.gameday.dev/simulated=true"  # other tests leave nodes that nobody runs
        await eventually(lambda: kube.list(NODES, labels=simulated), lambda nodes: all(map(is_ready, nodes)))
    finally:
        kube.patience = 5.0


async def test_kubectl_works(platform: Platform, world_unchanged: Snapshot) -> None:
    name = "configmap/by-kubectl"
    await kubectl(platform, "create", "configmap", "by-kubectl", "--from-literal=key=value")
    assert "key" in await kubectl(platform, "describe", name)
    assert "by-kubectl" in await kubectl(platform, "get", name, "-o", "wide")
    await kubectl(platform, "delete", name)


async def test_watches_that_break_are_taken_up_again(kube: Kube, api_proxy: ApiProxy) -> None:
    async with await Kube.connect(api_proxy.kubeconfig) as watcher:
        seen: list[str] = []

        async def hear() -> None:
            async for kind, node in follow(watcher, NODES):
                seen.append("synced" if kind == "SYNCED" else node["metadata"]["name"])

        task = asyncio.create_task(hear())
        try:

            async def synced() -> bool:
                return "synced" in seen

            async def watching() -> bool:
                return any("watch=1" in request for request in api_proxy.requests)

            await eventually(synced)
            await eventually(watching)  # the list ends first: without a watch there is nothing to break
            seen.clear()
            api_proxy.end_connections()
            await eventually(synced)
        finally:
            task.cancel()
