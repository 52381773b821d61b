"""An HTTP server down to the bytes: keeps each request as it came, and answers what a test says.

No HTTP library stands between, since each of them makes paths prettier than they were sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request; `target` is the second word of its first line."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


Respond = Callable[[Asked], bytes]


def answer(status: int, body: Any = b"", **headers: str) -> bytes:
    """An answer; a mapping or list is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {
        "Content-Length": str(len(raw)),
        "Connection": "close",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    lines = "".join(f"{k}: {v}\r\n" for k, v in told.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + raw


@dataclass
class RawServer:
    """Listens on 127.0.0.1; `respond` makes the answer, after which the connection is closed."""

    respond: Respond
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers: dict[str, str] = {}
            for name, _, value in (line.partition(":") for line in rest):
                before = headers.get(name.lower())  # of one that comes twice the values are a list
                headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            method, _, target = first.partition(" ")
            self.asked.append(Asked(method, target.rpartition(" ")[0], headers, body))
            writer.write(self.respond(self.asked[-1]))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[RawServer]:
    made = RawServer(respond)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
