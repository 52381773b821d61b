"""Stands between a client and either platform's API server, to fail as networks and servers do, on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import threading
from asyncio import StreamReader
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import ClientWebSocketResponse as ClientSocket
from aiohttp import web

from tests.support.threads import LoopThread

# Headers that belong to one connection, not to the message.
_OWN = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}
_HANDSHAKE = {"upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol"}
_COMMANDS = "v4.channel.k8s.io"  # the protocol of commands in containers
_STDERR, _ERROR = b"\x02", b"\x03"  # its channels


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
    holds: bool = False
    postpones: bool = False
    causes: list[dict[str, str]] = field(default_factory=list)  # of the Status' details
    page: str = ""  # the body of an answer that no API server gives
    code: int = 0  # a command's exit code


@dataclass
class ApiProxy:
    """Use `kubeconfig` instead of the platform's; everything passes through until told otherwise."""

    upstream: Path
    kubeconfig: Path
    requests: list[str] = field(default_factory=list)  # "GET /api/v1/nodes?limit=500", as they came
    _rules: list[Rule] = field(default_factory=list)
    _late: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    _held: threading.Event = field(default_factory=threading.Event)
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
        causes: list[dict[str, str]] | None = None,
    ) -> None:
        """Answer the next `times` matching requests with that status instead of asking the API server."""
        compiled = re.compile(pattern)
        self._rules.append(
            Rule(method, compiled, status, reason, message, retry_after, times, causes=causes or [])
        )

    def answer_page(self, method: str, pattern: str, page: str, *, status: int = 200, times: int = 1) -> None:
        """Answer the next matching requests with a page, as a load balancer or a login does."""
        self._rules.append(Rule(method, re.compile(pattern), status, "", "", None, times, page=page))

    def hold(self, method: str, pattern: str) -> None:
        """Keep matching requests, and pass them on only with `relent`: as if the network were slow."""
        self._held.clear()
        self._rules.append(Rule(method, re.compile(pattern), 0, "", "", None, 10_000, holds=True))

    def relent(self) -> None:
        """Forget every rule: all passes through again."""
        self._rules.clear()
        self._held.set()

    def hang_up(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Take the next matching requests and break the connection without an answer."""
        self._rules.append(Rule(method, re.compile(pattern), 0, "", "", None, times, hang_up=True))

    def postpone(self, method: str, pattern: str, status: int = 0) -> None:
        """Take the next matching request, and keep it for `deliver`.

        Its connection is broken, or a gateway gives up on it with `status`.
        """
        page = "<html>it takes too long</html>" if status else ""
        rule = Rule(method, re.compile(pattern), status, "", "", None, 1, page=page)
        rule.hang_up, rule.postpones = not status, True
        self._rules.append(rule)

    def end_command(self, pattern: str, code: int, said: str) -> None:
        """Take the next matching command, let it end like that, and keep what it does for `deliver`."""
        self._rules.append(Rule("GET", re.compile(pattern), 0, "", said, None, 1, postpones=True, code=code))

    def deliver(self) -> list[int]:
        """Send on what was postponed, as a proxy may do much later. Returns the answers' codes."""
        late, self._late = self._late, []
        return [self._thread.call(self._send(*request)) for request in late]

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
        assert self._session is not None
        if "Upgrade" in headers:
            async with self._command(path, headers) as socket:
                async for _ in socket:
                    pass
            return 101
        async with self._session.request(method, self._server + path, headers=headers, data=body) as answer:
            return answer.status

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
        rule = self._rule(request)
        if rule and rule.holds:
            return await asyncio.shield(asyncio.ensure_future(self._pass_on_later(request)))
        if rule and rule.postpones:
            headers = {key: value for key, value in request.headers.items() if key.lower() not in _OWN}
            self._late.append((request.method, request.path_qs, headers, await request.read()))
        if rule and rule.code:
            return await _ended(request, rule)
        if rule:
            return _refuse(request, rule)
        return await (self._relay(request) if "Upgrade" in request.headers else self._pass_on(request))

    def _command(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[ClientSocket]:
        assert self._session is not None
        kept = {k: v for k, v in headers.items() if k.lower() not in _OWN | _HANDSHAKE}
        return self._session.ws_connect(self._server + path, headers=kept, protocols=(_COMMANDS,))

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        """What a command in a container says."""
        near = web.WebSocketResponse(protocols=(_COMMANDS,))
        try:
            async with self._command(request.path_qs, request.headers) as far:
                await near.prepare(request)
                async for message in far:
                    await near.send_bytes(message.data)
        except aiohttp.WSServerHandshakeError as refused:
            return web.Response(status=refused.status)
        await near.close()
        return near

    async def _pass_on_later(self, request: web.Request) -> web.StreamResponse:
        """Also when the client gave up meanwhile: what is on the network arrives."""
        body = await request.read()
        await asyncio.to_thread(self._held.wait)
        return await self._pass_on(request, body)

    async def _pass_on(self, request: web.Request, read: bytes = b"") -> web.StreamResponse:
        assert self._session is not None
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _OWN}
        body = read or await request.read() or None
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


async def _ended(request: web.Request, rule: Rule) -> web.StreamResponse:
    """The end of a command, as kubelets tell it."""
    socket = web.WebSocketResponse(protocols=(_COMMANDS,))
    await socket.prepare(request)
    cause = {"reason": "ExitCode", "message": str(rule.code)}
    status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
    await socket.send_bytes(_STDERR + rule.message.encode())
    await socket.send_bytes(_ERROR + json.dumps(status).encode())
    await socket.close()
    return socket


def _refuse(request: web.Request, rule: Rule) -> web.StreamResponse:
    if rule.hang_up:
        assert request.transport is not None
        request.transport.abort()
    if rule.page:
        return web.Response(text=rule.page, content_type="text/html", status=rule.status)
    details: dict[str, Any] = {} if rule.retry_after is None else {"retryAfterSeconds": rule.retry_after}
    if rule.causes:
        details["causes"] = rule.causes
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
