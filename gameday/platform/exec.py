"""Commands in containers, over the API server's WebSocket: the protocol v4.channel.k8s.io.

Each message begins with a byte that says its channel; the last one, on the error channel, is a Status with
the exit code. The API server hands this version of the protocol through to the kubelet as it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from gameday.platform.errors import ApiError, Unreachable

PROTOCOL = "v4.channel.k8s.io"
STDOUT, STDERR, ERROR = 1, 2, 3
LIMIT = 16 * 1024 * 1024  # bytes of output; more is a mistake


@dataclass(frozen=True)
class Exec:
    """How a command ended. `code` is its exit code."""

    stdout: str
    stderr: str
    code: int


async def run_in_container(
    url: str, headers: dict[str, str], tls: Any, what: str, query: Sequence[tuple[str, str]], timeout: float
) -> Exec:
    """Raises ApiError when it could not be run, Unreachable when its end was not heard in time."""
    try:
        async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
            connecting = session.ws_connect(
                url, params=query, headers=headers, protocols=(PROTOCOL,), ssl=tls, max_msg_size=LIMIT
            )
            async with connecting as socket:
                return await _listen(socket, what)
    except aiohttp.WSServerHandshakeError as error:
        raise ApiError("exec in", what, error.status, error.message.encode()) from error
    except TimeoutError as error:
        raise Unreachable(f"cannot exec in {what}: it did not end within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"cannot exec in {what}: the connection broke off ({why})") from error


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
    except ValueError:
        raise ApiError("exec in", what, 500, raw) from None
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        causes = (status.get("details") or {}).get("causes") or ()
        return next((int(c["message"]) for c in causes if c.get("reason") == "ExitCode"), 1)
    raise ApiError("exec in", what, int(status.get("code") or 500), raw)
