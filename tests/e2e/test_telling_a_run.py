"""What a person says to a run by its name: whether that run is alive, has ended, died, or never was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.experiments import CORDON, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about names of runs")

COMMANDS = {
    "abort": ("abort",),
    "note": ("note", "the pager rang"),
    "recover": ("recover", "--run"),
    "forget": ("recover", "--forget", "--run"),
}


def _told(gameday: Program, command: str, run: str) -> tuple[int, str]:
    first, *rest = COMMANDS[command]
    words = [run, *rest] if command == "note" else [*rest, run]
    ended = gameday(first, *words, "--reports", gameday.reports)
    return ended.code, ended.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_run_has_is_a_mistake(command: str, gameday: Program) -> None:
    code, said = _told(gameday, command, "job-queue-dwon-20270101")
    assert code == 2, said
    assert "no run job-queue-dwon-20270101 is known" in said
    assert "nothing is in force there" in said


def test_a_name_that_no_run_has_is_answered_with_those_that_are_there(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[{**CORDON, "for": "60s"}])) as run:
        run.fault_is("in")
        name = run.kill()
    for command in COMMANDS:
        code, said = _told(gameday, command, f"{name}x")
        assert (code, f"in force there: {name}" in said) == (2, True), said
    code, said = _told(gameday, "note", name)
    assert (code, "noted in" in said) == (3, False), said
    assert f"gameday recover --run {name}" in said
    assert gameday("recover", "--run", name, "--force").code == 0
    for command, expected in {"abort": 0, "recover": 0, "note": 2}.items():
        code, said = _told(gameday, command, name)
        assert (code, "has ended" in said) == (expected, True), said


def test_a_run_that_ended_here_is_told_from_one_that_never_was(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=[{**CORDON, "for": "1s"}]))
    assert ended.code == 0, ended.output
    assert ended.folder is not None
    for command, expected in {"abort": 0, "recover": 0, "note": 2}.items():
        code, said = _told(gameday, command, ended.folder.name)
        assert (code, "has ended" in said) == (expected, True), said


@pytest.mark.parametrize("died", ["at its end", "before a change", "with a change in force"])
def test_a_run_that_died_where_no_change_was_in_force_has_left_nothing(
    died: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The cluster does not know of it, and the folder of the run tells why."""
    folder = gameday.run(write(tmp_path, method=[{**CORDON, "for": "1s"}])).folder
    assert folder is not None
    log, ledger = folder / "events.jsonl", folder / "ledger.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    written = ledger.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"type":"verdict"' not in line))
    if died == "before a change":
        ledger.unlink()
    elif died == "with a change in force":
        ledger.write_text("".join(line for line in written if '"undone"' not in line))
    code, said = _told(gameday, "recover", folder.name)
    if died == "with a change in force":
        assert (code, f"gameday recover --from {folder}" in said) == (2, True), said
    else:
        assert (code, "it died" in said) == (0, True), said
