"""A Slurm node is the Kubernetes node that its platform says, whatever the two are called."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.faults.slurm_targets import victim
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.slurm.decode import node_line
from gameday.platform.slurm.hosts import HOSTNAME, hosts
from gameday.platform.slurm.model import Node
from gameday.platform.world import World
from tests.platform.arrange import unique
from tests.support.kinds import Served, serving

LINE = (
    "NodeName=slinky-0 Arch=x86_64 State=IDLE Partitions=all Gres=gpu:h100:8 Reason=tired [root@now] "
    'Comment={"namespace":"slurm","podName":"pods-7","node":"gpu-3"} Extra=x'
)


def slurm(name: str, comment: str = "") -> Node:
    return Node(name, frozenset({"IDLE"}), gpus=4, comment=comment)


def comment(namespace: str, pod: str, node: str) -> str:
    return json.dumps({"namespace": namespace, "podName": pod, "node": node, "nodeSetName": "s"})


@pytest.fixture
async def space(kube: Kube) -> AsyncIterator[str]:
    name = unique("slinky")
    meta = {"name": name}
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield name
    await kube.delete(Ref("v1", "Namespace", name))


async def pod(kube: Kube, namespace: str, name: str, node: str, hostname: str = "", **meta: Any) -> None:
    spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "slurmd", "image": "slurmd"}]}
    spec |= {"hostname": hostname} if hostname else {}
    meta = {"name": name, "namespace": namespace, **meta}
    await kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def test_the_comment_is_read_from_scontrols_text() -> None:
    read = node_line(LINE)
    assert (read.reason, json.loads(read.comment)["podName"]) == ("tired", "pods-7")


async def test_by_the_pod_in_the_comment_and_by_the_label(kube: Kube, space: str) -> None:
    await pod(kube, space, "pods-0", "gpu-1", labels={HOSTNAME: "other"})
    await pod(kube, space, "pods-1", "gpu-2", labels={HOSTNAME: "slinky-1"})
    found = await hosts(
        [
            slurm("slinky-0", comment(space, "pods-0", "gpu-9")),  # an old comment: the pod went to gpu-1
            slurm("slinky-1"),
            slurm("gpu-0", comment(space, "gone", "gpu-3")),  # the name of another node
            slurm("gpu-4"),
            slurm("bare-1"),
            slurm("gpu-5", "a person's words"),
        ],
        kube,
    )
    assert found == {
        "slinky-0": "gpu-1",
        "slinky-1": "gpu-2",
        "gpu-0": "gpu-3",
        "gpu-4": "gpu-4",
        "bare-1": "",
        "gpu-5": "gpu-5",
    }


NODE_SETS = Served("sunk.coreweave.com/v1alpha1", "NodeSet", "nodesets")


@pytest.fixture
async def sunk(kube: Kube) -> AsyncIterator[None]:
    """The API server knows SUNK's NodeSets."""
    async with serving(kube, [NODE_SETS]):
        yield


async def test_sunks_pods_have_their_slurm_nodes_names(kube: Kube, space: str, sunk: None) -> None:
    owner = {"apiVersion": "sunk.coreweave.com/v1alpha1", "kind": "NodeSet", "name": "s", "uid": "u"}
    references = [{**owner, "controller": True}]
    held = ["example.com/hold"]  # the owner is none, so the garbage collector wants the pod
    await pod(kube, space, "h100-001-02", "gpu-2", ownerReferences=references, finalizers=held)
    await pod(kube, space, "h100-001-03", "gpu-3")
    found = await hosts([slurm("h100-001-02"), slurm("h100-001-03")], kube)
    released = {"metadata": {"finalizers": None}}
    await kube.patch(Ref("v1", "Pod", "h100-001-02", space), released, "merge")
    assert found == {"h100-001-02": "gpu-2", "h100-001-03": ""}


async def test_the_target_and_its_gpus_are_those_of_the_host(kube: Kube, space: str) -> None:
    await pod(kube, space, "pods-1", "gpu-2", labels={HOSTNAME: "slinky-1"})
    node = slurm("slinky-1")
    world = World(kube, node_selector="nvidia.com/gpu.present=true")
    found = await victim(node, (await hosts([node], kube))["slinky-1"], world)
    assert (str(found.ref), found.node, found.gpus) == ("Node gpu-2", "gpu-2", 8)
