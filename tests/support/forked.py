"""`gameday` in a process forked from one that has imported the libraries.

Importing them anew for each of hundreds of calls is half of what the tests compute. On the cluster, and
wherever a test sends signals, the program is started as a user starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = [
    *(
        "aiohttp",
        "jinja2",
        "jsonpath_ng.ext",
        "kubernetes.aio.client",
        "kubernetes.aio.config",
        "rich.live",
        "rich.table",
    ),
    *("gameday.cli.app", "gameday.cli.after", "gameday.cli.show", "gameday.cli.slack"),
    *("gameday.run.live", "gameday.run.session", "gameday.report.page", "gameday.report.junit"),
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LIBRARIES)


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str], output: Path, timeout: float
) -> int:
    """Run to the end, without stdin, with both outputs in that file; the exit code."""
    process = _context.Process(target=_gameday, args=(arguments, str(folder), dict(environment), str(output)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(["gameday", *arguments], timeout, output.read_bytes())
    return process.exitcode


def _gameday(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    out, nothing = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, out, out)):
        os.dup2(source, target)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    sys.argv = ["gameday", *arguments]
    runpy.run_module("gameday", run_name="__main__")
