"""Slack through its own client library, against a server that refuses what Slack refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gameday import events as ev
from gameday.platform.slack import Message, Posted, Slack, SlackError, Thread
from gameday.report import analyse, png
from gameday.report.slack_message import ThreadLines, summary
from tests.report import logs
from tests.support.polling import eventually
from tests.support.slack import Failure, FakeSlack

CHANNEL, ID = "#gpu-gamedays", "C0GAMEDAYS"


@pytest.fixture
def client(slack: FakeSlack) -> Slack:
    return Slack(slack.token, slack.url)


def fault(state: str, n: int = 1) -> ev.Fault:
    return ev.Fault(step=str(n), name="drain", kind="drain", state=state, at=logs.START + n, seq=n)


async def test_the_summary_shows_the_picture(slack: FakeSlack, client: Slack) -> None:
    retro = analyse(logs.game_day())
    await client.post_summary(CHANNEL, summary(retro), png(retro))
    (message,) = slack.messages[ID]
    assert message["blocks"][0]["text"]["text"].startswith("Deviated: ")
    assert message["blocks"][-1]["slack_file"]["id"] in slack.files


async def test_a_picture_that_slack_does_not_take_in_the_message_follows_in_the_thread(
    slack: FakeSlack, client: Slack
) -> None:
    slack.fail("chat.postMessage", Failure(error="invalid_blocks"))
    posted = await client.post_summary(CHANNEL, Message("t", []), b"\x89PNG")
    message, share = slack.messages[ID]
    assert share["thread_ts"] == posted.ts == message["ts"]
    assert share["files"]


async def test_the_thread_and_its_summary(slack: FakeSlack, client: Slack) -> None:
    warned: list[ev.Event] = []
    async with Thread(client, CHANNEL, ThreadLines(), warned.append, every=0.02) as thread:
        for event in logs.game_day():
            thread(event)
    assert thread.root
    await client.post_summary(CHANNEL, Message("Deviated"), instead_of=thread.root)
    root, *replies = slack.messages[ID]
    assert root["text"] == "Deviated"
    assert {r["thread_ts"] for r in replies} == {root["ts"]}
    text = "\n".join(r["text"] for r in replies)
    assert (
        text.index("going in")
        < text.index("Alert GPUNodeUnschedulable firing")
        < text.index("Verdict: deviated")
    )
    assert all(len(r["text"]) <= 3000 for r in replies)
    assert warned == []


async def test_no_more_than_one_message_a_second(slack: FakeSlack, client: Slack) -> None:
    async with Thread(client, CHANNEL, ThreadLines(), lambda e: None) as thread:
        for n in range(200):
            thread(fault("in", n))
    times = [call.at for call in slack.called("chat.postMessage")]
    assert len(times) >= 3, "200 lines do not fit into two messages"
    assert min(b - a for a, b in pairwise(times)) >= 1.0


async def test_retry_after_is_honoured(slack: FakeSlack, client: Slack) -> None:
    slack.fail("chat.postMessage", Failure(status=429, retry_after=1))
    await client.post(CHANNEL, Message("t"))
    first, second = slack.called("chat.postMessage")
    assert second.at - first.at >= 1


async def test_a_broken_connection_is_tried_again(slack: FakeSlack, client: Slack) -> None:
    slack.fail("chat.postMessage", Failure(hang_up=True))
    assert isinstance(await client.post(CHANNEL, Message("t")), Posted)


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (lambda s: s.channels.clear(), "channel_not_found: the bot sees no channel #gpu-gamedays"),
        (lambda s: s.not_joined.add(ID), "not_in_channel: the bot is not in #gpu-gamedays: write `/invite"),
        (
            lambda s: setattr(s, "token", "other"),
            "invalid_auth: the token is not valid: check $SLACK_BOT_TOKEN",
        ),
        (lambda s: s.scopes.clear(), "missing_scope: the token lacks the scope chat:write"),
        (
            lambda s: s.fail("chat.postMessage", Failure(error="fatal_error")),
            "fatal_error: see https://docs.slack.dev",
        ),
    ],
)
async def test_refusals_say_what_to_do(slack: FakeSlack, client: Slack, arrange: object, words: str) -> None:
    arrange(slack)  # type: ignore[operator]
    with pytest.raises(SlackError) as refused:
        await client.post(CHANNEL, Message("t"))
    assert words in str(refused.value)


async def test_nobody_there() -> None:
    with pytest.raises(SlackError, match=r"Slack could not be reached .*gameday report post RUN"):
        await Slack("xoxb-x", "http://127.0.0.1:9/api/", timeout=2).post(CHANNEL, Message("t"))


async def test_a_thread_that_slack_refuses_warns_once_and_hears_on(slack: FakeSlack, client: Slack) -> None:
    slack.not_joined.add(ID)
    warned: list[ev.Event] = []
    async with Thread(client, CHANNEL, ThreadLines(), warned.append, every=0.01) as thread:

        async def stopped() -> str:
            return thread.stopped

        thread(fault("in", 1))
        await eventually(stopped, within=10)
        for n in range(2, 50):
            thread(fault("in", n))
    assert len(slack.called("chat.postMessage")) == 1
    (warning,) = warned
    assert isinstance(warning, ev.Warn)
    assert warning.source == "slack"
    assert "not_in_channel" in warning.message


async def test_a_thread_survives_its_teller_and_its_own_warnings(slack: FakeSlack, client: Slack) -> None:
    def broken(event: ev.Event) -> str:
        raise RuntimeError("no words")

    warned: list[ev.Event] = []
    async with Thread(client, CHANNEL, broken, warned.append, every=0.01) as thread:
        thread(fault("in"))
        thread(ev.Warn(source="slack", message="heard itself"))
    assert [getattr(w, "message", "") for w in warned] == [
        "an event of type fault could not be told: no words"
    ]
    assert slack.calls == []


async def test_what_failed_is_posted_when_slack_is_back(slack: FakeSlack, client: Slack) -> None:
    slack.fail("chat.postMessage", *[Failure(status=500)] * 3)
    warned: list[ev.Event] = []
    async with Thread(client, CHANNEL, ThreadLines(), warned.append, every=0.01) as thread:

        async def posted() -> object:
            return thread.root

        thread(fault("in"))
        await eventually(posted, within=30)
    assert len(warned) == 1
    assert len(slack.messages[ID]) == 1
