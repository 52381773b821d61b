"""A simulated node as the node's program sees it: its tools and files, which the fleet's parts register."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gameday.node.host import ToolError

T = TypeVar("T")
Tool = Callable[[str, list[str]], str]  # the node and the whole argv: what it prints; raises ToolError
ANSWER_WITHIN = 10.0  # seconds for the platform's event loop to come round


@dataclass(frozen=True)
class Files:
    """What is behind a path and all below it; either way may be missing, as a file's permission may be."""

    read: Callable[[str, str], str] | None = None  # node, path: the text; raises OSError
    write: Callable[[str, str, str], None] | None = None  # node, path, text


@dataclass
class Hosts:
    """The tools and files of all simulated nodes, and what programs left on each.

    Tools and files are called in the platform's event loop, so that they may touch anything there.
    """

    tools: dict[str, Tool] = field(default_factory=dict)  # by argv[0]
    files: dict[str, Files] = field(default_factory=dict)  # by the beginning of the path
    kept: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # node and task: see memory.py


class SimulatedHost:
    """One node, for a program that runs in a thread of its own."""

    def __init__(self, node: str, hosts: Hosts, loop: asyncio.AbstractEventLoop) -> None:
        self._node, self._hosts, self._loop = node, hosts, loop
        self._cut: BaseException | None = None

    def cut(self, end: BaseException) -> None:
        """From now on whoever touches the node ends like this: its program's process is no more."""
        self._cut = end

    def run(self, *argv: str) -> str:
        tool = self._hosts.tools.get(argv[0])
        if tool is None:
            raise ToolError(argv, 127, f"the node has no {argv[0]}")
        return self._in_loop(lambda: tool(self._node, list(argv)))

    def read(self, path: str) -> str:
        read = self._behind(path).read
        if read is None:
            raise PermissionError(13, "Permission denied", path)
        return self._in_loop(lambda: read(self._node, path))

    def write(self, path: str, text: str) -> None:
        write = self._behind(path).write
        if write is None:
            raise PermissionError(13, "Permission denied", path)
        self._in_loop(lambda: write(self._node, path, text))

    def _behind(self, path: str) -> Files:
        found = [p for p in self._hosts.files if path == p or path.startswith(p.rstrip("/") + "/")]
        if not found:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self._hosts.files[max(found, key=len)]

    def _in_loop(self, ask: Callable[[], T]) -> T:
        if self._cut is not None:
            raise self._cut
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return answer.result(ANSWER_WITHIN)


class SimulatedMemory:
    """What a program remembers on a simulated node's disk."""

    def __init__(self, node: str, task: str, hosts: Hosts) -> None:
        self._key, self._kept = (node, task), hosts.kept

    def load(self) -> dict[str, Any] | None:
        return self._kept.get(self._key)

    def save(self, kept: dict[str, Any]) -> None:
        self._kept[self._key] = kept

    def forget(self) -> None:
        self._kept.pop(self._key, None)
