"""A Prometheus that lies: empty, NaN, infinite, a million series, slow, or a web page."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from tests.support.threads import LoopThread

MANY = 1_000_000
LIES = ("honest", "empty", "NaN", "+Inf", "-Inf", "a million series", "slow", "HTML", "gone", "half a JSON")


@dataclass
class Liar:
    """Answers every query with what `lie` says; `url` while it runs."""

    lie: str = "honest"
    url: str = ""
    asked: int = 0
    _thread: LoopThread = field(default_factory=lambda: LoopThread("prometheus"))
    _server: asyncio.Server | None = None

    def start(self) -> None:
        self._thread.call(self._start())

    def stop(self) -> None:
        self._thread.call(self._stop())
        self._thread.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            asked = unquote_plus((head + await reader.readexactly(length)).decode("latin-1"))
            self.asked += 1
            await self._answer(asked, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: str, writer: asyncio.StreamWriter) -> None:
        if self.lie == "gone":
            writer.transport.abort()
            return
        if self.lie == "slow":
            await asyncio.sleep(30)
        if self.lie == "HTML":
            await _send(writer, b"<html>a login page</html>", b"text/html")
        elif self.lie == "half a JSON":
            await _send(writer, b'{"status": "success", "data": {"resultType": "vec')
        elif "/api/v1/query" not in asked:
            await _send(writer, _json({"alerts": [], "groups": [], "version": "3.0.0"}))
        elif self.lie == "a million series":
            await _million(writer, b"query_range" in asked.encode())
        else:
            await _send(writer, _json(self._result("query_range" in asked)))

    def _result(self, over_time: bool) -> dict[str, object]:
        now, value = time.time(), {"honest": "1", "empty": ""}.get(self.lie, self.lie)
        if self.lie == "empty":
            return {"resultType": "matrix" if over_time else "vector", "result": []}
        labels: dict[str, str] = {"job": "torture"}
        if over_time:
            return {"resultType": "matrix", "result": [{"metric": labels, "values": [[now, value]]}]}
        return {"resultType": "vector", "result": [{"metric": labels, "value": [now, value]}]}


@dataclass
class Answers(Liar):
    """Answers everything with one body."""

    body: bytes = b""

    async def _answer(self, asked: str, writer: asyncio.StreamWriter) -> None:
        await _send(writer, self.body)


def _json(data: object) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()


async def _send(writer: asyncio.StreamWriter, body: bytes, content: bytes = b"application/json") -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    writer.write(head % (content, len(body)) + body)
    await writer.drain()


async def _million(writer: asyncio.StreamWriter, over_time: bool) -> None:
    """A hundred megabytes, as from a query without an aggregation."""
    kind = b"matrix" if over_time else b"vector"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    writer.write(b'{"status":"success","data":{"resultType":"%s","result":[' % kind)
    values = b'"values":[[1,"1"]]' if over_time else b'"value":[1,"1"]'
    for start in range(0, MANY, 10_000):
        parts = [
            b'{"metric":{"pod":"p%d","job":"torture"},%s}' % (n, values) for n in range(start, start + 10_000)
        ]
        writer.write((b"," if start else b"") + b",".join(parts))
        await writer.drain()
    writer.write(b"]}}")
    await writer.drain()
