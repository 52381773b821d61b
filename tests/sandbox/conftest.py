"""A sandbox of its own for tests that would spoil the shared one, and questions that several tests ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.prometheus import Prometheus
from gameday.sandbox.platform import Options
from gameday.sandbox.platform import platform as bring_up
from tests.support.platforms import Platform

Ask = Callable[[str], Awaitable[float | None]]


@pytest.fixture(scope="session")
async def embedded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Object]:
    """The embedded API with its controllers and a fleet, in this process: no Prometheus, no workloads."""
    options = Options(tmp_path_factory.mktemp("embedded"), nodes=4, prometheus=False, workloads=False)
    async with bring_up(options, lambda _: None) as described:
        yield described


@pytest.fixture(scope="session")
async def small(embedded: Object) -> AsyncIterator[Kube]:
    """A client of `embedded`."""
    async with await Kube.connect(embedded["kubeconfig"]) as client:
        yield client


@pytest.fixture
async def ask(platform: Platform) -> AsyncIterator[Ask]:
    """The value of a query that gives one series, from the platform's Prometheus; None when it gives none."""
    async with Prometheus(platform.prometheus_url) as prometheus:

        async def value(expression: str) -> float | None:
            found = await prometheus.instant(expression)
            return found[0][1] if found else None

        yield value


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "sandbox"
