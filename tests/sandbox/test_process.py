"""The sandbox as a process: it says when it is ready, can lose its parts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from gameday.platform.errors import Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref, condition, is_ready
from gameday.platform.prometheus import Prometheus
from gameday.platform.resources import NODES, PODS
from gameday.sandbox import Sandbox, SandboxError, sandbox
from tests.support.platforms import ROOT
from tests.support.polling import eventually

COMMAND = (sys.executable, "-m", "gameday.sandbox")


async def switch(running: Sandbox, what: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{running.control_url}/{what}") as response:
        assert response.status == 200, await response.text()


def processes_about(directory: Path) -> list[int]:
    """Everything that has the directory in its command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


async def test_its_parts_can_go_and_come_back_and_nothing_is_left(data: Path) -> None:
    said: list[str] = []
    async with sandbox(data, on_progress=said.append) as running:
        assert said[-1].startswith("ready after")
        assert running.context == "gameday-sandbox"
        async with (
            await Kube.connect(running.kubeconfig) as kube,
            Prometheus(running.prometheus_url) as prometheus,
        ):
            (_, rate), *_ = await prometheus.instant("sum(rate(training_samples_total[1m]))")
            assert 1900 < rate < 2100, "there are no minutes of steady state behind it"
            assert not [alert for alert in await prometheus.alerts() if alert.state == "firing"]
            await switch(running, "prometheus/stop")
            assert not await prometheus.ready()
            await switch(running, "prometheus/start")
            assert await prometheus.instant("rate(training_samples_total[1m])"), "its data are gone"
            await switch(running, "nodes/gpu-3/stop")
            node = Ref("v1", "Node", "gpu-3")
            lost = await eventually(lambda: kube.get(node), lambda n: not is_ready(n))
            assert condition(lost, "Ready")["reason"] == "NodeStatusUnknown"
            await eventually(lambda: kube.get(node), lambda n: bool(n["spec"].get("taints")))
            await switch(running, "nodes/gpu-3/start")
            await eventually(lambda: kube.get(node), lambda n: is_ready(n) and not n["spec"].get("taints"))
            await switch(running, "api/stop")
            kube.patience = 0
            with pytest.raises(Unreachable):
                await kube.list(NODES)
            await switch(running, "api/start")
            assert len(await eventually(lambda: kube.list(NODES))) == 11
            pods = await kube.list(PODS, "training")
            await kube.delete(Ref.of(pods[0]))  # its controllers and kubelets are with it again
            await eventually(
                lambda: kube.list(PODS, "training"),
                lambda found: (
                    sum(map(is_ready, found)) == 4
                    and pods[0]["metadata"]["uid"] not in {p["metadata"]["uid"] for p in found}
                ),
            )
    assert processes_about(data) == []


async def test_killed_with_9_it_takes_prometheus_with_it(data: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--directory", str(data), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    assert len(processes_about(data)) == 2
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async def left() -> list[int]:
        return processes_about(data)

    await eventually(left, lambda found: not found)


async def test_it_ends_with_the_process_it_was_told_to(data: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--directory", str(data), "--no-prometheus", "--parent-pid", str(parent.pid)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    parent.kill()
    await parent.wait()
    assert await asyncio.wait_for(process.wait(), 10) == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [("sandbox up", 3), (f"run {ROOT}/experiments/drain-gpu-nodes.yaml --sandbox --yes", 4)],
)
async def test_without_prometheus_it_says_what_to_install(command: str, code: int, tmp_path: Path) -> None:
    """And no more: what is missing here is no defect of ours."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gameday", *command.split()),
        env=os.environ | {"PATH": "/nowhere"},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await started.communicate()
    last = said.decode().splitlines()[-1]
    assert last.startswith("gameday: the sandbox did not start: "), said
    assert "apt-get install prometheus" in last
    assert started.returncode == code


async def test_without_the_cluster_it_was_given_it_says_so(data: Path) -> None:
    with pytest.raises(SandboxError, match="no kubeconfig at /nowhere"):
        async with sandbox(data, kubeconfig=Path("/nowhere"), prometheus=False):
            pass


async def test_what_it_prints_can_be_evaluated_by_a_shell(tmp_path: Path) -> None:
    """Its token, too, which everywhere else would be masked."""
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gameday", "sandbox", "up", "--directory", str(tmp_path / "box")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert up.stdout is not None
    lines = [(await up.stdout.readline()).decode() for _ in range(5)]
    up.send_signal(signal.SIGINT)
    assert await up.wait() == 130
    told = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
    assert told.keys() >= {"KUBECONFIG", "GAMEDAY_PROMETHEUS_URL", "SLURM_JWT"}
    assert not [value for value in told.values() if "*" in value]


@pytest.mark.parametrize(
    ("stop", "early"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
async def test_nothing_is_left_of_one_that_is_told_to_stop(
    tmp_path: Path, stop: signal.Signals, early: bool
) -> None:
    """Neither its folder nor a process, while it starts or later; whoever tells it so."""
    with (tmp_path / "said.txt").open("wb") as said:
        up = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gameday", "sandbox", "up"),
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
    assert up.stdout is not None

    async def folder() -> list[Path]:
        return [*tmp_path.glob("gameday-sandbox-*/kubeconfig")]

    await (eventually(folder, bool) if early else up.stdout.readline())
    assert await folder()
    up.send_signal(stop)
    assert await up.wait() == 130
    assert [path.name for path in tmp_path.iterdir()] == ["said.txt"]
    assert processes_about(tmp_path) == []
    assert (tmp_path / "said.txt").read_text().endswith("gameday: the sandbox is down\n")
