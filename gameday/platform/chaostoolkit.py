"""Runs Chaos Toolkit activities in a process of their own: one can be cut off, and costs us no imports.

``python -m gameday.platform.chaostoolkit`` is that process: one line with a JSON request on standard input,
and two of JSON in answer: the secrets as they were resolved, before the activity can print them, so that they
are masked in all that is said of it; and what came of it. The answer has a channel of its own; whatever an
activity prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from gameday.masking import TooShort, keep_secret, names_secret
from gameday.platform import child, controls, fence
from gameday.platform.errors import PlatformError

Activity = Mapping[str, Any]
GRACE = 2.0  # seconds between asking an activity to end and ending it
LARGEST = 1 << 20  # bytes of a result
CHECK_WITHIN = 60.0
PASSED_ON = ("name", "type", "provider", "tolerance")  # the rest of an activity is ours to do


class NotBegun(PlatformError):
    """An activity was not begun: it could not be started, or Chaos Toolkit does not take it."""

    may_land = False


async def run_activity(
    activity: Activity,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    configuration: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> Any:
    """What an action or probe returns; with a `tolerance`, whether it is within it, by Chaos Toolkit's rules.

    `timeout` is in seconds. `environment` is added to ours: that of Kube, for all that ask the cluster.
    `configuration` and `secrets` are as in an experiment, not yet resolved. Cancelling kills the activity and
    every process it started. Raises PlatformError.
    """
    what = f"the Chaos Toolkit {activity.get('type', 'activity')} {activity.get('name', '')!r}"

    async def run(wanted: Activity) -> Any:
        request = {
            "run": {key: wanted[key] for key in PASSED_ON if wanted.get(key) is not None},
            "configuration": dict(configuration or {}),
            "secrets": dict(secrets or {}),
        }
        return await _ask(request, what, timeout, environment or {})

    asked = controls.current.get()
    return await (run(activity) if asked is None else asked.around(dict(activity), run))


async def check_activities(
    activities: Iterable[Activity],
    configuration: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> None:
    """Let Chaos Toolkit judge activities, without running any. Raises PlatformError for the first wrong.

    So is a secret that is too short to be masked wherever it turns up, where its name says that it is one.
    """
    request = {
        "check": [{key: a[key] for key in PASSED_ON if a.get(key) is not None} for a in activities],
        "configuration": dict(configuration or {}),
        "secrets": dict(secrets or {}),
    }
    await _ask(request, "the check of the Chaos Toolkit activities", CHECK_WITHIN, {}, masked=True)


async def check_experiment(document: Mapping[str, Any]) -> None:
    """Let Chaos Toolkit judge a whole native experiment, as `chaos validate` does. Raises PlatformError."""
    await _ask({"validate": dict(document)}, "the check of the Chaos Toolkit experiment", CHECK_WITHIN, {})


async def _ask(
    request: dict[str, Any],
    what: str,
    timeout: float,
    environment: Mapping[str, str],
    *,
    masked: bool = False,
) -> Any:
    """`masked`: raises PlatformError for a secret that can't be, in place of leaving it as it is."""
    fence.check()
    # -P: no module is found only because of where we were started, as by the command `chaos`.
    command = [sys.executable, "-P", "-m", __spec__.name if __spec__ else __name__]
    body = json.dumps(request, default=str).encode() + b"\n"
    try:
        ended = await child.run(command, timeout, body, environment, GRACE, 2 * LARGEST)
    except TimeoutError:
        raise PlatformError(f"{what} did not end within {timeout:g} s and was stopped") from None
    except OSError as error:
        raise NotBegun(f"{what} can't be started: {error}") from error
    return _understood(ended, what, masked=masked)


def _understood(ended: child.Ended, what: str, *, masked: bool) -> Any:
    said: dict[str, Any] = {}
    with contextlib.suppress(ValueError):  # of a line that was cut off with its process
        for line in ended.out.splitlines():
            said |= json.loads(line)
    if (wrong := _keep(said.get("secrets"))) and masked:
        raise PlatformError(f"{what}: {wrong}")
    if "error" in said:
        raise (PlatformError if said["begun"] else NotBegun)(f"{what} failed: {said['error']}")
    if "result" not in said:
        last = ended.err.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was printed"]
        raise PlatformError(f"{what} ended with code {ended.code} and without a result: {last[0]}")
    return said["result"]


def _keep(value: Any, name: str = "") -> str:
    """Mask every leaf of resolved secrets from now on; "" or what is wrong with one that can't be masked."""
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else ((name, v) for v in value)
        return next(filter(None, [_keep(v, str(k)) for k, v in inside]), "")
    if value is None or isinstance(value, bool):
        return ""
    try:
        keep_secret("", str(value))
    except TooShort as short:
        return f"{name}, a secret by its name, {short}" if names_secret(name) else ""
    return ""


# -- the other side: everything below runs in the activity's process ---------------------------------


def main() -> None:
    """Answer the one request."""
    channel = os.fdopen(os.dup(1), "wb")  # not inherited by what the activity starts
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        answer: dict[str, Any] = {"result": _carry_out(request, channel)}
    except (Exception, SystemExit) as error:  # whatever foreign code does is an answer
        answer = {"error": _in_words(error), "begun": "begun" in request}
    body = json.dumps(answer, default=str).encode()
    if len(body) > LARGEST:
        answer = {"error": f"its result is larger than {LARGEST >> 20} MiB", "begun": True}
        body = json.dumps(answer).encode()
    channel.write(body)
    channel.close()
    sys.stdout.flush()
    os._exit(0)  # threads that an activity left behind do not keep us


def _carry_out(request: dict[str, Any], channel: BinaryIO) -> Any:
    from chaoslib.activity import ensure_activity_is_valid, run_activity
    from chaoslib.configuration import load_configuration, load_dynamic_configuration
    from chaoslib.hypothesis import ensure_hypothesis_tolerance_is_valid, within_tolerance
    from chaoslib.secret import load_secrets

    if "validate" in request:
        from chaoslib.experiment import ensure_experiment_is_valid

        ensure_experiment_is_valid(request["validate"])
        return None

    def check(activity: dict[str, Any]) -> None:
        ensure_activity_is_valid(activity)
        if "tolerance" in activity:
            ensure_hypothesis_tolerance_is_valid(activity["tolerance"])

    configuration = load_configuration(request["configuration"])
    secrets = load_secrets(request["secrets"], configuration)
    channel.write(json.dumps({"secrets": secrets}, default=str).encode() + b"\n")
    channel.flush()
    if "check" in request:
        for activity in request["check"]:
            check(activity)
        return None
    activity = request["run"]
    check(activity)
    configuration = load_dynamic_configuration(configuration, secrets)
    request["begun"] = True  # from here on others may have been asked for something
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
    return (text if kind == "ActivityFailed" or kind.startswith("Invalid") else f"{kind}: {text}") + hint


if __name__ == "__main__":
    main()
