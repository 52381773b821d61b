"""Approvals by a button in Slack, a change in ServiceNow and a webhook; and a run that waits for them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.loader import load
from gameday.experiment.problems import InvalidExperiment
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import SIGNING_REQUESTS
from tests.e2e.experiments import SCALE, write
from tests.safety.test_effects import refused
from tests.safety.test_gate import keep, run
from tests.support.polling import until
from tests.support.program import Ended, Program, Running
from tests.support.servicenow import ServiceNow, answer, servicenow, serving
from tests.support.slack import FakeSlack
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about systems that approve")

STEP = {**SCALE, "for": "1s"}
CHANNEL = "C0GAMEDAYS"


@pytest.fixture
def instance() -> Iterator[ServiceNow]:
    with servicenow() as fake:
        yield fake


@contextmanager
def webhook(reply: Callable[[Any], tuple[int, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """An address, and what was asked there: each question with its Authorization."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body, self.headers.get("Authorization")))
            answer(self, *reply(body))

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, asked


def digest(kept: Path) -> str:
    return str(json.loads(kept.read_text())["digest"])


async def with_env(gameday: Program, file: Path, kept: Path, env: dict[str, str]) -> Ended:
    return await asyncio.to_thread(gameday.run, file, "--plan", kept, env=env)


def waits(running: Running, words: str) -> None:
    running.until(
        lambda e: e["type"] == "preflight" and e["check"] == "approvals" and words in e["message"],
        f"it waits: {words}",
    )


# -- ServiceNow -------------------------------------------------------------------------------------


async def test_a_change_in_servicenow(
    gameday: Program, tmp_path: Path, instance: ServiceNow, world_unchanged: Snapshot
) -> None:
    """Step by step: no login, no change, another plan's, not approved, by the wrong one, by the right one."""
    change = {"url": instance.url, "change": "CHG0030001"}
    approvals = {"required": 1, "from": ["servicenow:alice"], "serviceNow": change}
    file = write(tmp_path, method=[STEP], approvals=approvals)
    kept = await keep(gameday, file)

    async def says(*words: str, env: dict[str, str] = instance.env) -> None:
        refused(await with_env(gameday, file, kept, env), *words)

    await says("ServiceNow wants $SERVICENOW_TOKEN", env={})
    await says("table change_request) answered 401", env=instance.env | {"SERVICENOW_PASSWORD": "no"})
    instance.tables["change_request"] = []
    await says("no change CHG0030001")
    other = instance.change("CHG0099999", "other", approval="approved")
    instance.note("other", f"gameday plan {digest(kept)}")
    instance.approver("other", "alice", "approved")
    asked = instance.change("CHG0030001", "asked", description=f"gameday plan {digest(kept)}")
    await says("is not about this plan: write", digest(kept))
    instance.note("asked", f"For next Friday.\ngameday plan {digest(kept)}")
    instance.approver("asked", "mallory", "approved")
    alice = instance.approver("asked", "alice", "requested")
    await says("approved by nobody")
    asked["approval"] = "approved"
    await says("approved by nobody (servicenow:mallory may not approve)")
    instance.blind = True  # what it gives is more than was asked for
    await says("approved by nobody (servicenow:mallory may not approve)")
    instance.touch(alice, "alice", state="approved")
    now = datetime.now(UTC)
    asked["start_date"] = f"{now + timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    await says("approved by nobody")
    asked["start_date"] = f"{now - timedelta(hours=2):%Y-%m-%d %H:%M:%S}"
    asked["end_date"] = f"{now - timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    await says("approved by nobody")
    asked["end_date"] = f"{now + timedelta(minutes=10):%Y-%m-%d %H:%M:%S}"
    ended = await with_env(gameday, file, kept, instance.env)
    assert ended.code == 0, ended.output
    told = next(e["message"] for e in ended.of("preflight") if e["check"] == "approvals")
    assert "is approved by servicenow:alice" in told
    assert instance.password not in (ended.folder / "events.jsonl").read_text() if ended.folder else ""
    assert other["approval"] == "approved"


async def test_a_change_that_was_approved_for_something_else(
    gameday: Program, tmp_path: Path, instance: ServiceNow, world_unchanged: Snapshot
) -> None:
    """Who may edit the change makes it about another plan once it is approved, in each way that there is."""
    change = {"url": instance.url, "change": "CHG0030001"}
    approvals = {"required": 1, "from": ["servicenow:alice"], "serviceNow": change}
    file = write(tmp_path, method=[STEP], approvals=approvals)
    kept = await keep(gameday, file)

    async def says(*words: str) -> None:
        refused(await with_env(gameday, file, kept, instance.env), *words)

    asked = instance.change("CHG0030001", "asked", approval="approved", description="restart one pod")
    alice = instance.approver("asked", "alice", "approved")
    asked["description"] = f"gameday plan {digest(kept)}"
    await says("is not about this plan")
    instance.note("asked", f"gameday plan {digest(kept)}", element="close_notes")
    await says("is not about this plan")
    instance.note("asked", f"gameday plan {digest(kept)}")
    await says("approved by nobody")  # she could not see it
    instance.touch(alice, "mallory", comments="so that it looks newer")
    await says("approved by nobody")
    instance.touch(alice, "alice", state="approved")  # she has seen it, and says so
    instance.note("asked", f"gameday plan {'0' * 64}", element="comments")
    await says("is about another plan")
    instance.tables["sys_journal_field"].pop()
    ended = await with_env(gameday, file, kept, instance.env)
    assert ended.code == 0, ended.output


