"""Standard output and error as every command has them: telling never fails, and says nothing but text.

A reader that went away, a full disk behind a redirection, a stream that was closed before the start or one
that can't show a character: none of them raises, and so none changes an exit code. Whatever is printed,
control characters from elsewhere are shown and not obeyed.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO, cast

from gameday.inert import visible
from gameday.masking import mask_text
from gameday.sink import Sink

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE = 5.0  # seconds that the end of a run waits for a reader who takes nothing
LINE = 1000  # columns of what goes into a file or a pipe: no name is cut there
MOST = 4 * 2**20  # bytes kept for such a reader; the report has everything


class Stream(io.TextIOBase):
    """Text for a file descriptor. `inert`: control characters are shown; not so where Rich writes colours."""

    def __init__(self, fd: int, encoding: str, inert: bool = True) -> None:
        self._fd, self._encoding, self._inert = fd, encoding, inert
        self._sink: Sink | None = None
        self._gone = False
        self.styled: Stream = Stream(fd, encoding, inert=False) if inert else self

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        try:
            return os.isatty(self._fd)
        except OSError:
            return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = (visible(mask_text(text)) if self._inert else text).encode(self._encoding, "backslashreplace")
        if self._sink is not None:
            self._sink.put(data)
        while data and self._sink is None and not self._gone:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError as error:  # a command does its work all the same
                self._gone = True
                if error.errno != errno.EPIPE and self._fd == 1:  # a reader who has enough is no failure
                    print(f"gameday: the output can't be written: {error.strerror}", file=sys.stderr)
        return len(text)

    def never_wait(self) -> None:
        """From now on a reader that has stopped holds nobody up."""
        self._sink = self.styled._sink = self._sink or Sink(self._fd, lasting=False, most=MOST)

    def drain(self) -> None:
        """At the end: what is not read within PATIENCE is not shown."""
        if self._sink is not None:
            self._sink.drain(PATIENCE)


def install() -> None:
    """Put such streams in the place of the interpreter's."""
    _occupy()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is not None:
            old.flush()
        encoding = getattr(old, "encoding", None) or "utf-8"
        setattr(sys, name, cast(TextIO, Stream(fd, encoding)))


def _occupy() -> None:
    """A stream that was closed before the start must not be the next file or connection that is opened."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def never_wait() -> None:
    """For commands that keep a cluster safe: whoever reads the output can't hold them up."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.never_wait()


def drain() -> None:
    """Wait for readers, if they read."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.drain()


def ours() -> TextIO:
    """Standard output for text that is ours and is to arrive as it is: a schema, the sandbox's token."""
    return cast(TextIO, sys.stdout.styled) if isinstance(sys.stdout, Stream) else sys.stdout


def console() -> Console:
    """Rich's console for text from anywhere: no markup, no emoji codes, nothing that is obeyed but ours."""
    from gameday.cli.console import InertConsole

    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return InertConsole(
        file=ours() if isinstance(sys.stdout, Stream) else None,
        width=None if narrow else LINE,
        markup=False,
        emoji=False,
        highlight=False,
    )
