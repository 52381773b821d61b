"""A Slack that runs here: the Web API over a real socket, with Slack's refusals, for the real client library.

It knows channels by id and name, checks tokens, scopes, membership, Block Kit and threads, keeps messages and
files, and records every call. Failures are planned with `fail`: the next call of that method gets them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.support import blockkit

Answer = dict[str, Any]
MAX_TEXT = 40_000
SCOPES = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
    "conversations.list": "channels:read",
}
APP_METHODS = {"apps.connections.open"}  # of Socket Mode: for the app-level token, and no other


@dataclass(frozen=True)
class Call:
    """One request as it came: the method, its arguments without the token, and when (seconds, monotonic)."""

    method: str
    arguments: dict[str, Any]
    at: float


@dataclass
class File:
    """An upload in its three stages: asked for, bytes arrived, completed (shared or private)."""

    id: str
    name: str
    length: int
    content: bytes | None = None
    completed: bool = False


@dataclass(frozen=True)
class Failure:
    """A planned answer: 429 with Retry-After, another status, a Slack error, or a broken connection."""

    status: int = 200
    error: str = ""
    retry_after: int | None = None
    hang_up: bool = False


class Refused(Exception):
    """A call that Slack answers with ok: false."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer: Answer = {"ok": False, "error": error, **more}


