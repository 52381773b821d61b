"""Requests that the client's own user sends where the identity that it acts as is denied them.

What was done as another identity must not stay in force because somebody took that one's rights. A request
that makes a change falls back to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DENIED = (401, 403)  # statuses of an API server that has decided

_allowed: ContextVar[bool] = ContextVar("fallback", default=False)


@contextmanager
def to_ourselves() -> Iterator[None]:
    """Every request in this block, and by the tasks begun in it, may be sent by the client's own user."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def wanted(status: int) -> bool:
    """Whether a request that another identity sent, and that was answered like this, is to be our own."""
    return status in DENIED and _allowed.get()
