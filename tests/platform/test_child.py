"""Programs that we start end when we say so, with all they started, and no pipe holds anybody up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.model import Hook
from gameday.platform import child, credentials
from gameday.platform.chaostoolkit import run_activity
from gameday.platform.errors import NoCredentials, PlatformError
from gameday.platform.slurm import scontrol
from gameday.run.hooks import asked
from tests.support.polling import eventually

pytestmark = pytest.mark.fast

# A program whose child keeps its pipes and ignores what can be ignored.
FORKS = """#!/bin/sh
sh -c 'trap "" TERM INT HUP; echo $$ >> {pids}; while :; do sleep 600; done' &
while ! [ -s {pids} ]; do sleep 0.01; done
{then}
"""


def forking(folder: Path, then: str, name: str = "program") -> str:
    program = folder / name
    program.write_text(FORKS.format(pids=folder / "pids", then=then))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


async def nothing_runs(folder: Path) -> None:
    """No grandchild is left of what was started in this folder."""
    pids = [int(line) for line in (folder / "pids").read_text().split()]
    assert pids

    async def alive() -> list[int]:
        return [pid for pid in pids if _runs(pid)]

    await eventually(alive, lambda left: not left)


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_the_output_is_there_though_a_grandchild_holds_the_pipe(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        ended = await child.run([forking(tmp_path, "cat; echo oops >&2; exit 3")], 600, b"hello")
    assert (ended.code, ended.out, ended.err) == (3, b"hello", b"oops\n")
    await nothing_runs(tmp_path)


@pytest.mark.parametrize("grace", [0, 0.1])
async def test_one_that_takes_too_long_goes_with_all_it_started(grace: float, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await child.run([forking(tmp_path, "trap '' TERM; wait")], 1, grace=grace)
    await nothing_runs(tmp_path)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_one_goes_with_all_it_started(times: int, tmp_path: Path) -> None:
    running = asyncio.create_task(child.run([forking(tmp_path, "wait")], 600))
    await eventually(_text(tmp_path / "pids"), bool)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await running
    await nothing_runs(tmp_path)


def _text(path: Path) -> Any:
    async def read() -> str:
        return path.read_text() if path.exists() else ""

    return read


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_it_goes_when_we_are_ended_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    call = f"asyncio.run(child.run([{forking(tmp_path, 'wait')!r}], 600))"
    ours = f"import asyncio; from gameday.platform import child; {call}"
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", ours)
    await eventually(_text(tmp_path / "pids"), bool)
    asker.send_signal(number)
    await asker.wait()
    await nothing_runs(tmp_path)


@pytest.mark.parametrize("number", ["STOP", "USR1"])
async def test_no_signal_to_its_own_group_saves_it_when_we_are_killed(number: str, tmp_path: Path) -> None:
    """Who guards a group from within gets what is sent to the group."""
    program, sent = tmp_path / "program", tmp_path / "sent"
    hears = f"trap '' USR1; echo $$ >> {tmp_path}/pids; kill -{number} 0; touch {sent}"
    program.write_text(f"#!/bin/sh\n{hears}\nwhile :; do sleep 600; done\n")
    program.chmod(0o755)
    call = f"asyncio.run(child.run([{str(program)!r}], 600))"
    ours = f"import asyncio; from gameday.platform import child; {call}"
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", ours)

    async def was_sent() -> bool:
        pids = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
        return sent.exists() or any("(stopped)" in Path(f"/proc/{p}/status").read_text() for p in pids)

    await eventually(was_sent)
    asker.kill()
    await asker.wait()
    await nothing_runs(tmp_path)


async def test_an_output_without_end_is_bounded() -> None:
    ended = await child.run(["sh", "-c", "head -c 4000000 /dev/zero"], 30, largest=1000)
    assert (len(ended.out), ended.cut) == (1000, True)


async def test_one_that_does_not_read_is_fed_all_the_same() -> None:
    assert (await child.run(["true"], 30, b"x" * (1 << 20))).code == 0
    with pytest.raises(OSError, match="there is no program no-such-program"):
        await child.run(["no-such-program"], 30)


@pytest.mark.parametrize(("then", "answer"), [("exit 0", ""), ("wait", "no answer within 1 s")])
async def test_a_hook_is_not_held_up(then: str, answer: str, tmp_path: Path) -> None:
    hook = Hook(command=[forking(tmp_path, then)], timeout="1s" if answer else "10m")
    async with asyncio.timeout(30):
        said = await asked([hook], "beforeRun", {}, dict)
    assert [answer in s for s in said] == [True] * bool(answer)
    await nothing_runs(tmp_path)


async def test_scontrol_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forking(tmp_path, "echo said; exit 0", "scontrol")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with asyncio.timeout(20):
        assert await scontrol.run_here(["show"]) == (0, "said\n", "")
    await nothing_runs(tmp_path)


async def test_an_activity_is_not_held_up(tmp_path: Path) -> None:
    program = forking(tmp_path, "exit 0")
    call = {"type": "python", "module": "os", "func": "system", "arguments": {"command": program}}
    activity = {"type": "action", "name": "x", "provider": call}
    slow = {"type": "process", "path": program, "arguments": []}
    async with asyncio.timeout(30):
        await run_activity(activity, 600)
        with contextlib.suppress(PlatformError):
            await run_activity({"type": "action", "name": "y", "provider": slow}, 3)
    await nothing_runs(tmp_path)


async def test_a_plugin_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "WITHIN", 1.0)
    from kubernetes.aio.config.kube_config import ConfigNode

    section = {"apiVersion": "client.authentication.k8s.io/v1", "command": forking(tmp_path, "wait")}
    with pytest.raises(NoCredentials):
        await credentials.ask(ConfigNode("exec", section))
    await nothing_runs(tmp_path)
