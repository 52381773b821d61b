"""Tests of a real node run on the platform that has one, and are skipped on the others with the reason."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from gameday.platform.kube import Kube
from tests.support import snapshot
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.support.polling import eventually

SPACE = "gameday"
BYSTANDER = "bystander"


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
async def _another_node(_only_where_there_is_a_node: None, kube: Kube) -> None:
    """No experiment may touch all nodes of a cluster; this one is only an object."""
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": BYSTANDER}})
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    await kube.create(space)  # else made by the first run, and meant to stay


@pytest.fixture
async def nothing_left(kube: Kube, node: RealNode) -> AsyncIterator[None]:
    """The cluster's objects are as before, and on the node there is neither a file nor a process of ours."""
    before = await snapshot.take(kube)
    yield

    async def left() -> list[str]:
        changes = snapshot.differences(before, await snapshot.take(kube))
        # The cluster calls that node lost, and its taints come and go as it sees fit.
        return [change for change in changes if not change.startswith(f"Node {BYSTANDER}:")] + await _ours(
            kube
        )

    await eventually(left, lambda found: not found)
    assert node.run("sh", "-c", "ls /var/lib/gameday 2>/dev/null || true") == ""
    assert node.processes("python3") == {}


async def _ours(kube: Kube) -> list[str]:
    """What programs on nodes are made of."""
    kinds = [await kube.resource("v1", kind) for kind in ("Pod", "ConfigMap", "ServiceAccount")]
    kinds += [await kube.resource("rbac.authorization.k8s.io/v1", kind) for kind in ("Role", "RoleBinding")]
    mine = "app.kubernetes.io/name=gameday-node"
    return [obj["metadata"]["name"] for kind in kinds for obj in await kube.list(kind, SPACE, labels=mine)]
