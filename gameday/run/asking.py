"""One question to one probe: whatever the probe does is a reading, and one that hangs is left behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gameday.experiment.text import shorten
from gameday.platform.errors import ApiError, PartialAnswer, PlatformError, Unreachable
from gameday.platform.shield import at_most, told_to_end
from gameday.run.reading import PARTIAL, UNREACHABLE, Reading, judge

if TYPE_CHECKING:
    from gameday.experiment.model import Check, Expectation
    from gameday.extend import Probe
    from gameday.platform.world import World

LONGEST = 500  # characters of what went wrong with a probe


async def ask(
    probe: Probe[Any],
    check: Check,
    bound: Expectation,
    world: World,
    baseline: float | None,
    asked: float | None = None,
) -> Reading:
    """One reading by a check's probe. `asked`: when the question came up (monotonic seconds), if not now."""
    asked = time.monotonic() if asked is None else asked
    try:
        measured = await at_most(check.timeout, probe.measure(check.spec, world))
        reading = judge(check, bound, measured, baseline, asked, time.monotonic() - asked)
    except TimeoutError:
        message = f"did not answer within {check.timeout:g} s"
        reading = Reading(UNREACHABLE, asked, message=message, expected=bound.text)
    except BaseException as error:
        if _ours_to_obey(error):
            raise
        state = PARTIAL if isinstance(error, PartialAnswer) else UNREACHABLE
        reading = Reading(state, asked, message=_told(error), expected=bound.text, final=_is_final(error))
    return replace(reading, took=time.monotonic() - asked)


def _is_final(error: BaseException) -> bool:
    """Whether a system said no, and will say so again: a syntax error, a kind that it does not know."""
    if isinstance(error, ApiError):
        return 400 <= error.status < 500 and error.status not in (401, 408, 429)
    passing = isinstance(error, Unreachable | PartialAnswer) or getattr(error, "kind", "") == "timeout"
    return isinstance(error, PlatformError) and not passing


def _ours_to_obey(error: BaseException) -> bool:
    """Whether it is the watch that is to end, and not only a probe: a cancellation from outside, Ctrl-C.

    A probe may raise CancelledError by itself, when something that it awaits was cancelled: a task that
    ends so would be gone without a word.
    """
    if isinstance(error, asyncio.CancelledError):
        return told_to_end()
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


def _told(error: BaseException) -> str:
    """The trouble in words; an error that no probe should raise with its type."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error) if isinstance(error, PlatformError | OSError) else ""
    return shorten(text or f"{type(error).__name__}: {error}", LONGEST)
