"""Slack: one message with the summary, one thread with the run as it happens. Slack never stops a run.

Limits (docs.slack.dev: rate limits; chat.postMessage): one message a second and channel; a 429 says in
Retry-After how long to wait, which slack-sdk's handler does.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from gameday.events import Event, RunStarted, Warn
from gameday.masking import clip, keep_sent
from gameday.platform.errors import PlatformError, without_frames

_LATER = "`gameday report post RUN`"
API_URL = "https://slack.com/api/"
SCOPES = frozenset({"chat:write", "files:write"})  # what posting a run and its picture needs
EVERY = 1.05  # seconds between two messages to one channel
TEXT = 3000  # characters of one section
LONGEST_CALL = 60.0  # seconds of one call with its retries, whatever Slack asks us to wait
# What slack-sdk ends with where it is not Slack that answers: a proxy's page, a number, half an answer.
_NO_SLACK = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
WAITING = 400  # lines kept while Slack does not answer; the report has them all


@dataclass(frozen=True)
class Message:
    """A message: blocks for Slack, and text for notifications and for readers that show no blocks."""

    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Posted:
    """Where a message is."""

    channel: str  # the channel's id
    ts: str


class SlackError(PlatformError):
    """Slack refused or could not be reached; the text says what to do. `code` is Slack's own word."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


_ADVICE = {
    "channel_not_found": "the bot sees no channel {channel}: check its name, or invite the bot",
    "not_in_channel": "the bot is not in {channel}: write `/invite @gameday` there",
    "is_archived": "{channel} is archived: name another in report.slack",
    "invalid_auth": "the token is not valid: check $SLACK_BOT_TOKEN (it begins with xoxb-)",
    "not_authed": "there is no token: set $SLACK_BOT_TOKEN",
    "token_revoked": "the token was revoked: install the app again and set $SLACK_BOT_TOKEN",
    "token_expired": "the token has expired: renew it and set $SLACK_BOT_TOKEN",
    "account_inactive": "the token's bot was removed: install the app again and set $SLACK_BOT_TOKEN",
    "missing_scope": "the token lacks the scope {needed}: add it under OAuth & Permissions, then reinstall",
    "restricted_action": "the workspace does not let the bot post in {channel}: ask its administrators",
    "ratelimited": "Slack asks to slow down: post later with `gameday report post RUN`",
}
_FINAL = set(_ADVICE) - {"ratelimited"}  # asking again will not help
_CONTENT = {"invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text", "invalid_arguments"}


class Slack:
    """A client for one token. Every failure is a SlackError."""

    def __init__(self, token: str, base_url: str | None = None, timeout: float = 15) -> None:
        from slack_sdk.http_retry.builtin_async_handlers import (
            AsyncConnectionErrorRetryHandler,
            AsyncRateLimitErrorRetryHandler,
            AsyncServerErrorRetryHandler,
        )
        from slack_sdk.web.async_client import AsyncWebClient

        keep_sent({"Authorization": f"Bearer {token}"})
        self._client = AsyncWebClient(
            token=token,
            base_url=base_url or os.environ.get("SLACK_API_URL") or API_URL,
            timeout=int(timeout),
            retry_handlers=[
                AsyncConnectionErrorRetryHandler(max_retry_count=2),
                AsyncRateLimitErrorRetryHandler(max_retry_count=5),
                AsyncServerErrorRetryHandler(max_retry_count=2),
            ],
        )

    async def who(self) -> tuple[str, frozenset[str]]:
        """Whom the token is for, and its scopes: a header of each answer; empty where it is not sent."""
        answer = await self._call("auth_test", "")
        scopes = str(getattr(answer, "headers", {}).get("x-oauth-scopes", ""))
        found = frozenset(re.split(r"[,\s]+", scopes)) - {""}
        return f"{_text(answer, 'user')} in {_text(answer, 'team')}", found

    async def post(self, channel: str, message: Message, *, thread: Posted | None = None) -> Posted:
        """Post to a channel (name or id), or as a reply to a thread's first message."""
        answer = await self._call(
            "chat_postMessage",
            channel,
            channel=thread.channel if thread else channel,
            text=message.text,
            blocks=message.blocks or None,
            thread_ts=thread.ts if thread else None,
            unfurl_links=False,
            unfurl_media=False,
        )
        return Posted(_text(answer, "channel"), _text(answer, "ts"))

    async def update(self, posted: Posted, message: Message) -> None:
        """Replace a message."""
        where = {"channel": posted.channel, "ts": posted.ts}
        await self._call(
            "chat_update", posted.channel, **where, text=message.text, blocks=message.blocks or None
        )

    async def post_summary(
        self, channel: str, message: Message, picture: bytes = b"", *, instead_of: Posted | None = None
    ) -> Posted:
        """Post the summary with its picture, or put it in the place of a thread's first message.

        Where Slack does not take the picture inside the message, it follows in the thread.
        """
        file = await self._upload(channel, picture) if picture else ""
        shown = Message(message.text, [*message.blocks, _image(file)]) if file else message
        try:
            return await self._put(channel, shown, instead_of)
        except SlackError as error:
            if not file or error.code != "invalid_blocks":
                raise
        posted = await self._put(channel, message, instead_of)
        await self._upload(channel, picture, posted)
        return posted

    async def _put(self, channel: str, message: Message, place: Posted | None) -> Posted:
        if place is None:
            return await self.post(channel, message)
        await self.update(place, message)
        return place

    async def _upload(self, channel: str, picture: bytes, thread: Posted | None = None) -> str:
        """The file's id. Without a thread the file stays unshared until a message shows it."""
        answer = await self._call(
            "files_upload_v2",
            channel,
            filename="chart.png",
            content=picture,
            title="Key chart",
            channel=thread.channel if thread else None,
            thread_ts=thread.ts if thread else None,
        )
        try:
            return str(answer["files"][0]["id"])
        except _NO_SLACK as error:
            raise _unreachable(error) from error

    async def _call(self, method: str, about: str, **arguments: Any) -> Any:
        from aiohttp import ClientError
        from slack_sdk.errors import SlackApiError, SlackClientError

        given = {k: v for k, v in arguments.items() if v is not None}
        try:
            async with asyncio.timeout(LONGEST_CALL):
                return await getattr(self._client, method)(**given)
        except SlackApiError as error:
            raise _refused(error, about) from error
        except (SlackClientError, ClientError, OSError, TimeoutError, *_NO_SLACK) as error:
            raise _unreachable(error) from without_frames(error)


