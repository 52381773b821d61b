"""The program under torture: forked from a process that has its libraries; and its logs as they grow."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forked import Forked
from tests.support.platforms import ROOT, Platform
from tests.support.program import read_events

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE, _MODIFY = 0x100, 0x2
LOGS = ("ledger.jsonl", "events.jsonl")
LIMIT = 150.0  # seconds: nothing here has a reason to take longer


class TooLong(Exception):
    """The program did not end in time; says what it was doing."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    seconds: float
    folder: Path | None = None

    @property
    def verdict(self) -> str:
        events = read_events(self.folder) if self.folder else []
        return next((str(e["verdict"]) for e in reversed(events) if e["type"] == "verdict"), "none")

    @property
    def traced(self) -> bool:
        """Whether a stack trace was shown to the user."""
        return "Traceback (most recent call last)" in self.output


@dataclass
class Program:
    """`gameday` with an environment of its own; every run has a folder of its own for reports."""

    platform: Platform
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "GAMEDAY_"))}
        self.environment = {
            **inherited,
            "KUBECONFIG": str(self.platform.kubeconfig),
            "GAMEDAY_SLURM_URL": self.platform.slurm_url,
            "GAMEDAY_GPUD_URL": self.platform.gpud_url,
            "SLURM_JWT": self.platform.slurm_token,
            "COLUMNS": "200",
            "NO_COLOR": "1",
            **self.environment,
        }

    def start(self, *arguments: Any, env: Mapping[str, str] | None = None) -> Running:
        """Start it in the background."""
        self._count += 1
        output = self.folder / f"output-{self._count}.txt"
        environment = {**self.environment, **(env or {})}
        process = Forked([str(a) for a in arguments], ROOT, environment, output)
        return Running(process, output, time.monotonic())

    def run(self, file: Path, *more: Any, env: Mapping[str, str] | None = None) -> Running:
        """`gameday run`, approved, in a folder for reports of its own."""
        reports = self.folder / f"reports-{self._count + 1}"
        reports.mkdir(parents=True, exist_ok=True)
        running = self.start("run", file, "--yes", "--reports", reports, *more, env=env)
        running.reports = reports
        return running

    def __call__(self, *arguments: Any, env: Mapping[str, str] | None = None, within: float = LIMIT) -> Ended:
        """Run it to its end."""
        return self.start(*arguments, env=env).ended(within)

    def recover(self, running: Running) -> Ended:
        """`gameday recover` of one run, whatever its Lease says."""
        return self("recover", *running.named)


@dataclass
class Running:
    """A program under way."""

    process: Forked
    output: Path
    began: float
    reports: Path | None = None

    @property
    def pid(self) -> int:
        pid = self.process._process.pid
        assert pid is not None
        return int(pid)

    @property
    def folder(self) -> Path | None:
        """The run's own folder; None as long as there is none."""
        found = sorted(self.reports.iterdir()) if self.reports else []
        return found[0] if found else None

    @property
    def name(self) -> str:
        return self.folder.name if self.folder else ""

    @property
    def named(self) -> tuple[Any, ...]:
        """The options that name the run to `gameday recover`, whether it is known in the cluster or here."""
        assert self.reports is not None
        return ("--run", self.name, "--force", "--reports", self.reports)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9, from whatever thread."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, within: float = LIMIT) -> Ended:
        """Wait for its end. Raises TooLong, after killing it."""
        deadline = time.monotonic() + within
        while self.alive:
            if time.monotonic() > deadline:
                self.kill()
                self.process.wait()
                raise TooLong(f"still running after {within:g} s: {self._text()[-1500:]}")
            time.sleep(0.005)
        code = self.process.wait()
        return Ended(code, self._text(), time.monotonic() - self.began, self.folder)

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.folder) if self.folder else []

    def until(self, holds: Callable[[dict[str, Any]], bool], within: float = 60.0) -> bool:
        """Wait for an event of the log; False when the run ends, or time does, without it."""
        deadline = time.monotonic() + within
        while not any(map(holds, self.events())):
            if not self.alive or time.monotonic() > deadline:
                return any(map(holds, self.events()))
            time.sleep(0.02)
        return True

    def fault_is(self, state: str, within: float = 60.0) -> bool:
        return self.until(lambda e: e["type"] == "fault" and e["state"] == state, within)

    def all_in(self, count: int, within: float = 60.0) -> bool:
        """Wait until that many faults are in force."""
        seen: set[str] = set()

        def last(event: dict[str, Any]) -> bool:
            if event["type"] == "fault" and event["state"] == "in":
                seen.add(event["step"])
            return len(seen) >= count

        return self.until(last, within)

    def _text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class Lines:
    """Counts the lines of a run's logs as they are written, and says so at once: by inotify, no polling."""

    def __init__(self, reports: Path, heard: Callable[[str, int], None]) -> None:
        """`heard`: the file's name and how many whole lines it has; called in another thread."""
        self._reports, self._heard = reports, heard
        self._counts = dict.fromkeys(LOGS, 0)
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        _LIBC.inotify_add_watch(self._fd, str(reports).encode(), _CREATE)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> dict[str, int]:
        """Stop counting; how many lines each file has."""
        self._over.set()
        self._thread.join()
        os.close(self._fd)
        self._count()
        return dict(self._counts)

    def _listen(self) -> None:
        watched: set[Path] = set()
        while not self._over.is_set():
            ready, _, _ = select.select([self._fd], [], [], 0.1)
            if ready:
                self._drain()
            for folder in self._reports.iterdir():
                if folder not in watched:
                    watched.add(folder)
                    _LIBC.inotify_add_watch(self._fd, str(folder).encode(), _CREATE | _MODIFY)
            self._count()

    def _drain(self) -> None:
        try:
            data = os.read(self._fd, 2**16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from("I", data, at + 12)
            at += 16 + length

    def _count(self) -> None:
        for name in LOGS:
            found = [f / name for f in self._reports.iterdir() if (f / name).exists()]
            lines = found[0].read_bytes().count(b"\n") if found else 0
            if lines > self._counts[name]:
                self._counts[name] = lines
                self._heard(name, lines)
