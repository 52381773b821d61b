"""Stands between a client and either platform's API server, to fail as networks and servers do, on demand."""

from __future__ import annotations

import base64
import json
import re
import ssl
from asyncio import StreamReader
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.support.threads import LoopThread

# Headers that belong to one connection, not to the message.
_OWN = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}


@dataclass
class Rule:
    """Which requests fail (method, pattern searched in path and query), how, and how often still."""

    method: str
    pattern: re.Pattern[str]
    status: int
    reason: str
    message: str
    retry_after: int | None
    times: int
    hang_up: bool = False


@dataclass
class ApiProxy:
    """Use `kubeconfig` instead of the platform's; everything passes through until told otherwise."""

    upstream: Path
    kubeconfig: Path
    requests: list[str] = field(default_factory=list)  # "GET /api/v1/nodes?limit=500", as they came
    _rules: list[Rule] = field(default_factory=list)
    _thread: LoopThread = field(default_factory=lambda: LoopThread("api-proxy"))
    _port: int = 0
    _runner: web.AppRunner | None = None
    _site: web.TCPSite | None = None
    _session: aiohttp.ClientSession | None = None
    _server: str = ""

    def start(self) -> None:
        config = yaml.safe_load(self.upstream.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"].rstrip("/")
        self._thread.call(self._start(cluster))
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        self.kubeconfig.write_text(json.dumps(config, indent=2))

    def close(self) -> None:
        self._thread.call(self._close())
        self._thread.close()

    def fail(
        self,
        method: str,
        pattern: str,
        status: int,
        *,
        reason: str = "",
        message: str = "",
        retry_after: int | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next `times` matching requests with that status instead of asking the API server."""
        compiled = re.compile(pattern)
        self._rules.append(Rule(method, compiled, status, reason, message, retry_after, times))

    def hang_up(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Take the next matching requests and break the connection without an answer."""
        self._rules.append(Rule(method, re.compile(pattern), 0, "", "", None, times, hang_up=True))

    def end_connections(self) -> None:
        """Break every open connection, watches included; new ones are welcome."""
        self._thread.call(self._abort())

    def cut(self) -> None:
        """Refuse connections, and break the open ones, until `restore`."""
        self._thread.call(self._cut())

    def restore(self) -> None:
        self._thread.call(self._listen())

    async def _start(self, cluster: dict[str, Any]) -> None:
        tls: ssl.SSLContext | bool = True
        if authority := cluster.get("certificate-authority-data"):
            tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        # A client that goes away must take its watch with it, or closing would wait for the watch's end.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _cut(self) -> None:
        assert self._site is not None
        await self._site.stop()
        await self._abort()

    async def _abort(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _close(self) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._abort()
        await self._session.close()
        await self._runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if rule := self._rule(request):
            return _refuse(request, rule)
        assert self._session is not None
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _OWN}
        body = await request.read() or None
        async with self._session.request(
            request.method, self._server + request.path_qs, headers=headers, data=body
        ) as answer:
            return await _stream(request, answer)

    def _rule(self, request: web.Request) -> Rule | None:
        for rule in self._rules:
            if rule.times and rule.method == request.method and rule.pattern.search(request.path_qs):
                rule.times -= 1
                return rule
        return None


async def _stream(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass the body on as it comes, so that a watch stays a watch."""
    headers = {key: value for key, value in answer.headers.items() if key.lower() not in _OWN}
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    content: StreamReader | aiohttp.StreamReader = answer.content
    while chunk := await content.read(2**16):
        await response.write(chunk)
    await response.write_eof()
    return response


def _refuse(request: web.Request, rule: Rule) -> web.StreamResponse:
    if rule.hang_up:
        assert request.transport is not None
        request.transport.abort()
    details = {} if rule.retry_after is None else {"retryAfterSeconds": rule.retry_after}
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": rule.status,
        "reason": rule.reason,
        "message": rule.message or f"the proxy answers {rule.status}",
        "details": details,
    }
    headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    return web.json_response(status, status=rule.status or 500, headers=headers)
