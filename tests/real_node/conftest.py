"""Tests of a real node run on the platform that has one, and are skipped on the others with the reason."""

from __future__ import annotations

import sys

import pytest

from gameday.platform.kube import Kube
from tests.support.node import RealNode
from tests.support.platforms import Platform


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
async def _another_node(kube: Kube) -> None:
    """No experiment may touch all nodes of a cluster; this one is only an object."""
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bystander"}})