# -- a webhook --------------------------------------------------------------------------------------


async def test_a_webhook_is_asked_about_just_this_plan(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    replies: list[tuple[int, Any]] = []
    by = [{"by": "alice"}]
    with webhook(lambda body: replies[-1]) as (url, asked):
        approvals = {"required": 1, "from": ["webhook:alice"], "webhook": url}
        file = write(tmp_path, method=[STEP], approvals=approvals)
        kept = await keep(gameday, file)
        past = f"{datetime.now(UTC) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"
        for reply, words in (
            ((500, {}), "answered 500"),
            ((302, {}), "answered 302"),
            ((200, ["nonsense"]), "can't be understood"),
            ((200, {"plan": "0" * 64, "approvals": by}), "about another plan"),
            ((200, {"plan": digest(kept), "approvals": [{"by": "bob"}]}), "(webhook:bob may not approve)"),
            ((200, {"plan": digest(kept), "approvals": [{"by": "alice", "until": past}]}), "by nobody"),
            ((202, {}), "approved by nobody"),
        ):
            replies.append(reply)
            refused(await run(gameday, file, "--plan", kept), words)
        replies.append((200, {"plan": digest(kept), "approvals": by}))
        ended = await with_env(gameday, file, kept, {"GAMEDAY_APPROVALS_TOKEN": "token-of-the-webhook"})
        assert ended.code == 0, ended.output
    body, authorization = asked[-1]
    assert body["plan"] == digest(kept)
    assert any("job-queue-controller" in change for change in body["changes"])
    assert authorization == "Bearer token-of-the-webhook"
    gone = await run(gameday, file, "--plan", kept)
    refused(gone, "did not answer")


# -- Slack, and waiting -----------------------------------------------------------------------------


def slack_env(slack: FakeSlack) -> dict[str, str]:
    tokens = {"SLACK_BOT_TOKEN": slack.token, "SLACK_APP_TOKEN": slack.app_token}
    return {**tokens, "SLACK_API_URL": slack.url}


async def test_a_button_in_slack(
    gameday: Program, tmp_path: Path, slack: FakeSlack, world_unchanged: Snapshot
) -> None:
    """Two people must press it, and the same one twice is one; a click for another plan is none."""
    who = ["slack:U0ALICE", "slack:U0BOB"]
    approvals = {"required": 2, "from": who, "slack": "#gpu-gamedays", "within": "5m"}
    file = write(tmp_path, method=[STEP], approvals=approvals)
    kept = await keep(gameday, file)

    def drive() -> Ended:
        with gameday.started(file, "--plan", kept, env=slack_env(slack)) as running:
            waits(running, "2 approvals are required, approved by nobody; waiting for")
            (message,) = slack.messages[CHANNEL]
            assert "job-queue-controller" in message["blocks"][0]["text"]["text"]
            press = slack.press(CHANNEL, message["ts"], "U0BOB", value="0" * 64)
            until(lambda: press in slack.acknowledged, "it is acknowledged")
            for user in ("U0MALLORY", "U0ALICE", "U0ALICE"):
                slack.press(CHANNEL, message["ts"], user)
            waits(running, "approved by slack:U0ALICE (slack:U0MALLORY may not approve); waiting")
            slack.press(CHANNEL, message["ts"], "U0BOB")
            return running.ended()

    ended = await asyncio.to_thread(drive)
    assert ended.code == 0, ended.output
    told = [e["message"] for e in ended.of("preflight") if e["check"] == "approvals"]
    assert "is approved by slack:U0ALICE, slack:U0BOB" in told[-1]
    assert "waiting for" in ended.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SLACK_APP_TOKEN": ""}, "wants $SLACK_BOT_TOKEN and"),
        ({"SLACK_APP_TOKEN": "xapp-no"}, "invalid_auth"),
    ],
)
async def test_a_button_that_nobody_would_hear(
    gameday: Program, tmp_path: Path, slack: FakeSlack, change: dict[str, str], words: str
) -> None:
    approvals = {"required": 1, "from": ["slack:U0ALICE"], "slack": "#gpu-gamedays", "within": "5m"}
    file = write(tmp_path, method=[STEP], approvals=approvals)
    kept = await keep(gameday, file)
    refused(await with_env(gameday, file, kept, slack_env(slack) | change), words)
    assert not slack.messages[CHANNEL]


