"""What fails after a run for want of memory changes no exit code: the run has ended as it has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gameday import defect, report
from gameday.cli.after import finish, finish_run
from gameday.cli.slack import SlackRun
from gameday.cli.terminal import console
from gameday.report.slack_message import as_text, summary
from tests.report import logs

pytestmark = pytest.mark.fast


def no_memory(_: Path) -> None:
    raise MemoryError


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_what_slack_would_get_is_whole_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    await finish(console(), logs.write(tmp_path, logs.game_day()), SlackRun.to("#game-days"))
    said, retrospective = capsys.readouterr().out, report.analyse(logs.game_day())
    assert f"verdict: {retrospective.verdict}  {retrospective.why}\n" in said
    assert as_text(summary(retrospective, str(tmp_path / "report.html")).blocks) in said


async def test_a_report_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "render", no_memory)
    assert await finish_run(console(), tmp_path, None, "interrupted: stopped by SIGINT", 130) == 130
    said = capsys.readouterr().out
    assert "verdict: interrupted: stopped by SIGINT" in said
    assert "no report: there is no memory left; later: gameday report" in said


async def test_a_report_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert await finish_run(console(), tmp_path, None, "interrupted", 130) == 130
    assert "no report: no thread can be started" in capsys.readouterr().out
    assert defect.keep_trace(ValueError("x")) == "there is no memory to write the trace"


async def test_a_defect_is_one_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defective(_: Path) -> None:
        raise KeyError("x")

    monkeypatch.setattr(report, "render", defective)
    assert await finish_run(console(), tmp_path, None, "interrupted", 130) == defect.EXIT_CODE
