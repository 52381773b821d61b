"""A GPU platform without a cluster: simulated nodes and workloads behind a real API and a real Prometheus.

`python -m gameday.sandbox` runs one; `sandbox()` runs that as a child process, so that the platform outlives
whatever is killed in a test, and its load is its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gameday.platform.errors import PlatformError

STOP_WITHIN = 10.0  # seconds


class SandboxError(PlatformError):
    """The sandbox did not start; the text says why, in its own words."""


@dataclass(frozen=True)
class Sandbox:
    """Where a running sandbox is. `prometheus_url` is empty when it runs without."""

    kubeconfig: Path
    context: str
    api_url: str
    prometheus_url: str
    metrics_url: str
    control_url: str
    directory: Path
    gpud_url: str = ""  # of each node's GPUd, with {node} for its name
    slurm_url: str = ""  # slurmrestd's
    slurm_token: str = ""  # for whoever is to ask it

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which gameday and kubectl find it."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "GAMEDAY_PROMETHEUS_URL": self.prometheus_url,
            "GAMEDAY_SLURM_URL": self.slurm_url,
            "GAMEDAY_GPUD_URL": self.gpud_url,
            "SLURM_JWT": self.slurm_token,
        }

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """This process, and all that it starts, finds it for so long; then its environment is as before."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ |= self.environment
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ |= {name: value} if value is not None else {}


@asynccontextmanager
async def sandbox(
    directory: Path | None = None,
    *,
    nodes: int = 8,
    prometheus: bool = True,
    kubeconfig: Path | None = None,
    context: str | None = None,
    workloads: bool = True,
    on_progress: Callable[[str], None] | None = None,
) -> AsyncIterator[Sandbox]:
    """A sandbox that is ready, as a child process; it ends with this context or with this process.

    With `kubeconfig` the fleet is put into that cluster instead of an API server of its own. Without
    `directory` everything is in a temporary one. Raises SandboxError.
    """
    with tempfile.TemporaryDirectory(prefix="gameday-sandbox-") as temporary:
        place = (directory or Path(temporary)).resolve()
        command = [sys.executable, "-m", "gameday.sandbox", f"--directory={place}", f"--nodes={nodes}"]
        command += [f"--parent-pid={os.getpid()}"]
        command += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        command += [f"--context={context}"] if context else []
        command += [] if prometheus else ["--no-prometheus"]
        command += [] if workloads else ["--no-workloads"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
        said: list[str] = []
        listening = asyncio.create_task(_listen(process, said, on_progress))
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if not line:
                await listening
                why = [line.partition("error: ")[2] for line in said if "error: " in line] or said[-10:]
                raise SandboxError(f"the sandbox did not start: {'; '.join(why) or 'it said nothing'}")
            yield _described(json.loads(line))
        finally:
            await _end(process)
            await listening


async def _listen(
    process: asyncio.subprocess.Process, said: list[str], on_progress: Callable[[str], None] | None
) -> None:
    """Pass on what the child says, and remember the last of it."""
    assert process.stderr is not None
    async for raw in process.stderr:
        text = raw.decode(errors="replace").rstrip()
        said.append(text)
        del said[:-50]
        if on_progress is not None:
            on_progress(text)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WITHIN)
        except TimeoutError:
            process.kill()
    await process.wait()


def _described(data: dict[str, str]) -> Sandbox:
    return Sandbox(
        kubeconfig=Path(data["kubeconfig"]),
        context=data["context"],
        api_url=data["api"],
        prometheus_url=data["prometheus"],
        metrics_url=data["metrics"],
        control_url=data["control"],
        directory=Path(data["directory"]),
        gpud_url=data.get("gpud", ""),
        slurm_url=data.get("slurm", ""),
        slurm_token=data.get("slurmToken", ""),
    )
