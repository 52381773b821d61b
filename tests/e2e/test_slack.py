"""The run's story and its summary in Slack; whatever Slack does, the verdict stays what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.experiments import CORDON, write
from tests.support.program import Program
from tests.support.slack import FakeSlack
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about Slack")

CHANNEL = "#gpu-gamedays"
METHOD = [{**CORDON, "for": "2s"}]


def _environment(slack: FakeSlack) -> dict[str, str]:
    return {"SLACK_BOT_TOKEN": slack.token, "SLACK_API_URL": slack.url}


def test_a_run_tells_its_story_and_its_end(
    gameday: Program, slack: FakeSlack, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=METHOD, report={"slack": CHANNEL})
    ended = gameday.run(file, env=_environment(slack))
    assert ended.code == 0, ended.output
    assert f"posted to {CHANNEL}" in ended.output
    posts = [c.arguments for c in slack.calls if c.method == "chat.postMessage"]
    threads = {p.get("thread_ts") for p in posts}
    assert len(threads) == 2, "one first message, and all others in its thread"
    assert "Passed" in str([c.arguments for c in slack.calls if c.method == "chat.update"][-1])


def test_a_slack_that_refuses_changes_no_verdict_and_can_be_told_later(
    gameday: Program, slack: FakeSlack, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=METHOD, report={"slack": CHANNEL})
    wrong = {**_environment(slack), "SLACK_BOT_TOKEN": "xoxb-wrong"}
    ended = gameday.run(file, env=wrong)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "gameday report post" in ended.output
    assert ended.folder is not None
    later = gameday("report", "post", ended.folder, env=_environment(slack))
    assert later.code == 0, later.output
    assert f"posted to {CHANNEL}" in later.output


def test_without_a_token_the_message_is_printed(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=METHOD, report={"slack": CHANNEL}))
    assert ended.code == 0, ended.output
    assert "not posted: $SLACK_BOT_TOKEN is not set" in ended.output
    assert "Steady state" in ended.output