async def test_a_run_waits_for_gameday_approve(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[STEP], approvals={"required": 1, "within": "5m"})
    kept = await keep(gameday, file)

    def drive() -> Ended:
        with gameday.started(file, "--plan", kept) as running:
            waits(running, "waiting for")
            said = gameday("approve", kept, file, "--yes")
            assert said.code == 0, said.output
            return running.ended()

    try:
        ended = await asyncio.to_thread(drive)
    finally:
        for found in await kube.list(SIGNING_REQUESTS):
            if found["metadata"]["name"].startswith("gameday-approval-"):
                await kube.delete(Ref.of(found))
    assert ended.code == 0, ended.output


@pytest.mark.parametrize("last", [2, 3], ids=["when it was waited for", "when the plan was looked at"])
async def test_an_approval_that_was_withdrawn(
    last: int, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It is not there any more when the run is to begin."""
    state: list[Any] = []

    def reply(body: Any) -> tuple[int, Any]:
        state.append(body)
        there = 2 <= len(state) <= last
        return 200, {"plan": body["plan"], "approvals": [{"by": "alice"}] if there else []}

    with webhook(reply) as (url, _):
        approvals = {"required": 1, "from": ["webhook:alice"], "webhook": url, "within": "1m"}
        file = write(tmp_path, method=[STEP], approvals=approvals)
        kept = await keep(gameday, file)
        state.clear()
        ended = await run(gameday, file, "--plan", kept)
        refused(ended, "approved by nobody")
        assert not ended.of("change")


async def test_one_person_with_two_names_is_one(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Whoever has a name in two places approves in both."""
    said: list[Any] = []
    with webhook(lambda body: (200, {"plan": body["plan"], "approvals": said})) as (url, _):
        people = [["webhook:alice", "webhook:al"], ["webhook:bob"]]
        file = write(tmp_path, method=[STEP], approvals={"required": 2, "from": people, "webhook": url})
        kept = await keep(gameday, file)
        said += [{"by": "alice"}, {"by": "al"}]
        refused(await run(gameday, file, "--plan", kept), "2 approvals are required, approved by webhook:al")
        said += [{"by": "bob"}]
        ended = await run(gameday, file, "--plan", kept)
        assert ended.code == 0, ended.output


async def test_a_wait_has_an_end_and_can_be_ended(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    short = write(tmp_path, method=[STEP], approvals={"required": 1, "within": "1s"})
    kept = await keep(gameday, short)
    refused(await run(gameday, short, "--plan", kept), "1 approvals are required, approved by nobody")
    long = write(tmp_path, method=[STEP], approvals={"required": 1, "within": "1h"})
    kept = await keep(gameday, long)

    def drive() -> Ended:
        with gameday.started(long, "--plan", kept) as running:
            waits(running, "waiting for")
            running.signal(signal.SIGINT)
            return running.ended()

    ended = await asyncio.to_thread(drive)
    assert ended.verdict == "interrupted", ended.output
    assert not ended.of("change")


async def test_nothing_is_waited_for_in_vain(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Where something else is refused, nobody is asked; as is for a plan that is not kept."""
    file = write(tmp_path, method=[STEP], approvals={"required": 1, "within": "1h"})
    refused(await run(gameday, file), "must approve the plan before it is run")
    kept = await keep(gameday, file, "--valid-for", "1s")
    refused(await run(gameday, file, "--plan", kept), "expired")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"webhook": "https://a.example"}, "name in `from` who may"),
        ({"from": ["a"], "webhook": "http://a.example"}, "expected an address with https://"),
        ({"from": ["a"], "slack": "#a"}, "say for how long, in `within`"),
        ({"from": ["a", "slack:U1"], "required": 2}, "write each person as a list of all their names"),
        ({"from": [["a", "slack:U1"], "servicenow:b"], "required": 2}, "write each person as a list"),
        ({"from": [["a", "slack:U1"], ["b", "slack:U1"]], "required": 2}, "names slack:U1 twice"),
        ({"from": [["a", "slack:U1"]], "required": 2}, "2 approvals are required, but `from` names 1"),
        (
            {"from": ["a"], "serviceNow": {"url": "https://a", "change": "CHG0030001^ORnumber!=x"}},
            "serviceNow.change",
        ),
    ],
)
def test_what_can_not_be_vouched_for_is_no_experiment(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    file = write(tmp_path, method=[STEP], approvals={"required": 1, **more})
    with pytest.raises(InvalidExperiment) as refusal:
        load(file)
    assert words in str(refusal.value)
