"""A control plane with a real node, on which Chaos Mesh's daemon runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from tests.controlplane.launch import apply_crds
from tests.support import platforms
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.systems import chaos_daemon, chaos_mesh
from tests.systems.chaos_mesh import RealChaosMesh

BYSTANDER = "bystander"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platforms.platform("node", tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="session")
async def kube(platform: Platform) -> AsyncIterator[Kube]:
    """A client of its own: the one of the folder above is for another cluster."""
    async with await Kube.connect(platform.kubeconfig) as client:
        yield client


@pytest.fixture(scope="session")
def node(platform: Platform) -> RealNode:
    return platform.node


@pytest.fixture(scope="session")
async def mesh(platform: Platform, kube: Kube, node: RealNode) -> AsyncIterator[RealChaosMesh]:
    """Its controllers; pods under pod-failure get an image that the node has not."""
    apply_crds(platform.kubectl, platform.kubeconfig)
    # No experiment may touch all nodes of a cluster; this one is only an object, without a daemon.
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": BYSTANDER}})
    async with chaos_mesh.running(platform.directory / "chaos-mesh", platform.kubeconfig, kube) as running:
        yield running


@pytest.fixture(scope="session")
async def daemon(mesh: RealChaosMesh, kube: Kube, node: RealNode) -> AsyncIterator[Path]:
    async with chaos_daemon.running(kube, node) as program:
        yield program
