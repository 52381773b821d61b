"""Tests of a real node run on the platform that has one, and are skipped on the others with the reason."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

SPACE = "gameday"


@pytest.fixture(scope="session", autouse=True)
def _only_where_there_is_a_node(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--platform") != "node":
        pytest.skip("about a real node: make test-node")
    if sys.platform != "linux":
        pytest.skip("a real node needs Linux: its containers share this machine's kernel")


@pytest.fixture(scope="session")
def node(platform: Platform) -> RealNode:
    return platform.node


@pytest.fixture(scope="session", autouse=True)
async def _another_node(kube: Kube) -> Ref:
    """No experiment may touch all nodes of a cluster; this one is only an object."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bystander"}}
    return Ref.of(await kube.create(node))


@pytest.fixture(scope="session")
async def settled(kube: Kube, _another_node: Ref) -> None:
    """The cluster changes no more by itself: the node that is none is called lost."""
    await eventually(lambda: kube.get(_another_node), lambda obj: len(obj["spec"].get("taints", ())) == 2)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    if await kube.find(Ref.of(space)) is None:  # the first run makes it, and it is meant to stay
        await kube.create(space)


@pytest.fixture
async def nothing_left(
    kube: Kube, node: RealNode, settled: None, world_unchanged: Snapshot
) -> AsyncIterator[None]:
    """No object of the cluster, and on the node neither a file nor a process of ours."""
    yield
    await eventually(lambda: _ours(kube), lambda names: not names)
    assert node.run("sh", "-c", "ls /var/lib/gameday 2>/dev/null || true") == ""
    assert node.processes("python3") == {}


async def _ours(kube: Kube) -> list[str]:
    """What programs on nodes are made of."""
    kinds = [await kube.resource("v1", kind) for kind in ("Pod", "ConfigMap", "ServiceAccount")]
    kinds += [await kube.resource("rbac.authorization.k8s.io/v1", kind) for kind in ("Role", "RoleBinding")]
    mine = "app.kubernetes.io/name=gameday-node"
    return [obj["metadata"]["name"] for kind in kinds for obj in await kube.list(kind, SPACE, labels=mine)]
