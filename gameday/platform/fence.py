"""The fence around changes: a request that changes the world is asked about immediately before it is sent.

Whoever makes or undoes a change sets the question for all that it calls (`under`); every client asks it
(`check`) as the last thing before its bytes leave. So a process that was stopped for longer than its Lease
finds out, even with a request prepared. What is only read is never asked about.

    Fenced            the process may not change anything now
    ├── Unsure        not known whether the run is still ours: it may be again
    ├── Lost          another process has taken the run over, for good
    └── Over          whoever made or undid the change has gone on without this
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp

from gameday.platform.errors import PlatformError

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Fenced(PlatformError):
    """A change was not made, because the run may not be ours any more."""

    may_land = False


class Unsure(Fenced):
    """Nobody knows now whose the run is; once its Lease could be renewed, it is ours."""


class Lost(Fenced):
    """Another process took the run over, or its Lease or its record is gone."""


class Over(Fenced):
    """The change that this request belongs to was given up, and may be undone by now."""


def _anybody() -> None:
    """The question for callers that own what they change."""


_question: ContextVar[Callable[[], None]] = ContextVar("fence", default=_anybody)


def check() -> None:
    """Ask whether a change may be sent now. Raises Fenced."""
    _question.get()()


@contextmanager
def under(question: Callable[[], None]) -> Iterator[None]:
    """Every change sent in this block, and by the tasks begun in it, is asked about; it raises Fenced.

    Tasks that go on after the block, as of work that was left behind, send no change any more.
    """
    over = False

    def ask() -> None:
        if over:
            raise Over("the change that this belongs to was given up")
        question()

    token = _question.set(ask)
    try:
        yield
    finally:
        over = True
        _question.reset(token)


def tracing() -> aiohttp.TraceConfig:
    """For an aiohttp session: asks before the first byte of each request that is no read.

    aiohttp awaits this signal before it writes a request's headers to a connection that is open already.
    """
    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(_before_sending)
    return config


def once() -> aiohttp.TraceConfig:
    """For a session of one request that changes something, also by a GET: asks as well, and sends it once.

    aiohttp sends what is idempotent by HTTP's rules again when its connection breaks.
    """
    sent = False

    async def before_sending(*_: Any) -> None:
        nonlocal sent
        if sent:
            raise aiohttp.ClientConnectionError("it may have been done, and is not asked for twice")
        check()
        sent = True

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(before_sending)
    return config


async def _before_sending(_: Any, __: Any, request: aiohttp.TraceRequestHeadersSentParams) -> None:
    if request.method not in _READS:
        check()
