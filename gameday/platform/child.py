"""Programs that we start: each a group of its own, ended whole and in bounded time, whoever gives up on it.

What a program started may hold its pipes open, ignore SIGTERM and outlive it. So nobody waits for the end of
a pipe, only for the program's; then its group is killed. When we are killed ourselves, a guard reads the end
of its pipe, and kills the group. The guard is in a session of its own, so that no signal which the program
sends to its group (kill 0) ends or stops it. A process that leaves the group (setsid) is out of reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

LATE = 0.2  # seconds for the last of an output to arrive, once the group is gone
KILLED_WITHIN = 1.0  # seconds that a killed program may take to go; one that waits for a disk never does
LARGEST = 1 << 20  # bytes of an output that are kept; the rest is read and dropped

# The program begins when it is guarded, and never when we died before. A shell can't close what it read from.
_GATED = """read -r _ </dev/fd/{} && exec "$@" """
_GUARD = """trap '' INT TERM HUP; read -r _; kill -KILL "-$1" """


@dataclass(frozen=True)
class Ended:
    """How a program ended: exit code (negative for a signal), output, and whether some of it was dropped."""

    code: int
    out: bytes
    err: bytes
    cut: bool


async def run(
    command: Sequence[str],
    within: float,
    stdin: bytes | None = b"",
    environment: Mapping[str, str] | None = None,
    grace: float = 0.0,
    largest: int = LARGEST,
) -> Ended:
    """Run a program to its end, and let nothing of its group stay.

    The program gets `stdin` (None: ours), and `environment` in addition to ours. After `within` seconds, or
    when cancelled, it is asked to end, and `grace` seconds later it is killed. Raises TimeoutError when it
    took longer, OSError when it can't be started.
    """
    if (program := shutil.which(command[0])) is None:
        raise FileNotFoundError(f"there is no program {command[0]} here")
    async with contextlib.AsyncExitStack() as stack:
        gate, opened = _pipe(stack)
        out, err = _Kept(largest), _Kept(largest)
        to_out, to_err = await out.pipe(stack), await err.pipe(stack)
        pipes = None if stdin is None else await _feed(stdin, stack), to_out, to_err
        process = _start((program, *command[1:]), pipes, gate, environment or {})
        to_out.close()
        to_err.close()
        ended, guards = _end_of(process, stack), list[subprocess.Popen[bytes]]()
        try:
            guards.append(_guard(process.pid, stack))
            with contextlib.suppress(BrokenPipeError):
                opened.write(b"\n")
            opened.close()
            async with asyncio.timeout(within):
                await asyncio.shield(ended)
        finally:
            ending = asyncio.ensure_future(_end(process, ended, guards, grace))
            await asyncio.shield(ending)
        await asyncio.wait({out.ended, err.ended}, timeout=LATE)
        code = process.poll()
        return Ended(-signal.SIGKILL if code is None else code, bytes(out.data), bytes(err.data), out.cut)


def _start(
    command: Sequence[str],
    pipes: tuple[BinaryIO | None, BinaryIO, BinaryIO],
    gate: BinaryIO,
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """A program that begins when a line comes through the gate."""
    stdin, stdout, stderr = pipes
    return subprocess.Popen(
        ("/bin/sh", "-c", _GATED.format(gate.fileno()), "sh", *command),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **environment},
        pass_fds=(gate.fileno(),),
        start_new_session=True,
    )


def _end_of(process: subprocess.Popen[bytes], stack: contextlib.AsyncExitStack) -> asyncio.Future[None]:
    """A program's end, by its pidfd: it is not reaped."""
    loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    pidfd = os.pidfd_open(process.pid)
    stack.callback(os.close, pidfd)
    stack.callback(loop.remove_reader, pidfd)

    def end() -> None:
        loop.remove_reader(pidfd)
        ended.set_result(None)

    loop.add_reader(pidfd, end)
    return ended


def _guard(group: int, stack: contextlib.AsyncExitStack) -> subprocess.Popen[bytes]:
    """Kills a group when we are gone: then the pipe ends that only we can write to."""
    reading, _ours = _pipe(stack)
    return subprocess.Popen(
        ("/bin/sh", "-c", _GUARD, "sh", str(group)),
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _end(
    process: subprocess.Popen[bytes],
    ended: asyncio.Future[None],
    guards: Sequence[subprocess.Popen[bytes]],
    grace: float,
) -> None:
    """End the group, then its guard. The program is reaped last, and until then the number is its group's."""
    if not ended.done() and grace:
        _signal(process, signal.SIGTERM)
        await asyncio.wait({ended}, timeout=grace)
    _signal(process, signal.SIGKILL)
    for guard in guards:
        guard.kill()
        guard.wait()
    await asyncio.wait({ended}, timeout=KILLED_WITHIN)
    process.poll()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _pipe(stack: contextlib.AsyncExitStack) -> tuple[BinaryIO, BinaryIO]:
    """Both ends of a pipe, to read from and to write to, closed at the latest with the stack."""
    reading, writing = os.pipe()
    files = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
    for file in files:
        stack.callback(file.close)
    return files


async def _feed(data: bytes, stack: contextlib.AsyncExitStack) -> BinaryIO:
    """The end from which a program reads `data`."""
    reading, writing = _pipe(stack)
    transport, feed = await asyncio.get_running_loop().connect_write_pipe(_Pipe, writing)
    stack.callback(lambda: None if feed.ended.done() else transport.abort())
    transport.write(data)
    transport.close()  # once all is written; who does not read it fails nobody
    return reading


class _Pipe(asyncio.Protocol):
    """Our end of a pipe."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.cancel()


class _Kept(_Pipe):
    """The first bytes of an output."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.data, self.cut = bytearray(), False
        self._largest = largest

    async def pipe(self, stack: contextlib.AsyncExitStack) -> BinaryIO:
        reading, writing = _pipe(stack)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, reading)
        stack.callback(transport.close)
        return writing

    def data_received(self, data: bytes) -> None:
        room = self._largest - len(self.data)
        self.cut = self.cut or len(data) > room
        self.data += data[: max(0, room)]
