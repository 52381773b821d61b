"""What several checks of one plan read of the cluster, read once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Shared:
    """What was read of the cluster for one plan: making and checking it asks the same several times over.

    Of 50,000 pods each list takes seconds. A run that changes something has none, and reads anew.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._reading = asyncio.Lock()

    async def once(self, what: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gave the first time; who asks meanwhile waits for it. Nobody may change it."""
        async with self._reading:
            if what not in self._found:
                self._found[what] = await read()
            found: T = self._found[what]
            return found
