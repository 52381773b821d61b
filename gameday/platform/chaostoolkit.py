"""Runs Chaos Toolkit activities in a process of their own: one can be cut off, and costs us no imports.

``python -m gameday.platform.chaostoolkit`` is that process: one line with a JSON request on standard input,
one JSON answer. The answer has a channel of its own; whatever an activity prints goes to standard error.
Standard input stays open: when it ends, we have died, and the activity ends with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from gameday.platform.errors import PlatformError

Activity = Mapping[str, Any]
GRACE = 2.0  # seconds between asking an activity to end and ending it
LARGEST = 1 << 20  # bytes of a result
TAIL = 2000  # bytes of what it printed that are shown when it dies without an answer
CHECK_WITHIN = 60.0
PASSED_ON = ("name", "type", "provider", "tolerance")  # the rest of an activity is ours to do


async def run_activity(
    activity: Activity,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    configuration: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> Any:
    """What an action or probe returns; with a `tolerance`, whether it is within it, by Chaos Toolkit's rules.

    `timeout` is in seconds. `environment` is added to ours: Kube.environment, for all that ask the cluster.
    `configuration` and `secrets` are as in an experiment, not yet resolved. Cancelling kills the activity and
    every process it started. Raises PlatformError.
    """
    request = {
        "run": {key: activity[key] for key in PASSED_ON if activity.get(key) is not None},
        "configuration": dict(configuration or {}),
        "secrets": dict(secrets or {}),
    }
    what = f"the Chaos Toolkit {activity.get('type', 'activity')} {activity.get('name', '')!r}"
    return await _ask(request, what, timeout, environment or {})


async def check_activities(
    activities: Iterable[Activity],
    configuration: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> None:
    """Let Chaos Toolkit judge activities, without running any. Raises PlatformError for the first wrong."""
    request = {
        "check": [{key: a[key] for key in PASSED_ON if a.get(key) is not None} for a in activities],
        "configuration": dict(configuration or {}),
        "secrets": dict(secrets or {}),
    }
    await _ask(request, "the check of the Chaos Toolkit activities", CHECK_WITHIN, {})


async def _ask(request: dict[str, Any], what: str, timeout: float, environment: Mapping[str, str]) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __spec__.name if __spec__ else __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,  # a group of its own, so that what it starts ends with it
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    printed = bytearray()
    listener = asyncio.create_task(_keep_tail(process.stderr, printed))
    try:
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
                await process.stdin.drain()
            answer = await process.stdout.read(-1)
            await process.wait()
    except TimeoutError:
        raise PlatformError(f"{what} did not end within {timeout:g} s and was stopped") from None
    finally:
        await asyncio.shield(_end(process, listener))
    return _understood(answer, what, process.returncode, printed)


async def _end(process: asyncio.subprocess.Process, listener: asyncio.Task[None]) -> None:
    """End the whole group: asked first, then by force. Nothing is left running, whoever gave up on it."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE)
    _signal(process, signal.SIGKILL)
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
    # What an activity started may hold the pipe open: only what has arrived by now counts.
    await asyncio.wait({listener}, timeout=0.2)
    listener.cancel()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _keep_tail(stream: asyncio.StreamReader, into: bytearray) -> None:
    while chunk := await stream.read(4096):
        into += chunk
        del into[:-TAIL]


def _understood(answer: bytes, what: str, code: int | None, printed: bytearray) -> Any:
    try:
        data = json.loads(answer)
    except ValueError:
        last = printed.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was printed"]
        raise PlatformError(f"{what} ended with code {code} and without a result: {last[0]}") from None
    if "error" in data:
        raise PlatformError(f"{what} failed: {data['error']}")
    return data["result"]


# -- the other side: everything below runs in the activity's process ---------------------------------


def main() -> None:
    """Answer the one request."""
    channel = os.fdopen(os.dup(1), "wb")  # not inherited by what the activity starts
    os.dup2(2, 1)
    asked = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    request = json.loads(asked.readline())
    threading.Thread(target=_die_with, args=(asked.fileno(),), daemon=True).start()
    try:
        answer: dict[str, Any] = {"result": _carry_out(request)}
    except (Exception, SystemExit) as error:  # whatever foreign code does is an answer
        answer = {"error": _in_words(error)}
    body = json.dumps(answer, default=str).encode()
    if len(body) > LARGEST:
        body = json.dumps({"error": f"its result is larger than {LARGEST >> 20} MiB"}).encode()
    channel.write(body)
    channel.close()
    sys.stdout.flush()
    os._exit(0)  # threads that an activity left behind do not keep us


def _die_with(asker: int) -> None:
    """Wait for the end of standard input. Only a group of our own is killed, never a shell's."""
    while os.read(asker, 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def _carry_out(request: dict[str, Any]) -> Any:
    from chaoslib.activity import ensure_activity_is_valid, run_activity
    from chaoslib.configuration import load_configuration, load_dynamic_configuration
    from chaoslib.hypothesis import ensure_hypothesis_tolerance_is_valid, within_tolerance
    from chaoslib.secret import load_secrets

    def check(activity: dict[str, Any]) -> None:
        ensure_activity_is_valid(activity)
        if "tolerance" in activity:
            ensure_hypothesis_tolerance_is_valid(activity["tolerance"])

    configuration = load_configuration(request["configuration"])
    secrets = load_secrets(request["secrets"], configuration)
    if "check" in request:
        for activity in request["check"]:
            check(activity)
        return None
    activity = request["run"]
    check(activity)
    configuration = load_dynamic_configuration(configuration, secrets)
    result = run_activity(activity, configuration, secrets)
    if "tolerance" not in activity:
        return result
    tolerance = activity["tolerance"]
    if isinstance(tolerance, str):
        from chaoslib import substitute

        tolerance = substitute(tolerance, configuration, secrets)
    return bool(within_tolerance(tolerance, result, configuration=configuration, secrets=secrets))


def _in_words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it ended the process (exit {error.code})"
    kind = type(error).__name__
    text = str(error).strip()
    hint = "; is the extension installed here?" if "could not find Python module" in text else ""
    return (
        text if kind in ("ActivityFailed", "InvalidActivity", "InvalidExperiment") else f"{kind}: {text}"
    ) + hint


if __name__ == "__main__":
    main()
