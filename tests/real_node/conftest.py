"""Tests of a real node run on the platform that has one, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from tests.real_node import links
from tests.support import snapshot
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.support.polling import eventually

SPACE = "gameday"
BYSTANDER = "bystander"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the other platforms these tests are counted as deselected: `make test-node` runs them."""
    if config.getoption("--platform") == "node":
        return
    mine = [item for item in items if HERE in item.path.parents]
    items[:] = [item for item in items if HERE not in item.path.parents]
    config.hook.pytest_deselected(items=mine)


@pytest.fixture(scope="session", autouse=True)
def _only_on_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("a real node needs Linux: its containers share this machine's kernel")


@pytest.fixture(scope="session")
def node(platform: Platform) -> RealNode:
    return platform.node


@pytest.fixture(scope="session", autouse=True)
async def _another_node(_only_on_linux: None, kube: Kube) -> None:
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


@pytest.fixture(scope="session")
def pairs(node: RealNode) -> Iterator[None]:
    with links.pairs(node):
        yield


@pytest.fixture(params=links.LINKS)
def link(request: pytest.FixtureRequest, node: RealNode, pairs: None) -> Iterator[str]:
    """A link with an address and a route through it, which the kernel forgets when it goes down."""
    name: str = request.param
    node.ip(f"address add 192.0.2.1/24 dev {name}")
    node.ip(f"-6 address add 2001:db8::1/64 dev {name} nodad")
    node.ip(f"route add {links.ROUTE} via 192.0.2.2 dev {name}")
    before = links.state(node, name)
    try:
        yield name
        assert links.state(node, name) == before
    finally:
        node.ip(f"address flush dev {name}")
