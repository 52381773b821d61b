"""A real Prometheus beside the sandbox: scrapes and evaluates each second, dies with its parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gameday.platform.prometheus import Prometheus as Client

RULES = Path(__file__).with_name("rules.yaml")
INSTALL = (
    "the sandbox needs Prometheus (2.40 or newer) and found no `prometheus` on PATH: install it (Debian and "
    "Ubuntu: `apt-get install prometheus`; macOS: `brew install prometheus`), or leave it out with "
    "--no-prometheus, which leaves probes of Prometheus without an answer"
)
READY_WITHIN = 30.0  # seconds
STOP_WITHIN = 5.0


class PrometheusError(Exception):
    """Prometheus is missing or doesn't start; the text says what to do."""


class Prometheus:
    """One server with its own configuration, port and data under `directory`."""

    def __init__(self, directory: Path, targets: str, jobs: Iterable[str]) -> None:
        """`targets`: host:port of the fleet's metrics pages; `jobs`: the names of those pages."""
        self._directory = directory
        self._targets = targets
        self._jobs = list(jobs)
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, again if it was stopped, with the data it had. Returns when it is ready to answer."""
        if self.running:
            return
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError(INSTALL)
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._configuration(), sort_keys=False))
        with (self._directory / "prometheus.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                "--storage.tsdb.retention.time=7d",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-lifecycle",
                "--log.level=warn",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        await self._until_ready()

    async def stop(self) -> None:
        """End it; kill it when it takes too long."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def begin(self, openmetrics: str) -> None:
        """Fresh data that hold these samples of the past; without promtool there is just no past."""
        data = self._directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        program = shutil.which("promtool")
        if program is None:
            return
        source = self._directory / "history.txt"
        source.write_text(openmetrics)
        process = await asyncio.create_subprocess_exec(
            program,
            *("tsdb", "create-blocks-from", "openmetrics", "--quiet", str(source), str(data)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
        source.unlink()

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        async with Client(self.url) as client:
            while self.running and time.monotonic() < deadline:
                if await client.ready(timeout=1.0):
                    return
                await asyncio.sleep(0.05)
        tail = (self._directory / "prometheus.log").read_text(errors="replace")[-800:].strip()
        raise PrometheusError(f"Prometheus did not become ready on {self.url}; it said: {tail or 'nothing'}")

    def _configuration(self) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = [
            {
                "job_name": name,
                "metrics_path": f"/metrics/{name}",
                "static_configs": [{"targets": [self._targets]}],
            }
            for name in self._jobs
        ]
        discovery = {"url": f"http://{self._targets}/targets/inference", "refresh_interval": "1s"}
        jobs.append({"job_name": "inference", "http_sd_configs": [discovery]})
        return {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when its parent is gone (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
