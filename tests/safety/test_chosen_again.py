"""What was approved is chosen again as far as it is there, whatever a free choice would fall on by now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform import sriov
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.sriov import NODE_STATES
from tests.e2e.experiments import write
from tests.platform.arrange import pod, running, unique
from tests.safety.test_effects import made, refused
from tests.safety.test_gate import keep, run
from tests.safety.test_kept_plan import patched
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

RESOURCE = "openshift.io/mlnx_rdma"
RADIUS = {"nodes": 2, "pods": 8, "gpus": 64, "namespaces": ["training"], "partitions": ["gpu"]}
NODE_STATE = "openshift-sriov-network-operator"
SEED = 4  # with which each free choice falls on another one by then


def steps_of(kept: Path) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(kept.read_text())["steps"]
    return steps


def ports_of(kept: Path) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = steps_of(kept)[0]["data"]["ports"]
    return ports


def evidence(ended: Ended) -> str:
    assert ended.code == 0, ended.output
    (seen,) = [e["evidence"] for e in ended.of("fault") if e["state"] == "in"]
    return " ".join(seen)


async def kept_of(
    gameday: Program, folder: Path, step: dict[str, Any], seed: int = SEED
) -> tuple[Path, Path]:
    file = write(folder, method=[{**step, "for": "1s"}], blastRadius=RADIUS)
    return file, await keep(gameday, file, "--seed", str(seed))


# -- pods that lead to nodes -------------------------------------------------------------------------


@asynccontextmanager
async def pods_on(kube: Kube, label: str, **nodes: str) -> AsyncIterator[None]:
    """Pods of these names, each on its node."""
    async with AsyncExitStack() as stack:
        for name, node in nodes.items():
            obj = pod("training", {"app": label}, node=node)
            obj["metadata"]["name"] = f"{name}-{label}"
            ref = await running(kube, obj)
            stack.push_async_callback(kube.delete, ref, grace=0)
        yield


OTHERS = {"a": "gpu-7", "b": "gpu-7", "c": "gpu-7"}


def lossy(label: str) -> dict[str, Any]:
    pods = {"selector": f"app={label}", "namespace": "training", "pick": 1}
    return {"nic": {"pod": pods, "interface": "ens9f0", "loss": "1%"}}


async def test_the_node_below_an_approved_pod(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    label = unique("below")
    async with pods_on(kube, label, z="gpu-6"):
        file, kept = await kept_of(gameday, tmp_path, lossy(label))
        async with pods_on(kube, label, **OTHERS):
            ended = await run(gameday, file, "--plan", kept)
    assert "gpu-6: " in evidence(ended)
    assert ended.of("fault")[0]["targets"] == ["Node gpu-6"]


async def test_no_pod_is_left_on_an_approved_node(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    label = unique("below")
    async with pods_on(kube, label, z="gpu-6"):
        file, kept = await kept_of(gameday, tmp_path, lossy(label))
    async with pods_on(kube, label, **OTHERS):
        refused(await run(gameday, file, "--plan", kept), "in training on gpu-6 may be touched now")


# -- links and VFs of a node -------------------------------------------------------------------------


@asynccontextmanager
async def without(kube: Kube, node: str, *interfaces: str) -> AsyncIterator[None]:
    """No VF of these interfaces serves the resource: their SriovNetworkNodePolicy was changed, say."""
    ref = Ref(NODE_STATES.api_version, NODE_STATES.kind, node, NODE_STATE)
    before = (await kube.get(ref))["spec"]["interfaces"]
    after = [{**i, "vfGroups": []} if i["name"] in interfaces else i for i in before]
    async with patched(kube, ref, {"spec": {"interfaces": after}}, {"spec": {"interfaces": before}}):
        yield


def served(node: str, fault: str) -> dict[str, Any]:
    change = {"vf": {"vlan": 100}, "nic": {"mtu": 1500}}[fault]
    return {fault: {"nodes": {"names": [node]}, "resource": RESOURCE, **change}}


@pytest.mark.parametrize("fault", ["vf", "nic"])
async def test_the_approved_link_or_vf_of_a_node(
    fault: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file, kept = await kept_of(gameday, tmp_path, served("gpu-7", fault))
    (port,) = ports_of(kept)
    states = await sriov.node_states(kube, "gpu-7")
    others = {v.pf for v in sriov.functions(states["gpu-7"])} - {port["interface"]}
    async with without(kube, "gpu-7", *sorted(others)[:2]):
        ended = await run(gameday, file, "--plan", kept)
    name = f"VF {port['vf']} of {port['interface']}" if fault == "vf" else port["interface"]
    assert name in evidence(ended)


@pytest.mark.parametrize("fault", ["vf", "nic"])
async def test_an_approved_link_or_vf_that_is_none_any_more(
    fault: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file, kept = await kept_of(gameday, tmp_path, served("gpu-7", fault))
    (port,) = ports_of(kept)
    async with without(kube, "gpu-7", port["interface"]):
        what = {"vf": "VFs", "nic": "links"}[fault]
        said = f"none of what was approved is left of the {what} of gpu-7 that match: plan again"
        refused(await run(gameday, file, "--plan", kept), said)


# -- Slurm's nodes -----------------------------------------------------------------------------------


@asynccontextmanager
async def another_node(kube: Kube, name: str) -> AsyncIterator[None]:
    """A node like gpu-7, which joins Slurm's partition."""
    like = await kube.get(Ref("v1", "Node", "gpu-7"))
    labels = {k: v for k, v in like["metadata"]["labels"].items() if k != "kubernetes.io/hostname"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    async with made(kube, {**node, "spec": {"unschedulable": True}}) as ref:
        sizes = {k: like["status"][k] for k in ("capacity", "allocatable")}
        await kube.patch(ref, {"status": sizes}, "merge", subresource="status")
        yield


@pytest.mark.parametrize("pick", [1, "all"])
async def test_the_approved_nodes_of_a_partition(
    pick: Any, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    drain = {"slurm": {"drain": {"partition": "gpu", "pick": pick}}, "for": "1s"}
    file = write(
        tmp_path, method=[drain], blastRadius={**RADIUS, "nodes": 9, "gpus": 72}
    )  # one is down already
    kept = await keep(gameday, file, "--seed", str(SEED))
    approved = [f"Node {v['ref']['name']}" for v in steps_of(kept)[0]["victims"]]
    async with another_node(kube, "gpu-00"):
        ended = await run(gameday, file, "--plan", kept)
    assert evidence(ended)
    assert ended.of("fault")[0]["targets"] == approved


# -- Chaos Mesh's targets ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{"mode": "all"}, {"mode": "fixed-percent", "value": "100"}])
async def test_no_more_pods_of_a_chaos_than_were_approved(
    mode: dict[str, str], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    label = unique("chaos")
    selector = {"namespaces": ["training"], "labelSelectors": {"app": label}}
    spec = {"action": "pod-failure", "selector": selector, **mode}
    async with pods_on(kube, label, z="gpu-6"):
        file, kept = await kept_of(gameday, tmp_path, {"chaosMesh": {"kind": "PodChaos", "spec": spec}})
        async with pods_on(kube, label, **OTHERS):
            ended = await run(gameday, file, "--plan", kept)
    assert evidence(ended)
    assert ended.of("fault")[0]["targets"] == [f"Pod training/z-{label}"]
