"""The sandbox's API server, in this process, which loses requests and answers on demand, and keeps a list."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from gameday.platform.kube import Kube
from gameday.sandbox.apiserver.kubeconfig import write_kubeconfig
from gameday.sandbox.apiserver.server import ApiServer

LOSE_REQUEST, LOSE_ANSWER = "the request is lost", "it is done, and the answer is lost"


class Unruly(ApiServer):
    """Loses the next request, or its answer, whose "METHOD path" matches a pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[
            str
        ] = []  # "PATCH /api/v1/…", of every request that was let through and was no read
        self.kubeconfig = Path()
        self._rules: list[tuple[str, re.Pattern[str]]] = []
        self._writes: int | None = None  # that are let through still; None: all

    def lose(self, what: str, pattern: str) -> None:
        self._rules.append((what, re.compile(pattern)))

    def stop_after(self, writes: int) -> None:
        """Let so many writes through, and lose all that come then."""
        self._writes = writes

    def obey(self) -> None:
        """Lose nothing any more."""
        self._rules.clear()
        self._writes = None

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        asked = f"{http.method} {http.path}"
        rule = next((r for r in self._rules if r[1].search(asked)), None)
        if rule is not None:
            self._rules.remove(rule)
        if rule is not None and rule[0] == LOSE_REQUEST:
            _hang_up(http)
            return web.Response()
        if http.method != "GET" and self._writes is not None:
            if not self._writes:
                _hang_up(http)
                return web.Response()
            self._writes -= 1
        if http.method != "GET":
            self.changes.append(asked)
        answer = await super()._handle(http)
        if rule is not None:
            _hang_up(http)
        return answer


def _hang_up(http: web.BaseRequest) -> None:
    assert http.transport is not None
    http.transport.abort()


@asynccontextmanager
async def unruly(folder: Path) -> AsyncIterator[Unruly]:
    """One that serves; `kubeconfig` is how it is reached."""
    server = Unruly()
    server.kubeconfig = write_kubeconfig(folder / "kubeconfig-unruly", await server.start())
    try:
        yield server
    finally:
        await server.stop()


async def connect(server: Unruly) -> Kube:
    """A client of its own for one actor."""
    return await Kube.connect(server.kubeconfig)
