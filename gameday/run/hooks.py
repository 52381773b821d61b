"""Hooks: somebody else's word before and after a run and a step, by HTTP or a command, within a time limit.

A hook hears one JSON object, as the body of a POST or on its standard input. One that comes before a run or
a step says no by any other status than 200 to 299, by any other exit code than 0, or by no answer in time.
One that comes after can say nothing: its failure is a warning, and only the verdict waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gameday.events import Emit, Warn
from gameday.experiment.model import Hook
from gameday.experiment.text import shorten
from gameday.masking import mask_text
from gameday.platform import answers, child
from gameday.platform.errors import PlatformError

LONGEST = 300  # characters of an answer that are shown
MOST_BYTES = 2**20  # of an answer that are read
Environment = Callable[[], Mapping[str, str]]  # gives what a command is to find the run's cluster by


async def asked(
    hooks: Sequence[Hook], when: str, facts: dict[str, Any], environment: Environment
) -> list[str]:
    """The objections of hooks, one after the other; the first no is the last question."""
    for hook in hooks:
        if why := await _call(hook, {"when": when, **facts}, environment):
            return [f"the hook {hook} ({when}) says no: {why}"]
    return []


async def told(
    hooks: Sequence[Hook], when: str, facts: dict[str, Any], environment: Environment, emit: Emit
) -> None:
    """Let hooks know, all at the same time. Never raises but for a cancellation."""
    asking = (_call(hook, {"when": when, **facts}, environment) for hook in hooks)
    answers = await asyncio.gather(*asking)
    for hook, why in zip(hooks, answers, strict=True):
        if why:
            emit(Warn(source="hook", message=f"the hook {hook} ({when}) failed: {why}"))


async def _call(hook: Hook, facts: dict[str, Any], environment: Environment) -> str:
    """Why a hook's answer is no, or ""."""
    body = json.dumps(facts).encode()
    try:
        async with asyncio.timeout(hook.timeout):
            if hook.url:
                return await _post(hook.url, body)
            return await _run(hook.command or [], body, hook.timeout, environment())
    except TimeoutError:
        return f"no answer within {hook.timeout:g} s"
    except (OSError, ValueError, PlatformError) as error:
        return str(error) or type(error).__name__


async def _post(url: str, facts: bytes) -> str:
    import aiohttp

    headers = {"Content-Type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(url, data=facts, headers=headers, allow_redirects=False) as answer,
        ):
            if 200 <= answer.status < 300:
                return ""
            said = await answers.beginning(answer.content.iter_any(), MOST_BYTES)
            return f"{answer.status} {shorten(said, LONGEST)}".strip()
    except aiohttp.ClientError as error:
        return str(error) or type(error).__name__


async def _run(command: Sequence[str], body: bytes, within: float, environment: Mapping[str, str]) -> str:
    ended = await child.run(command, within, body, environment)
    text = mask_text((ended.out + ended.err).decode("utf-8", "replace").strip())[-LONGEST:]
    return "" if ended.code == 0 else f"exit code {ended.code} {text}".strip()
