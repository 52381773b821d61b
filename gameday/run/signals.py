"""Signals that ask a command to stop: SIGINT, SIGTERM, and SIGHUP as a dropped connection sends it.

They are heard from the first moment to the last. Whoever has something to put back answers them; otherwise
the command's task is cancelled.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Answer = Callable[[str], None]  # given the signal's name


class Signals:
    """Use as a context manager in the command's task. `heard` is the name of the first signal that came."""

    def __init__(self) -> None:
        self.heard = ""
        self._answer: Answer | None = None
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Signals:
        self._task = asyncio.current_task()
        for number in self._listened():
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work is done and its exit code is known: nothing that comes now may change it."""
        for number in self._listened():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def answered_by(self, answer: Answer) -> Iterator[None]:
        """While the context lasts, signals go to `answer` and cancel nothing."""
        self._answer, before = answer, self._answer
        try:
            yield
        finally:
            self._answer = before

    def stop(self) -> None:
        """Cancel the command's task."""
        if self._task is not None:
            self._task.cancel()

    def took_back(self) -> bool:
        """Whether a cancellation came from a signal; then it is answered, and the task may go on."""
        if self.heard and self._task is not None and self._task.cancelling():
            self._task.uncancel()
            return True
        return False

    def _hear(self, number: int) -> None:
        name = signal.Signals(number).name
        self.heard = self.heard or name
        if self._answer is not None:
            self._answer(name)
        else:
            self.stop()

    @staticmethod
    def _listened() -> list[signal.Signals]:
        """All but SIGHUP where it is ignored: that is what nohup is for."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return [s for s in STOPPING if s is not signal.SIGHUP or not ignored]
