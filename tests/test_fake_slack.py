"""The Slack that the suite posts to refuses what Slack refuses, asked through Slack's own client library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from tests.support import blockkit
from tests.support.slack import Failure, FakeSlack

pytestmark = pytest.mark.fast
CHANNEL = "C0GAMEDAYS"


@pytest.fixture
async def fake() -> AsyncIterator[FakeSlack]:
    slack = FakeSlack()
    await slack.start()
    yield slack
    await slack.stop()


@pytest.fixture
def client(fake: FakeSlack) -> AsyncWebClient:
    return AsyncWebClient(token=fake.token, base_url=fake.url)


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def table(rows: int, columns: int, text: str = "x") -> dict[str, Any]:
    return {"type": "table", "rows": [[{"type": "raw_text", "text": text}] * columns] * rows}


async def test_a_thread_with_a_picture(fake: FakeSlack, client: AsyncWebClient) -> None:
    parent = await client.chat_postMessage(channel="#gpu-gamedays", text="began", blocks=[section("*began*")])
    await client.chat_postMessage(channel=parent["channel"], text="drained", thread_ts=parent["ts"])
    uploaded = await client.files_upload_v2(
        content=b"png", filename="chart.png", channel=CHANNEL, thread_ts=parent["ts"]
    )
    picture = {"type": "image", "alt_text": "latency", "slack_file": {"id": uploaded["file"]["id"]}}
    await client.chat_update(
        channel=parent["channel"], ts=parent["ts"], text="passed", blocks=[section("ok"), picture]
    )

    first, reply, share = fake.messages[CHANNEL]
    assert (first["text"], first["blocks"][1]) == ("passed", picture)
    assert reply["thread_ts"] == share["thread_ts"] == parent["ts"]
    assert fake.files[uploaded["file"]["id"]].content == b"png"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "#nowhere", "text": "x"}, "channel_not_found"),
        ({"channel": "C0SECRET", "text": "x"}, "not_in_channel"),
        ({"channel": CHANNEL, "text": ""}, "no_text"),
        ({"channel": CHANNEL, "text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
        ({"channel": CHANNEL, "text": "x", "blocks": [section("y" * 3001)]}, "invalid_blocks"),
    ],
)
@pytest.mark.filterwarnings("ignore:The top-level `text` argument is missing")
async def test_refuses_a_message(
    fake: FakeSlack, client: AsyncWebClient, arguments: dict[str, Any], error: str
) -> None:
    fake.channels["C0SECRET"] = "secret"
    fake.not_joined.add("C0SECRET")
    with pytest.raises(SlackApiError) as refused:
        await client.chat_postMessage(**arguments)
    assert refused.value.response["error"] == error
    assert not fake.messages[CHANNEL]


async def test_refuses_a_wrong_token_and_a_missing_scope(fake: FakeSlack, client: AsyncWebClient) -> None:
    with pytest.raises(SlackApiError, match="invalid_auth"):
        await AsyncWebClient(token="xoxb-other", base_url=fake.url).auth_test()
    fake.scopes.discard("files:write")
    with pytest.raises(SlackApiError) as refused:
        await client.files_upload_v2(content=b"png", filename="chart.png", channel=CHANNEL)
    assert refused.value.response["needed"] == "files:write"


async def test_limits_the_rate_as_the_client_expects(fake: FakeSlack, client: AsyncWebClient) -> None:
    client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
    fake.fail("chat.postMessage", Failure(retry_after=1))
    await client.chat_postMessage(channel=CHANNEL, text="x")
    first, second = fake.called("chat.postMessage")
    assert second.at - first.at >= 1


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([{"type": "divider"}] * 51, "no more than 50 items"),
        ([section("")], "must be more than 0 characters"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "must be plain_text"),
        ([{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}], "less than 151"),
        ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}], "no more than 10"),
        ([{"type": "sectoin"}], "unsupported type: sectoin"),
        ([{"type": "divider", "text": "x"}], "invalid additional property: text"),
        ([{"type": "image", "image_url": "https://x"}], "must be a string"),
        ([table(101, 2)], "no more than 100 items"),
        ([table(2, 21)], "no more than 20 items"),
        ([table(100, 20, "x" * 6)], "less than 10001 characters"),
        ([table(1, 1, "")], "must be more than 0 characters"),
        ([table(1, 1), table(1, 1)], "only_one_table_allowed"),
        ([{"type": "divider", "block_id": "a"}, {"type": "divider", "block_id": "a"}], "already exists"),
    ],
)
def test_block_kit_rules(blocks: list[Any], problem: str) -> None:
    assert any(problem in found for found in blockkit.problems(blocks))


def test_block_kit_accepts_the_largest_of_everything() -> None:
    header = {"type": "header", "text": {"type": "plain_text", "text": "x" * 150, "emoji": True}}
    fields = {"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2000}] * 10}
    blocks = [header, section("x" * 3000), fields, table(100, 20, "x" * 5), *[{"type": "divider"}] * 46]
    assert blockkit.problems(blocks) == []
