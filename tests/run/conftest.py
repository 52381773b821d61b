"""What the tests of sampling share: a Prometheus that scrapes an exporter of the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.monitoring import Exporter, PrometheusServer


@pytest.fixture(scope="package")
async def exporter() -> AsyncIterator[Exporter]:
    """Scraped by `server`; a test leaves its temperature at 20."""
    exporter = Exporter()
    await exporter.start()
    yield exporter
    await exporter.stop()


@pytest.fixture(scope="package")
async def server(
    tmp_path_factory: pytest.TempPathFactory, exporter: Exporter
) -> AsyncIterator[PrometheusServer]:
    """A running Prometheus, shared."""
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{exporter.port}")
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def own_server(tmp_path: Path, exporter: Exporter) -> AsyncIterator[PrometheusServer]:
    """A running Prometheus that the test may kill."""
    server = PrometheusServer(tmp_path, f"127.0.0.1:{exporter.port}")
    await server.start()
    yield server
    server.kill()
