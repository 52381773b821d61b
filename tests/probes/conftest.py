"""What the probes' tests share: a web server of the test's, a Prometheus, and a world to measure in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gameday.platform.prometheus import Prometheus
from tests.support.monitoring import Exporter, PrometheusServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a server that answers everything with one handler; gives its URL."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


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