def _text(answer: Any, key: str) -> str:
    try:
        return str(answer[key])
    except _NO_SLACK as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> SlackError:
    why = str(error) or type(error).__name__
    return SlackError(f"Slack could not be reached ({why}); post later with {_LATER}")


def _refused(error: Any, channel: str) -> SlackError:
    """Slack's answer in words, with what to do about it."""
    answer = getattr(error.response, "data", error.response)
    answer = answer if isinstance(answer, dict) else {}
    code = str(answer.get("error") or "")
    if not code:
        status = getattr(error.response, "status_code", getattr(error.response, "status", "unknown"))
        return SlackError(f"Slack answered with status {status}; post later with {_LATER}")
    advice = _ADVICE.get(code, "see https://docs.slack.dev/reference/methods for this error")
    advice = advice.format(channel=channel, needed=answer.get("needed", "it needs"))
    told = answer.get("response_metadata")
    details = told.get("messages") if isinstance(told, dict) else None
    more = f" ({'; '.join(map(str, details[:3]))})" if isinstance(details, list) and details else ""
    return SlackError(f"Slack refused: {code}{more}: {advice}", code)


def _image(file: str) -> dict[str, Any]:
    return {
        "type": "image",
        "slack_file": {"id": file},
        "alt_text": "The key chart of the run, with its faults and bounds",
    }


class Thread:
    """The run as it happens: hears events, posts them in batches as replies to the run's first message.

    Hearing never waits and never fails. `tell` turns an event into a line of mrkdwn, or None. What goes
    wrong is told once through `warn`, as an event.
    """

    def __init__(
        self,
        slack: Slack,
        channel: str,
        tell: Callable[[Event], str | None],
        warn: Callable[[Event], None],
        every: float = EVERY,
    ) -> None:
        self._slack, self._channel, self._tell, self._warn, self._every = slack, channel, tell, warn, every
        self.root: Posted | None = None
        self.stopped = ""  # why nothing is posted any more
        self._lines: list[str] = []
        self._left_out = 0
        self._news, self._end = asyncio.Event(), asyncio.Event()
        self._failures = 0  # in a row
        self._task: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    async def __aenter__(self) -> Thread:
        self._task = asyncio.create_task(self._work(), name="slack thread")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __call__(self, event: Event) -> None:
        """Hear an event. Its own warnings are passed over, or they would never end."""
        if self.stopped or (isinstance(event, Warn) and event.source == "slack"):
            return
        try:
            line = self._tell(event)
        except Exception as error:  # a projection must never take the run down with it
            self._complain(f"an event of type {event.type} could not be told: {error}")
            return
        if line and len(self._lines) < WAITING:
            self._lines.append(clip(line, TEXT))
        elif line:
            self._left_out += 1
        if line or isinstance(event, RunStarted):
            self._news.set()

    async def close(self, within: float = 10.0) -> None:
        """Post what is left, for at most `within` seconds."""
        self._end.set()
        self._news.set()
        if self._task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._task, within)
            if self._lines and not self.stopped:
                self._complain(f"{len(self._lines)} lines of the run's thread were not posted in time")

    async def _work(self) -> None:
        while not self.stopped:
            await self._news.wait()
            self._news.clear()
            while self._lines and not self.stopped:
                await self._post()
                await self._rest()
            if self._end.is_set():
                return

    async def _rest(self) -> None:
        """Between two messages; longer after failures, unless the run has ended."""
        if not self._lines and self._end.is_set():
            return
        await asyncio.sleep(self._every)
        if self._failures:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), min(60.0, 2.0**self._failures))

    async def _post(self) -> None:
        """One message with as many lines as fit; what fails is kept for the next."""
        count, size = 0, 0
        while count < len(self._lines) and size + len(self._lines[count]) + 1 <= TEXT:
            size += len(self._lines[count]) + 1
            count += 1
        batch = self._lines[: 1 if self.root is None else count]
        text = "\n".join(batch)
        if self._left_out and self._end.is_set() and len(batch) == len(self._lines):
            text = clip(f"{text}\n… {self._left_out} more lines: see the report", TEXT)
        try:
            posted = await self._slack.post(self._channel, Message(text, [_section(text)]), thread=self.root)
        except SlackError as error:
            self._failures += 1
            self._failed(error, len(batch))
            return
        self._failures = 0
        self.root = self.root or posted
        del self._lines[: len(batch)]

    def _failed(self, error: SlackError, count: int) -> None:
        self._complain(str(error))
        if error.code in _FINAL or self._end.is_set():
            self.stopped = str(error)
        elif error.code in _CONTENT:  # no use in saying it again; the rest may pass
            del self._lines[:count]

    def _complain(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._warn(Warn(source="slack", message=message))


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}
