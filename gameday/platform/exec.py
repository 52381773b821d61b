"""Commands in containers, over the API server's WebSocket: the protocol v4.channel.k8s.io.

Each message begins with a byte that says its channel; the last one, on the error channel, is a Status with
the exit code. The API server hands this version of the protocol through to the kubelet as it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import aiohttp
from yarl import URL

from gameday.experiment.text import shorten
from gameday.platform import fence
from gameday.platform.errors import ApiError, Unreachable, WrongAnswer, without_frames

PROTOCOL = "v4.channel.k8s.io"
STDOUT, STDERR, ERROR = 1, 2, 3
LIMIT = 16 * 1024 * 1024  # bytes of output; more is a mistake


@dataclass(frozen=True)
class Exec:
    """How a command ended. `code` is its exit code, `status` that of HTTP: the protocol was switched."""

    stdout: str
    stderr: str
    code: int
    status: ClassVar[int] = 101


def is_killed(code: int) -> bool:
    """Whether a signal ended a command: `code` is negative (Python), or above 128 (a shell)."""
    return code < 0 or 128 < code <= 128 + 64


async def run_in_container(
    url: URL, headers: Mapping[str, str], route: dict[str, Any], what: str, timeout: float
) -> Exec:
    """Raises ApiError when it could not be run, Unreachable when its end was not heard in time.

    Asked for once, though by a GET: the command may change something.
    `route` is how the API server's other connections are made: `ssl`, `server_hostname`, `proxy`.
    """
    tracing = fence.once()
    tracing.on_request_redirect.append(_stay)
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(trace_configs=[tracing]) as session,
        ):
            connecting = session.ws_connect(
                url, headers=headers, protocols=(PROTOCOL,), max_msg_size=LIMIT, **route
            )
            async with connecting as socket:
                return await _listen(socket, what)
    except aiohttp.WSServerHandshakeError as error:
        if error.status < 400:
            raise WrongAnswer(f"cannot exec in {what}: HTTP {error.status} and no WebSocket") from error
        raise ApiError("exec in", what, error.status, error.message.encode()) from error
    except TimeoutError as error:
        raise Unreachable(f"cannot exec in {what}: it did not end within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = f"the connection broke off ({str(error) or type(error).__name__})"
        raise Unreachable(f"cannot exec in {what}: {why}") from without_frames(error)


async def _stay(_: Any, __: Any, redirect: aiohttp.TraceRequestRedirectParams) -> NoReturn:
    """Whoever answers elsewhere is not the server that was asked."""
    where = shorten(redirect.response.headers.get("Location", ""), 200)
    raise WrongAnswer(f"cannot exec: {redirect.url.host} redirects to {where}")


async def _listen(socket: aiohttp.ClientWebSocketResponse, what: str) -> Exec:
    """Gather the output until the error channel tells how it ended."""
    texts: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
    async for message in socket:
        if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            break
        data = message.data if isinstance(message.data, bytes) else message.data.encode()
        if data and data[0] in texts:
            texts[data[0]] += data[1:]
            if sum(map(len, texts.values())) > LIMIT:
                raise Unreachable(f"cannot exec in {what}: it printed more than {LIMIT >> 20} MiB")
    if not texts[ERROR]:
        raise Unreachable(f"cannot exec in {what}: the connection broke off before the command ended")
    code = _exit_code(bytes(texts[ERROR]), what)
    return Exec(texts[STDOUT].decode(errors="replace"), texts[STDERR].decode(errors="replace"), code)


def _exit_code(raw: bytes, what: str) -> int:
    """From the Status that ends the protocol. Raises ApiError when the command could not be run at all."""
    try:
        status = json.loads(raw)
        if status.get("status") == "Success":
            return 0
        if status.get("reason") == "NonZeroExitCode":
            causes = (status.get("details") or {}).get("causes") or ()
            return next((int(c["message"]) for c in causes if c.get("reason") == "ExitCode"), 1)
        code = int(status.get("code") or 500)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        code = 500
    raise ApiError("exec in", what, code, raw)
