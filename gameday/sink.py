"""A place for output that may be full, blocked or gone: putting something there never waits and never raises.

A thread of its own does the writing, so that neither a stopped reader nor a hanging disk holds anybody up.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque

MOST = 32 * 2**20  # bytes that wait for a place that takes none
BATCH = 2**20  # bytes of one write
RETRY_EVERY = 0.2  # seconds between two attempts at a full disk
STUCK_AFTER = 5.0  # seconds in which a place has taken nothing


class Sink:
    """Writes bytes to a file descriptor, in order. `lasting`: a failure is waited out; else it is the end."""

    def __init__(self, fd: int, *, lasting: bool, most: int = MOST) -> None:
        self._fd, self._lasting, self._most = fd, lasting, most
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._head = b""  # what is being written: never dropped, since a part may be there already
        self._busy_since = 0.0  # time.monotonic() since when the place has taken nothing; 0: nothing waits
        self._failure = ""
        self._dead = self._ending = False
        self._news = threading.Condition()
        self.lost = 0  # chunks that found no room in memory either
        threading.Thread(target=self._work, name="sink", daemon=True).start()

    @property
    def trouble(self) -> str:
        """Why nothing can be written at the moment; empty when all is well."""
        stuck = self._busy_since and time.monotonic() - self._busy_since > STUCK_AFTER
        return self._failure or (f"nothing was taken for {STUCK_AFTER:g} s" if stuck else "")

    def put(self, chunk: bytes, *, expendable: bool = False) -> None:
        """Have it written. Where memory runs short, what is expendable is dropped first."""
        with self._news:
            if self._dead:
                return
            if self._size + len(chunk) > (self._most // 2 if expendable else self._most):
                self.lost += 1
                return
            self._waiting.append(chunk)
            self._size += len(chunk)
            self._news.notify_all()

    def drain(self, patience: float) -> bool:
        """Wait until all is written, or until nothing was taken for `patience` seconds. True when all is."""
        with self._news:
            left, since = -1, time.monotonic()
            while self._size and not self._dead:
                if self._size != left:
                    left, since = self._size, time.monotonic()
                if time.monotonic() - since > patience:
                    return False
                self._news.wait(RETRY_EVERY)
            return not self._dead

    def close(self, patience: float) -> bool:
        """As `drain`, and then the end."""
        done = self.drain(patience)
        with self._news:
            self._ending = True
            self._news.notify_all()
        return done

    def _work(self) -> None:
        while self._next():
            try:
                count = os.write(self._fd, self._head)
            except BlockingIOError:  # somebody made the descriptor non-blocking
                select.select([], [self._fd], [], STUCK_AFTER)
            except OSError as error:
                self._failed(error)
            else:
                self._wrote(count)
        if self._lasting:
            os.close(self._fd)

    def _next(self) -> bool:
        """Wait for something to write; False at the end."""
        with self._news:
            while not (self._head or self._waiting or self._ending):
                self._news.wait()
            if self._ending:
                return False
            self._busy_since = self._busy_since or time.monotonic()
            batch = [self._head]
            size = len(self._head)
            while self._waiting and (not size or size + len(self._waiting[0]) <= BATCH):
                size += len(self._waiting[0])
                batch.append(self._waiting.popleft())
            self._head = b"".join(batch)
            return True

    def _wrote(self, count: int) -> None:
        with self._news:
            self._head = self._head[count:]
            self._size -= count
            self._failure, self._busy_since = "", 0.0
            self._news.notify_all()

    def _failed(self, error: OSError) -> None:
        with self._news:
            self._failure = error.strerror or str(error)
            if self._lasting and not self._ending:
                self._news.wait(RETRY_EVERY)
                return
            self._dead, self._head, self._size = True, b"", 0
            self._waiting.clear()
            self._news.notify_all()
