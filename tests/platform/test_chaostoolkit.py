"""Chaos Toolkit activities run in processes of their own, which end when we say so, or when we end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.chaostoolkit import check_activities, run_activity
from gameday.platform.errors import PlatformError
from tests.support.polling import eventually

pytestmark = pytest.mark.fast


def python(module: str, func: str, kind: str = "action", **arguments: Any) -> dict[str, Any]:
    provider = {"type": "python", "module": module, "func": func, "arguments": arguments}
    return {"type": kind, "name": f"call {func}", "provider": provider}


def process(path: str, *arguments: str, **more: Any) -> dict[str, Any]:
    provider = {"type": "process", "path": path, "arguments": list(arguments)}
    return {"type": "probe", "name": f"run {path}", "provider": provider, **more}


def hanging(folder: Path) -> dict[str, Any]:
    """Says which process it is, and that of a child of its own, and then waits for ever."""
    script = f"echo $$ > {folder}/pid; sleep 600 & echo $! >> {folder}/pid; wait"
    return process("sh", "-c", script)


async def begun(folder: Path) -> list[int]:
    """The processes of `hanging` that have begun: none yet, the first, or both."""
    with contextlib.suppress(FileNotFoundError):
        return [int(line) for line in (folder / "pid").read_text().splitlines()]
    return []


async def started(folder: Path) -> list[int]:
    return await eventually(lambda: begun(folder), lambda found: len(found) == 2)


async def all_gone(pids: list[int]) -> None:
    async def alive() -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and not _is_zombie(pid)]

    await eventually(alive, lambda left: not left)


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


async def test_a_function_returns_its_value(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert await run_activity(python("os", "listdir", path=str(tmp_path)), 30) == ["a"]


async def test_a_process_returns_what_it_printed() -> None:
    result = await run_activity(process("echo", "hello"), 30)
    assert result == {"status": 0, "stdout": "hello\n", "stderr": ""}


async def test_what_an_activity_prints_is_not_its_result() -> None:
    assert await run_activity(python("os", "system", command="echo '{\"result\": 7}'"), 30) == 0


@pytest.mark.parametrize(
    ("tolerance", "result"),
    [
        (0, True),
        ([0, 1], True),
        (1, False),
        ({"type": "regex", "pattern": "^he", "target": "stdout"}, True),
        ({"type": "range", "range": [5, 6], "target": "status"}, False),
    ],
)
async def test_tolerances_are_judged_by_chaos_toolkit(tolerance: Any, result: bool) -> None:
    assert await run_activity(process("echo", "hello", tolerance=tolerance), 30) is result


async def test_configuration_and_secrets_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "good day")
    configuration = {"greeting": {"type": "env", "key": "GREETING"}}
    result = await run_activity(process("echo", "${greeting}"), 30, None, configuration, {})
    assert result["stdout"] == "good day\n"


@pytest.mark.parametrize(
    ("activity", "words"),
    [
        (python("os", "listdir", path="/nowhere"), "call listdir' failed: FileNotFoundError"),
        (
            python("chaosnone.actions", "x"),
            "could not find Python module 'chaosnone.actions'.* installed here",
        ),
        (python("os", "nothing"), "does not expose a function called 'nothing'"),
        (python("os", "getpid", far="off"), "argument 'far' is not part of the function signature"),
        (python("os", "_exit", status=3), "ended with code 3 and without a result"),
        (python("os", "abort"), "ended with code -6 and without a result"),
        (process("no-such-program"), "path 'no-such-program' cannot be found"),
        ({"type": "action", "name": "x", "provider": {"type": "telepathy"}}, "unknown provider type"),
    ],
)
async def test_failures_in_words(activity: dict[str, Any], words: str) -> None:
    with pytest.raises(PlatformError, match=words):
        await run_activity(activity, 30)


async def test_checking_runs_nothing(tmp_path: Path) -> None:
    await check_activities([process("touch", str(tmp_path / "x")), python("os", "getpid")])
    assert not list(tmp_path.iterdir())
    with pytest.raises(PlatformError, match="unknown provider type"):
        await check_activities([{"type": "action", "name": "x", "provider": {"type": "telepathy"}}])
    with pytest.raises(PlatformError, match="environment key that does not exist: NOT_THERE"):
        await check_activities([], {"a": {"type": "env", "key": "NOT_THERE"}})


async def test_one_that_takes_too_long_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    for limit in (3, 6, 12, 24):  # an activity that was stopped before it began proves nothing
        with pytest.raises(PlatformError, match=f"did not end within {limit} s and was stopped"):
            await run_activity(hanging(tmp_path), limit)
        await all_gone(pids := await begun(tmp_path))
        if len(pids) == 2:
            return
    pytest.fail("the activity never began")


async def test_a_cancelled_one_is_gone_at_once(tmp_path: Path) -> None:
    running = asyncio.create_task(run_activity(hanging(tmp_path), 600))
    pids = await started(tmp_path)
    running.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await running
    await all_gone(pids)


async def test_it_ends_when_the_one_who_asked_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, json, sys; from gameday.platform.chaostoolkit import run_activity; "
        "asyncio.run(run_activity(json.loads(sys.argv[1]), 600))"
    )
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, json.dumps(hanging(tmp_path)))
    pids = await started(tmp_path)
    asker.kill()
    await asker.wait()
    await all_gone(pids)
