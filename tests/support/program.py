"""Runs the `gameday` program as a user does: a process of its own, with its exit code and its folder."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import Forked
from tests.support.platforms import ROOT, Platform
from tests.support.polling import until

LONG = 180.0


@dataclass(frozen=True)
class Ended:
    """How the program ended. `folder` is the run's, None when there was none."""

    code: int
    output: str
    folder: Path | None = None

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_events(self.folder) if self.folder else []

    @property
    def verdict(self) -> str:
        return next((e["verdict"] for e in reversed(self.events) if e["type"] == "verdict"), "none")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["type"] == kind]


def read_events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


class Program:
    """`gameday` on one platform, with reports in a folder of the test's."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.reports = folder / "reports"
        self._calls = itertools.count(1)
        self.environment: dict[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "GAMEDAY_"))},
            "KUBECONFIG": str(platform.kubeconfig),
            "GAMEDAY_PROMETHEUS_URL": platform.prometheus_url,
            "GAMEDAY_GPUD_URL": platform.gpud_url,
            "GAMEDAY_SLURM_URL": platform.slurm_url,
            "SLURM_JWT": platform.slurm_token,
            "COLUMNS": "160",
            "NO_COLOR": "1",
        }

    def __call__(
        self,
        *arguments: Any,
        timeout: float = LONG,
        env: Mapping[str, str] | None = None,
        stderr: bool = True,
    ) -> Ended:
        """Run to the end. Without `stderr` the output is what a pipe gets."""
        output = self.reports.with_name(f"called-{next(self._calls)}.txt")
        process = self._start(arguments, env, output, None if stderr else output.with_suffix(".err"))
        try:
            code = process.wait(timeout)
        finally:
            _end(process)
        return Ended(code, output.read_text(), self.newest())

    def run(self, file: Any, *arguments: Any, **options: Any) -> Ended:
        """`gameday run`, approved."""
        return self("run", file, "--yes", "--reports", self.reports, *arguments, **options)

    @contextmanager
    def started(self, file: Any, *arguments: Any, env: Mapping[str, str] | None = None) -> Iterator[Running]:
        """`gameday run` in the background."""
        self.reports.mkdir(parents=True, exist_ok=True)
        before = set(self.reports.iterdir())
        output = self.reports.with_name("output.txt")
        process = self._start(("run", file, "--yes", "--reports", self.reports, *arguments), env, output)
        running = Running(process, self, before, output)
        try:
            yield running
        finally:
            _end(process)

    @contextmanager
    def running(self, *arguments: Any, env: Mapping[str, str] | None = None) -> Iterator[Path]:
        """Another command in the background, until the block ends; the file of its output."""
        output = self.reports.with_name(f"running-{next(self._calls)}.txt")
        output.parent.mkdir(parents=True, exist_ok=True)
        process = self._start(arguments, env, output)
        try:
            yield output
        finally:
            _end(process)

    def _start(
        self,
        arguments: Sequence[Any],
        env: Mapping[str, str] | None,
        output: Path,
        errors: Path | None = None,
    ) -> Forked | subprocess.Popen[bytes]:
        told, environment = [str(a) for a in arguments], {**self.environment, **(env or {})}
        if self.platform.name in ("sandbox", "cluster"):
            return Forked(told, ROOT, environment, output, errors)
        command = [sys.executable, "-m", "gameday", *told]
        with output.open("wb") as out, (errors or Path(os.devnull)).open("wb") as apart:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=apart if errors else subprocess.STDOUT,
            )

    def newest(self) -> Path | None:
        folders = sorted(self.reports.glob("*/events.jsonl"), key=lambda p: p.stat().st_mtime)
        return folders[-1].parent if folders else None


def _end(process: Forked | subprocess.Popen[bytes]) -> None:
    """A test that failed in the middle leaves a run; put back, it stands in nobody's way."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Running:
    """A run under way."""

    process: Forked | subprocess.Popen[bytes]
    program: Program
    before: set[Path]
    output: Path

    @property
    def folder(self) -> Path:
        new = [p for p in self.program.reports.iterdir() if p not in self.before]
        assert new, f"no folder yet: {self.output.read_text()}"
        return new[0]

    @property
    def events(self) -> list[dict[str, Any]]:
        new = [p for p in self.program.reports.iterdir() if p not in self.before]
        return read_events(new[0]) if new else []

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str, within: float = 60.0) -> None:
        """Wait for an event of the log."""

        def seen() -> bool:
            assert self.process.poll() is None or any(map(holds, self.events)), self.output.read_text()
            return any(map(holds, self.events))

        until(seen, what, within=within)

    def fault_is(self, state: str) -> None:
        self.until(lambda e: e["type"] == "fault" and e["state"] == state, f"a fault is {state}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> str:
        """kill -9, as the machine's end would be; the run's name."""
        self.process.kill()
        self.process.wait()
        return self.folder.name

    def ended(self, timeout: float = LONG) -> Ended:
        code = self.process.wait(timeout)
        return Ended(code, self.output.read_text(), self.folder)
