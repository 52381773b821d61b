"""What the probes' tests share: a web server of the test's, a Prometheus, and a world to measure in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gameday.platform.prometheus import Prometheus
from tests.support.answering import Serve, answering
from tests.support.monitoring import Exporter, PrometheusServer


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with answering() as start:
        yield start


@pytest.fixture(scope="package")
async def exporter() -> AsyncIterator[Exporter]:
    exporter = Exporter()
    exporter.values |= {'queue{name="a"}': 3, 'queue{name="b"}': "NaN", 'limit{name="a"}': "+Inf"}
    await exporter.start()
    yield exporter
    await exporter.stop()


@pytest.fixture(scope="package")
async def prometheus(
    tmp_path_factory: pytest.TempPathFactory, exporter: Exporter
) -> AsyncIterator[Prometheus]:
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{exporter.port}")
    await server.start()
    async with Prometheus(server.url) as client:
        yield client
    server.kill()
