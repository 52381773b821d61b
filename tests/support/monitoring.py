"""A real Prometheus for the tests, what it scrapes, and a line to it that can be cut."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from pathlib import Path

import pytest
from aiohttp import web

from gameday.platform.prometheus import Prometheus
from tests.support.children import Child
from tests.support.polling import eventually

RULES = """\
groups:
  - name: test
    interval: 200ms
    rules:
      - {alert: TooHot, expr: temperature > 50, for: 500ms, labels: {severity: page}}
      - {alert: Frozen, expr: temperature < 0, for: 10m}
      - {alert: NeverYet, expr: temperature > 1000}
"""


class Exporter:
    """Numbers for Prometheus to scrape; change `values`, keyed as in the text format."""

    def __init__(self) -> None:
        self.values: dict[str, float | str] = {"temperature": 20}
        self.scrapes = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self.scrapes += 1
        return web.Response(text="".join(f"{name} {value}\n" for name, value in self.values.items()))


class PrometheusServer:
    """Debian's Prometheus on a port of its own; its data outlives a stop."""

    def __init__(
        self,
        directory: Path,
        target: str,
        *,
        shows: str = "temperature",
        labels: dict[str, str] | None = None,
    ) -> None:
        """It scrapes `target` (host:port), of which a series named `shows` is awaited, and adds `labels`."""
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("needs prometheus: apt-get install prometheus")
        self._program, self._directory, self.port = program, directory, free_port()
        self._child: Child | None = None
        self._shows = shows
        (directory / "rules.yaml").write_text(RULES)
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "test", "static_configs": [{"targets": [target], "labels": labels or {}}]}
            ],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, and wait until it has scraped (it takes 5 s to look for its targets) for a second."""
        began = time.time()
        child = self.launch()

        async def scraped() -> bool:
            child.check()
            fresh = f"timestamp({self._shows} offset 1s) > {began}"
            return await client.ready() and bool(await client.instant(fresh))

        async with Prometheus(self.url) as client:
            await eventually(scraped)

    def launch(self, *options: str) -> Child:
        """Start it with these options besides, and wait for nothing."""
        command = [
            self._program,
            f"--config.file={self._directory}/prometheus.yml",
            f"--storage.tsdb.path={self._directory}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            *options,
        ]
        self._child = Child("prometheus", command, self._directory / "prometheus.log")
        return self._child

    def kill(self) -> None:
        """kill -9."""
        if self._child is not None:
            self._child.kill()
            self._child = None


class Wire:
    """A TCP line to a port that can be cut, can fall silent, and can be restored."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.silent = False  # what is sent arrives, nothing comes back
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse connections, and break the open ones."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer, False), self._pump(far_reader, writer, True))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= {writer, far_writer}
            for each in (writer, far_writer):
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        while chunk := await reader.read(2**16):
            if not (back and self.silent):
                writer.write(chunk)
                await writer.drain()
        writer.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
