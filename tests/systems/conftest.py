"""Real controllers run beside a real control plane whose kubelets are simulated, shared by all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gameday.platform.kube import Kube
from tests.support import platforms
from tests.support.platforms import Platform
from tests.systems import applications, chaos_mesh
from tests.systems import argocd as real
from tests.systems import cluster_api as real_cluster_api
from tests.systems import kueue as real_kueue
from tests.systems import rollouts as real_rollouts
from tests.systems.argocd import RealArgoCD
from tests.systems.chaos_mesh import RealChaosMesh
from tests.systems.cluster_api import RealClusterAPI
from tests.systems.kueue import RealJobSet, RealKueue
from tests.systems.rollouts import RealRollouts


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A control plane and simulated kubelets; no simulated controllers, and no Prometheus."""
    with platforms.platform("systems", tmp_path_factory.mktemp("systems")) as running:
        yield running


@pytest.fixture(scope="session")
async def prepared(kube: Kube) -> None:
    """The namespaces of these tests; those on the real node have another cluster, and their own."""
    await applications.prepare(kube)


@pytest.fixture(scope="session")
async def argocd(platform: Platform, kube: Kube, prepared: None) -> AsyncIterator[RealArgoCD]:
    async with real.running(platform.directory / "argocd", platform.kubeconfig, kube) as running:
        yield running


@pytest.fixture(scope="session")
async def mesh(platform: Platform, kube: Kube) -> AsyncIterator[RealChaosMesh]:
    async with chaos_mesh.running(platform.directory / "chaos-mesh", platform.kubeconfig, kube) as running:
        yield running


@pytest.fixture(scope="session")
async def rollouts(platform: Platform, kube: Kube, prepared: None) -> AsyncIterator[RealRollouts]:
    async with real_rollouts.running(platform.directory, platform.kubeconfig, kube) as running:
        yield running


@pytest.fixture(scope="session")
async def cluster_api(platform: Platform, kube: Kube, prepared: None) -> AsyncIterator[RealClusterAPI]:
    async with real_cluster_api.running(
        platform.directory / "cluster-api", platform.kubeconfig, kube
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def jobset(platform: Platform, kube: Kube) -> AsyncIterator[RealJobSet]:
    controller = RealJobSet(platform.directory / "jobset", platform.kubeconfig)
    async with real_kueue.running(controller, kube):
        yield controller


@pytest.fixture(scope="session")
async def kueue(platform: Platform, kube: Kube, jobset: RealJobSet) -> AsyncIterator[RealKueue]:
    """Kueue, which looks for the kinds of jobs that it manages when it starts."""
    controller = RealKueue(platform.directory / "kueue", platform.kubeconfig)
    async with real_kueue.running(controller, kube):
        yield controller
