"""Attending to one object: as it is now, at each of its changes, and at least every second.

A watch only wakes; what counts is a read. So a watch that is cut, refused or silent costs a second, and
nothing is missed. What can't be read at all for too long is an end, never "no change".
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError, PlatformError, WrongAnswer
from gameday.platform.following import follow
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

EVERY = 1.0  # seconds between two reads, when nothing wakes
READ_WITHIN = 2.0  # seconds for one read of many
ONCE_WITHIN = 10.0  # seconds for a read that nobody repeats
REFUSED_FOR = 5.0  # seconds in which every read was answered, and refused: a login or a rule that changed
AWAY_FOR = 20.0  # seconds without any answer: an API server that restarts takes ten


class Unseen(PlatformError):
    """An object could not be read for too long."""


async def attend(kube: Kube, ref: Ref, look: Callable[[Object | None], Awaitable[None]]) -> None:
    """Call `look` with the object, None where there is none, for ever. Raises Unseen."""
    wake = asyncio.Event()
    waker = asyncio.create_task(_wake(kube, ref, wake))
    seen = time.monotonic()
    try:
        while True:
            wake.clear()
            try:
                found = await read(kube, ref, within=READ_WITHIN)
            except PlatformError as error:
                now = time.monotonic()
                if now - seen > (REFUSED_FOR if _refused(error) else AWAY_FOR):
                    raise Unseen(f"{ref} could not be read for {now - seen:.0f} s: {error}") from error
            else:
                seen = time.monotonic()
                await look(found)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await wake.wait()
    finally:
        waker.cancel()


async def read(kube: Kube, ref: Ref, *, within: float = ONCE_WITHIN) -> Object | None:
    """The object as it is now, None where there is none. Whatever goes wrong is a PlatformError."""
    try:
        async with asyncio.timeout(within):
            return await kube.find(ref)
    except TimeoutError:
        raise PlatformError(f"cannot get {ref}: no answer within {within:g} s") from None
    except PlatformError:
        raise
    except Exception as error:  # an answer that no API server gives
        raise PlatformError(f"cannot get {ref}: {type(error).__name__}: {error}") from error


def _refused(error: PlatformError) -> bool:
    """Whether the API server answered, and asking again is no use."""
    if isinstance(error, ApiError):
        return error.status < 500 and error.status != 429
    return isinstance(error, WrongAnswer)


async def _wake(kube: Kube, ref: Ref, wake: asyncio.Event) -> None:
    resource = await kube.resource(ref.api_version, ref.kind)
    while True:
        with contextlib.suppress(Exception):  # a watch that fails is taken up again, and is not needed
            async for _ in follow(kube, resource, ref.namespace, fields={"metadata.name": ref.name}):
                wake.set()
        await asyncio.sleep(EVERY)