@dataclass
class FakeSlack:
    """Start with `start()` in an event loop; then point slack_sdk's `base_url` at `url`."""

    token: str = "xoxb-fake"
    app_token: str = "xapp-fake"
    scopes: set[str] = field(default_factory=lambda: set(SCOPES.values()))
    channels: dict[str, str] = field(default_factory=lambda: {"C0GAMEDAYS": "gpu-gamedays"})  # id -> name
    not_joined: set[str] = field(default_factory=set)  # ids of channels that the bot is not in
    calls: list[Call] = field(default_factory=list)
    messages: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))  # channel id -> them
    files: dict[str, File] = field(default_factory=dict)
    url: str = ""
    acknowledged: list[str] = field(default_factory=list)  # envelopes of Socket Mode, by their ids
    _sockets: set[web.WebSocketResponse] = field(default_factory=set)
    _failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _runner: web.AppRunner | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_post("/upload/v1/{id}", self._upload)
        app.router.add_get("/link/", self._link)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def fail(self, method: str, *failures: Failure) -> None:
        """Answer the next calls of a method ("upload" for the file's bytes) with these, one each."""
        self._failures[method].extend(failures)

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    # -- the protocol ------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments = await _arguments(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or arguments.get("token", "")
        arguments.pop("token", None)
        self.calls.append(Call(method, arguments, time.monotonic()))
        if failure := self._planned(method):
            return _fail(request, failure)
        try:
            self._authorize(method, token)
            answer = {"ok": True, **self._handler(method)(arguments)}
            return web.json_response(answer, headers=self._headers())
        except Refused as refused:
            return web.json_response(refused.answer, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"x-oauth-scopes": ",".join(sorted(self.scopes))}

    def _planned(self, method: str) -> Failure | None:
        queue = self._failures[method]
        return queue.pop(0) if queue else None

    def _authorize(self, method: str, token: str) -> None:
        if not token:
            raise Refused("not_authed")
        if token != (self.app_token if method in APP_METHODS else self.token):
            raise Refused("invalid_auth")
        needed = SCOPES.get(method)
        if needed and needed not in self.scopes:
            raise Refused("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))

    def _handler(self, method: str) -> Callable[[dict[str, Any]], Answer]:
        handlers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
            "apps.connections.open": self._open_connection,
            "conversations.list": self._list_conversations,
            "files.getUploadURLExternal": self._get_upload_url,
            "files.completeUploadExternal": self._complete_upload,
        }
        if method not in handlers:
            raise Refused("unknown_method", req_method=method)
        return handlers[method]

    # -- Socket Mode -------------------------------------------------------------------------------

    def _open_connection(self, arguments: dict[str, Any]) -> Answer:
        return {"url": self.url.replace("http:", "ws:").replace("/api/", "/link/?ticket=1&app_id=A0GAMEDAY")}

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        """A connection of an app; it hears hello, then envelopes, and acknowledges each by its id."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        hello = {"type": "hello", "num_connections": len(self._sockets) + 1}
        await socket.send_json(hello | {"connection_info": {"app_id": "A0GAMEDAY"}})
        self._sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self.acknowledged.append(json.loads(message.data)["envelope_id"])
        finally:
            self._sockets.discard(socket)
        return socket

    def press(self, channel: str, ts: str, user: str, *, value: str | None = None) -> str:
        """A person presses the button of a message, from another thread; the id of the app's envelope.

        Slack sends the button's own value, whoever presses; `value` is for one that is not the message's.
        """
        message = next(m for m in self.messages[channel] if m["ts"] == ts)
        (button,) = [e for b in message["blocks"] if b["type"] == "actions" for e in b["elements"]]
        envelope = f"envelope-{next(self._numbers)}"
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": user.lower(), "team_id": "T0"},
            "api_app_id": "A0GAMEDAY",
            "container": {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False},
            "channel": {"id": channel, "name": self.channels[channel]},
            "message": message,
            "actions": [
                {
                    "type": "button",
                    "action_id": button["action_id"],
                    "block_id": "b1",
                    "value": button["value"] if value is None else value,
                    "action_ts": self._timestamp(),
                }
            ],
        }
        told: Answer = {"type": "interactive", "envelope_id": envelope, "payload": payload}
        told["accepts_response_payload"] = False
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._send(told), self._loop).result(30)
        return envelope

    async def _send(self, told: Answer) -> None:
        """To one of the app's connections, if there is any."""
        for socket in list(self._sockets)[:1]:
            await socket.send_json(told)

    # -- the Web API -------------------------------------------------------------------------------

    def _auth_test(self, arguments: dict[str, Any]) -> Answer:
        return {
            "url": "https://example.slack.com/",
            "team": "Example",
            "user": "gameday",
            "bot_id": "B0GAMEDAY",
        }

    def _list_conversations(self, arguments: dict[str, Any]) -> Answer:
        limit, start = int(arguments.get("limit") or 100), int(arguments.get("cursor") or 0)
        ids = list(self.channels)
        page = ids[start : start + limit]
        cursor = str(start + limit) if start + limit < len(ids) else ""
        listed = [{"id": i, "name": self.channels[i], "is_member": i not in self.not_joined} for i in page]
        return {"channels": listed, "response_metadata": {"next_cursor": cursor}}

    def _post_message(self, arguments: dict[str, Any]) -> Answer:
        channel = self._channel(arguments, names=True)
        message = self._message(arguments)
        thread = arguments.get("thread_ts")
        if thread:
            self._thread(channel, thread)
            message["thread_ts"] = thread
        self.messages[channel].append(message)
        return {"channel": channel, "ts": message["ts"], "message": message}

    def _update(self, arguments: dict[str, Any]) -> Answer:
        channel = self._channel(arguments, names=False)
        for message in self.messages[channel]:
            if message["ts"] == arguments.get("ts"):
                changed = self._message(arguments)
                del changed["ts"]
                message.update(changed)
                return {"channel": channel, "ts": message["ts"], "text": message["text"], "message": message}
        raise Refused("message_not_found")

    def _get_upload_url(self, arguments: dict[str, Any]) -> Answer:
        name, length = arguments.get("filename"), int(arguments.get("length") or 0)
        if not name or length <= 0:
            raise Refused("invalid_arguments")
        file = File(f"F{next(self._numbers):08d}", name, length)
        self.files[file.id] = file
        return {"upload_url": self.url.replace("/api/", f"/upload/v1/{file.id}"), "file_id": file.id}

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        content = await _uploaded_bytes(request)
        self.calls.append(Call("upload", {"bytes": len(content)}, time.monotonic()))
        if failure := self._planned("upload"):
            return _fail(request, failure)
        file = self.files.get(request.match_info["id"])
        if file is None or len(content) != file.length:
            return web.Response(status=400, text="the file's length is not the one announced")
        file.content = content
        return web.Response(text=f"OK - {len(content)}")

    def _complete_upload(self, arguments: dict[str, Any]) -> Answer:
        asked = _decoded(arguments.get("files"))
        if not isinstance(asked, list) or not asked:
            raise Refused("invalid_arguments")
        files = [self.files.get(entry.get("id", "")) for entry in asked]
        shared = [file for file in files if file is not None and file.content is not None]
        if len(shared) != len(asked):
            raise Refused("file_not_found")
        described = [
            {"id": f.id, "title": e.get("title", f.name)} for f, e in zip(shared, asked, strict=True)
        ]
        if arguments.get("channel_id"):
            self._share(arguments, described)
        for file in shared:
            file.completed = True
        return {"files": described}

    def _share(self, arguments: dict[str, Any], files: list[Answer]) -> None:
        channel = self._channel({"channel": arguments["channel_id"]}, names=False)
        message = {"ts": self._timestamp(), "text": arguments.get("initial_comment") or "", "files": files}
        if thread := arguments.get("thread_ts"):
            self._thread(channel, thread)
            message["thread_ts"] = thread
        self.messages[channel].append(message)

    # -- rules -------------------------------------------------------------------------------------

    def _channel(self, arguments: dict[str, Any], *, names: bool) -> str:
        """The channel's id. Only chat.postMessage takes names."""
        asked = str(arguments.get("channel") or "")
        found = (
            {name: id_ for id_, name in self.channels.items()}.get(asked.removeprefix("#")) if names else None
        )
        channel = found or asked
        if channel not in self.channels:
            raise Refused("channel_not_found")
        if channel in self.not_joined:
            raise Refused("not_in_channel")
        return channel

    def _thread(self, channel: str, ts: str) -> None:
        """A reply goes to a thread's first message, never to a reply."""
        if not any(m["ts"] == ts and "thread_ts" not in m for m in self.messages[channel]):
            raise Refused("thread_not_found")

    def _message(self, arguments: dict[str, Any]) -> Answer:
        text, blocks = arguments.get("text") or "", _decoded(arguments.get("blocks"))
        if not text and not blocks:
            raise Refused("no_text")
        if len(text) > MAX_TEXT:
            raise Refused("msg_too_long")
        wrong = [*blockkit.problems(blocks), *self._unknown_files(blocks)] if blocks else []
        if wrong:
            messages = [f"[ERROR] {problem}" for problem in wrong]
            raise Refused("invalid_blocks", errors=wrong, response_metadata={"messages": messages})
        return {"ts": self._timestamp(), "text": text, "blocks": blocks or []}

    def _unknown_files(self, blocks: Any) -> list[str]:
        """An image block may only show a file whose upload is complete."""
        ids = [
            (index, block["slack_file"].get("id"))
            for index, block in enumerate(blocks)
            if isinstance(block, dict) and "slack_file" in block
        ]
        complete = {file.id for file in self.files.values() if file.completed}
        return [
            f"invalid slack file [json-pointer:/blocks/{index}/slack_file]"
            for index, id_ in ids
            if id_ is not None and id_ not in complete
        ]

    def _timestamp(self) -> str:
        return f"{int(time.time())}.{next(self._numbers):06d}"


async def _arguments(request: web.Request) -> dict[str, Any]:
    """Slack takes arguments from the query, a form or a JSON body."""
    arguments: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        arguments.update(await request.json())
    elif request.can_read_body:
        arguments.update(await request.post())
    return arguments


async def _uploaded_bytes(request: web.Request) -> bytes:
    """Raw bytes, or the first part of a multipart form: Slack takes both."""
    if request.content_type != "multipart/form-data":
        return await request.read()
    part = next(iter((await request.post()).values()))
    return part.file.read() if isinstance(part, web.FileField) else str(part).encode()


def _decoded(value: Any) -> Any:
    """Forms carry structures as JSON text, JSON bodies as themselves."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Refused("invalid_arguments") from None


def _fail(request: web.Request, failure: Failure) -> web.StreamResponse:
    if failure.hang_up:
        assert request.transport is not None
        request.transport.abort()
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    status = 429 if failure.retry_after is not None else failure.status
    error = failure.error or ("ratelimited" if status == 429 else "internal_error")
    return web.json_response({"ok": False, "error": error}, status=status, headers=headers)
