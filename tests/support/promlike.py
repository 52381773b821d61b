"""Answers range queries as Prometheus does, for as many points as asked: for tests in compressed time.

It speaks just enough HTTP to be fast, so that what is measured beside it is the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs

Values = Callable[[str, float], float | None]  # the value of a query at a time, None: there is none


def ramp(_: str, at: float) -> float:
    return at % 3600


class PrometheusLike:
    """Each query gives `series` lines of `value`; what asks for timestamps hears that all is fresh."""

    def __init__(self, series: int = 1, value: Values = ramp) -> None:
        self.series, self.value = series, value
        self.up = True  # else it breaks every connection
        self.lie: bytes | None = None  # the body of every answer to an instant query but `1`
        self.delay = 0.0  # seconds before the answer to an instant query but `1`
        self.warning = ""  # of answers to ranges
        self.asked = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                sent = await reader.readexactly(length)
                form = parse_qs(sent.decode())
                if not self.up:
                    break
                self.asked += 1
                if b"query=1" not in sent and b" /api/v1/query " in head:
                    await asyncio.sleep(self.delay)
                body = self._answer(head.split(b" ", 2)[1].decode(), form)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    % len(body)
                )
                writer.write(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    def _answer(self, path: str, form: dict[str, list[str]]) -> bytes:
        if path.endswith("/query") and form["query"] != ["1"] and self.lie is not None:
            return self.lie
        return self._truth(path, form).encode()

    def _truth(self, path: str, form: dict[str, list[str]]) -> str:
        if not path.endswith(("/query", "/query_range")):
            return '{"status":"success","data":{}}'
        query = form["query"][0]
        if path.endswith("/query"):
            result = '{"resultType":"vector","result":[]}'
            if query == "1":
                result = '{"resultType":"scalar","result":[0,"1"]}'
            return f'{{"status":"success","data":{result}}}'
        start, end, step = (float(form[key][0]) for key in ("start", "end", "step"))
        if "timestamp" in query:
            return self._matrix([(t, t) for t in times(start, end, step)], 1)
        if self.warning:
            told = f'{{"warnings":["{self.warning}"],'
            return told + self._matrix([(t, 1.0) for t in times(start, end, step)], self.series)[1:]
        found = [(t, v) for t in times(start, end, step) if (v := self.value(query, t)) is not None]
        return self._matrix(found, self.series)

    def _matrix(self, points: list[tuple[float, float]], series: int) -> str:
        values = ",".join(f'[{t:.12g},"{v:.12g}"]' for t, v in points)
        lines = (
            f'{{"metric":{{"__name__":"m","pod":"inference-{i}","namespace":"inference"}},"values":[{values}]}}'
            for i in range(series)
        )
        result = ",".join(lines) if points else ""
        return f'{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}'


def times(start: float, end: float, step: float) -> list[float]:
    return [start + i * step for i in range(int((end - start) / step + 1.5))]
