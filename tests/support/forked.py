"""`gameday` in a process forked from one that has imported the libraries.

Importing them anew for each of hundreds of calls is half of what the tests compute. On the real node and with
the real controllers the program is started as a user starts it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

_LATE = ["aiohttp", "jsonpath_ng.ext", "kubernetes.aio.config", "rich.live", "rich.table"]  # on demand
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.warm", *_LATE])
_one_at_a_time = threading.Lock()  # starting one asks after all others, whose tests may run in other threads


class Forked:
    """`gameday`, without stdin, telling a file, and `errors` another: what tests need of subprocess.Popen."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
    ) -> None:
        told = (arguments, str(folder), dict(environment), str(output), str(errors or ""))
        self._process = _context.Process(target=_gameday, args=told)
        with _one_at_a_time:
            self._process.start()

    def poll(self) -> int | None:
        with _one_at_a_time:
            return self._process.exitcode

    def wait(self, timeout: float = math.inf) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("gameday", timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _gameday(
    arguments: list[str], folder: str, environment: dict[str, str], output: str, errors: str
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    out, nothing = os.open(output, new), os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, out, os.open(errors, new) if errors else out)):
        os.dup2(source, target)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    sys.argv = ["gameday", *arguments]
    runpy.run_module("gameday", run_name="__main__")
