"""What a person sees: where a question belongs, what a pipe gets, and that a command which waits says so."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.platforms import ROOT, Platform
from tests.support.program import Program

pytestmark = pytest.mark.sandbox_only("about the program's own output")


def at_a_terminal(gameday: Program, arguments: Sequence[Any], answer: bytes) -> tuple[int, str]:
    """The exit code, and all that a terminal of 100 columns got, with this answer to the first question."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "gameday", *map(str, arguments)],
        cwd=ROOT,
        env={k: v for k, v in gameday.environment.items() if k != "COLUMNS"} | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_heard,
    )
    os.close(theirs)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            assert select.select([ours], [], [], 60)[0], shown.decode(errors="replace")
            shown += os.read(ours, 4096)
        os.write(ours, answer)
        with contextlib.suppress(OSError):  # the terminal is gone when the program is
            while select.select([ours], [], [], 60)[0] and (more := os.read(ours, 4096)):
                shown += more
        return process.wait(60), shown.decode(errors="replace").replace("\r\n", "\n")
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def _heard() -> None:
    """As a shell starts a program: with the terminal its own, and Ctrl-C heard even where tests ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("answer", "code", "echo"), [(b"\x03", 130, "^C"), (b"\x04", 4, ""), (b"n\n", 4, "n")]
)
def test_what_follows_a_question_is_on_a_line_of_its_own(
    answer: bytes, code: int, echo: str, gameday: Program, tmp_path: Path
) -> None:
    file, plan = write(tmp_path, method=[{**CORDON, "for": "1s"}]), tmp_path / "plan.json"
    ended, shown = at_a_terminal(gameday, ["run", file, "--reports", gameday.reports], answer)
    assert (ended, f"Run this plan? [y/N] {echo}\n" in shown) == (code, True), shown
    assert "\n\n\n" not in shown
    assert gameday("plan", file, "-o", plan).code == 0
    ended, shown = at_a_terminal(gameday, ["approve", plan, file], answer)
    assert (ended, f"Approve this plan? [y/N] {echo}\ngameday: " in shown) == (code, True), shown


def test_who_approves_sees_what_and_where(gameday: Program, tmp_path: Path) -> None:
    """As who runs it does: the title, the cluster, what is touched at most, and what speaks against it."""
    file, plan = write(tmp_path, method=[{**CORDON, "for": "1s"}]), tmp_path / "plan.json"
    planned = gameday("plan", file, "-o", plan)
    assert planned.code == 0, planned.output
    approved = gameday("approve", plan, file, "--yes")
    assert approved.code == 0, approved.output
    lines = planned.output.splitlines()
    told = [line for line in lines if line.startswith(("✓ target", "✓ cluster", "✓ blast radius", "! abort"))]
    assert [line.split(":")[0][2:] for line in told] == [
        "target",
        "cluster",
        "blast radius",
        "abort conditions",
    ]
    shown = approved.output.splitlines()
    assert [line for line in ("A test", *told) if line not in shown] == []


COMMANDS = {"faults": False, "probes": False, "plan": True, "doctor": False}


@pytest.mark.parametrize("columns", ["160", "none"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_in_a_pipe_ends_in_blanks(
    command: str, columns: str, gameday: Program, tmp_path: Path
) -> None:
    """Tables are drawn to the last column of a screen, which a file does not have."""
    if columns == "none":
        del gameday.environment["COLUMNS"]
    ended = gameday(command, *([write(tmp_path, method=[SCALE])] if COMMANDS[command] else []))
    assert ended.code == 0, ended.output
    assert len(ended.output.splitlines()) > 5
    assert [line for line in ended.output.splitlines() if line != line.rstrip()] == []


@pytest.mark.fast
@pytest.mark.parametrize("command", ["plan", "status", "doctor"])
def test_a_command_that_waits_for_a_cluster_says_so(command: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: earth\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n"
        "contexts: [{name: earth, context: {cluster: c, user: u}}]\n"
    )
    platform = Platform("none", "earth", tmp_path, config, prometheus_url="", control_url="", api_url="")
    file = [write(tmp_path, method=[SCALE], target={"context": "earth", "namespaces": ["platform"]})]
    ended = Program(platform, tmp_path)(command, *(file if command == "plan" else []))
    said = "gameday: still asking earth (http://127.0.0.1:9) …\n"
    assert ended.output.count(said) == 1, ended.output
    assert "refused the connection" in ended.output
