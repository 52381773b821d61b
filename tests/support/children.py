"""Starts child processes that cannot outlive their parent, because a test run may be killed at any moment."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.polling import until

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildFailed(Exception):
    """A child process ended or did not get ready; carries the last lines of its log."""


class Child:
    """One program in its own process group, writing its output to a log file.

    Start it from a thread that lives as long as the program should: Linux sends the death signal when the
    starting thread ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        stdout: int | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def until_well(self, url: str, *, within: float) -> None:
        """Wait until its health is answered with 200 there. Raises ChildFailed as soon as it has ended."""

        def well() -> bool:
            self.check()
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(well, f"{self.name} is well", within=within)

    def check(self) -> None:
        """Raise when the program has ended."""
        code = self.process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended with exit code {code}; {self.last_lines()}")

    def last_lines(self, count: int = 15) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return "\n  ".join([f"the end of {self.log}:", *lines])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self, within: float = 10) -> None:
        """Ask the program to end; kill its group when it has not done so `within` seconds."""
        if self.running:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End the program and whatever it started, at once; does nothing when they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _die_with_parent() -> None:
    """Runs in the child between fork and exec; elsewhere than on Linux only `kill` ends the children."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
