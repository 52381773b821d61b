"""A line between the program and a server, which counts what goes over it, and is cut or spoilt on demand.

HTTP/1.1 as bytes: requests are read whole, answers are passed on as they come, so that a watch stays a watch
and an upgrade (exec) becomes a plain pipe.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from tests.support.threads import LoopThread

CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
QUESTIONS = ("/apis/authorization.k8s.io/", "dryRun=All")  # asked with POST, and nothing changes
HEAD_LIMIT = 2**20


@dataclass(frozen=True)
class Call:
    """A request as it came; `number` counts those that change something, from 1, and is 0 for the others."""

    method: str
    path: str
    number: int
    at: int  # counts all requests

    @property
    def watches(self) -> bool:
        return "watch=true" in self.path or "watch=1" in self.path


@dataclass(frozen=True)
class Reply:
    """An answer that no server gave."""

    status: int
    body: str = ""
    content: str = "application/json"
    cut: bool = False  # the connection breaks in the middle of the body

    def encoded(self) -> bytes:
        body = self.body.encode()
        head = f"HTTP/1.1 {self.status} Torture\r\nContent-Type: {self.content}\r\n"
        whole = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        return whole[: -len(body) // 2] if self.cut and body else whole


class HungUp(Exception):
    """Raised by a fate: the connection ends here, without an answer."""


class Fate(Protocol):
    """What becomes of requests. Runs in the line's own thread, and may wait."""

    async def before(self, call: Call) -> Reply | None:
        """Nothing was forwarded yet. A reply is given instead of asking; HungUp ends the connection."""
        ...

    async def after(self, call: Call) -> None:
        """The server has answered, and nobody has heard yet. HungUp loses the answer."""
        ...

    async def delivered(self, call: Call) -> None:
        """The answer is on its way to the client."""
        ...


class Fair:
    """Fair weather: everything passes. Others say what they do otherwise."""

    async def before(self, call: Call) -> Reply | None:
        return None

    async def after(self, call: Call) -> None:
        return None

    async def delivered(self, call: Call) -> None:
        return None


