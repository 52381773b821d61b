"""The message for Slack: within Block Kit's limits whatever the run, and readable without Slack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gameday.report import analyse
from gameday.report.slack_message import ThreadLines, as_text, summary
from tests.report import logs
from tests.support import blockkit

pytestmark = pytest.mark.fast


def test_what_it_says() -> None:
    message = summary(analyse(logs.game_day()), "https://reports.example.com/run")
    text = as_text(message.blocks)
    assert text.startswith("Deviated: Inference keeps its latency while two GPU nodes are drained\n═══")
    assert "error ratio          < 1%                0.22%    1.61%     0.21%    BROKE" in text
    assert "1.87 s    318 ms   held\n  (while a fault was in: < 2s)" in text, "the bound that applied"
    assert "Recovery: 38 s (slowest; objective 3 min)" in text
    assert "Open the retrospective: https://reports.example.com/run" in text
    assert message.text.startswith("Deviated: ")


def test_a_path_is_shown_not_linked() -> None:
    assert "Retrospective: reports/x/report.html" in as_text(
        summary(analyse([]), "reports/x/report.html").blocks
    )


def test_limits_hold_for_huge_runs() -> None:
    retro = analyse(logs.game_day())
    long = "x" * 5000
    rows = tuple(replace(retro.hypothesis[0], probe=f"{i} {long}", expected=long) for i in range(80))
    found = tuple(replace(retro.findings[0], title=f"{i} {long}&<>") for i in range(80))
    huge = replace(
        retro, why=long, hypothesis=rows, findings=found, run=replace(retro.run, title=long, id=long)
    )
    message = summary(huge, "https://example.com/" + "y" * 2900)
    assert blockkit.problems(message.blocks) == []
    assert len(message.text) < 3000
    assert "… and 68 more" in as_text(message.blocks)


def test_every_prefix_makes_a_message() -> None:
    events = logs.game_day()
    for length in range(0, len(events), 7):
        assert blockkit.problems(summary(analyse(events[:length])).blocks) == []


def test_the_thread_carries_what_matters() -> None:
    tell = ThreadLines()
    lines = [line for e in logs.game_day() if (line := tell(e))]
    assert lines[0].startswith(":game_die: *Game day*: Inference keeps")
    assert (
        ':red_circle: `+1:28` Alert GPUNodeUnschedulable firing ({node="gpu-3", severity="warning"})' in lines
    )
    assert lines[-1].startswith(":red_circle: `+13:26` *Verdict: deviated*: error ratio")
    assert not any("FailedScheduling" in line for line in lines)