@dataclass
class Lines:
    """Lines to several servers with one count of the changes that go over them."""

    fate: Fate = field(default_factory=Fair)
    calls: list[Call] = field(default_factory=list)
    _thread: LoopThread = field(default_factory=lambda: LoopThread("lines"))
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _changes: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def changes(self) -> list[Call]:
        return [call for call in self.calls if call.number]

    def begin(self, fate: Fate) -> None:
        """Count from 1 again, under another fate; connections of before are broken."""
        self._thread.call(self._break())
        self.fate, self.calls, self._changes = fate, [], itertools.count(1)

    def to(self, url: str, tls: ssl.SSLContext | None = None) -> str:
        """A line to a server; returns the address of its near end."""
        return self._thread.call(self._listen(url, tls))

    def kubeconfig(self, upstream: Path, here: Path) -> Path:
        """A kubeconfig, written `here`, that reaches the same cluster over a line."""
        config = yaml.safe_load(upstream.read_text())
        cluster = config["clusters"][0]["cluster"]
        tls = None
        if cluster["server"].startswith("https"):
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            tls = ssl.create_default_context(cadata=authority)
        config["clusters"][0]["cluster"] = {"server": self.to(cluster["server"], tls)}
        here.write_text(json.dumps(config))
        return here

    def hang_up(self) -> None:
        """Break every open connection."""
        self._thread.call(self._break())

    def close(self) -> None:
        self._thread.call(self._end())
        self._thread.close()

    async def _break(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._break()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, url: str, tls: ssl.SSLContext | None) -> str:
        parts = urlsplit(url)
        far = (parts.hostname or "127.0.0.1", parts.port or 80, tls)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self._open.add(writer)
            try:
                await self._serve(reader, writer, far)
            except (OSError, HungUp, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
                pass
            finally:
                self._open.discard(writer)
                self._tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=HEAD_LIMIT)
        self._servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: tuple[str, int, Any]
    ) -> None:
        """All requests of one connection, over one connection of ours."""
        beyond: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while head := await _head(reader):
                body = await _whole_body(reader, head)
                call, fate = self._count(head), self.fate
                if reply := await fate.before(call):
                    writer.write(reply.encoded())
                    await writer.drain()
                    return
                if beyond is None or beyond[1].is_closing():
                    host, port, tls = far
                    beyond = await asyncio.open_connection(host, port, ssl=tls, limit=HEAD_LIMIT)
                    self._open.add(beyond[1])
                beyond[1].write(head + body)
                await beyond[1].drain()
                if not await self._answer(call, fate, reader, writer, beyond):
                    return
        finally:
            if beyond is not None:
                self._open.discard(beyond[1])
                beyond[1].transport.abort()

    def _count(self, head: bytes) -> Call:
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        changes = method in CHANGES and not any(q in path for q in QUESTIONS)
        changes |= "/exec?" in path  # a program that is run in a pod
        call = Call(method, path, next(self._changes) if changes else 0, len(self.calls) + 1)
        self.calls.append(call)
        return call

    async def _answer(
        self,
        call: Call,
        fate: Fate,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        beyond: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """Pass the answer on; whether the connection may be used again."""
        head = await _head(beyond[0])
        if not head:  # the server went away
            raise HungUp
        status = int(head.split(b" ", 2)[1])
        if status == 101:
            writer.write(head)
            await _pipe(reader, writer, *beyond)
            await fate.after(call)
            await fate.delivered(call)
            return False
        if call.number:  # held until the fate has spoken
            body = await _whole_body(beyond[0], head, until_end=True)
            await fate.after(call)
            writer.write(head + body)
            await writer.drain()
            await fate.delivered(call)
            return True
        writer.write(head)
        await _pass_body(beyond[0], writer, head)
        return b"connection: close" not in head.lower()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """A message's first line and headers; empty when the other side has ended."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _header(head: bytes, name: str) -> str:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.decode("latin-1").partition(":")
        if key.strip().lower() == name:
            return value.strip().lower()
    return ""


async def _whole_body(reader: asyncio.StreamReader, head: bytes, until_end: bool = False) -> bytes:
    if _header(head, "transfer-encoding") == "chunked":
        parts = []
        while True:
            chunk = await _chunk(reader)
            parts.append(chunk)
            if chunk.startswith(b"0\r\n"):
                return b"".join(parts)
    if length := _header(head, "content-length"):
        return await reader.readexactly(int(length))
    if until_end and head.split(b" ", 2)[1] not in (b"204", b"304"):
        return await reader.read()
    return b""


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readuntil(b"\r\n")
    length = int(size.split(b";")[0], 16)
    return size + await reader.readexactly(length + 2)


async def _pass_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    if _header(head, "transfer-encoding") == "chunked":
        while True:
            chunk = await _chunk(reader)
            writer.write(chunk)
            await writer.drain()
            if chunk.startswith(b"0\r\n"):
                return
    writer.write(await _whole_body(reader, head, until_end=True))
    await writer.drain()


async def _pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Bytes both ways until one side ends."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(2**16):
                sink.write(chunk)
                await sink.drain()

    ways = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    await asyncio.gather(*ways, return_exceptions=True)


Killer = Callable[[], None]
LATE = 5.0  # seconds that a change is kept by a proxy: a recovery has begun by then


@dataclass
class Kill(Fair):
    """Kills the program at its `number`-th change: before it is forwarded, unanswered, or answered.

    `late`: the change is kept meanwhile, and forwarded when a recovery has had time to look.
    """

    number: int
    moment: str
    kill: Killer
    struck: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)  # what was kept

    def wait(self) -> None:
        """Until what was kept has arrived, where something was."""
        if self.struck and self.moment == "late":
            self.arrived.wait(3 * LATE)

    def _strike(self, call: Call, moment: str) -> None:
        if call.number == self.number and moment == self.moment:
            self.struck = True
            self.kill()
            raise HungUp

    async def before(self, call: Call) -> Reply | None:
        if self.struck:  # what was sent before it died comes no further
            raise HungUp
        if call.number == self.number and self.moment == "late":
            self.struck = True
            self.kill()
            await asyncio.sleep(LATE)
            return None
        self._strike(call, "before")
        return None

    async def after(self, call: Call) -> None:
        if call.number == self.number and self.moment == "late":
            self.arrived.set()
        self._strike(call, "unanswered")

    async def delivered(self, call: Call) -> None:
        self._strike(call, "answered")
