"""Clicks on a button of a message, by Slack's Socket Mode: nothing needs to be reachable from Slack.

The app needs Socket Mode, Interactivity and an app-level token with the scope connections:write
(docs.slack.dev/apis/events-api/using-socket-mode). Slack says who clicked, and sends each click to one of an
app's connections: programs that wait at the same time need an app each.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday.masking import keep_sent
from gameday.platform.slack import API_URL, SlackError, _refused, _unreachable

if TYPE_CHECKING:
    from slack_sdk.socket_mode.request import SocketModeRequest

CONNECT_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Click:
    """A person's click: the id of the user, as Slack vouches for it, and where."""

    user: str
    action: str
    value: str
    channel: str
    ts: str


@asynccontextmanager
async def clicks(app_token: str, hear: Callable[[Click], None]) -> AsyncIterator[None]:
    """Hear every click that comes while the context lasts. Raises SlackError where Slack can't be reached."""
    from aiohttp import ClientError
    from slack_sdk.errors import SlackApiError, SlackClientError
    from slack_sdk.socket_mode.aiohttp import SocketModeClient
    from slack_sdk.socket_mode.response import SocketModeResponse
    from slack_sdk.web.async_client import AsyncWebClient

    keep_sent({"Authorization": f"Bearer {app_token}"})
    web = AsyncWebClient(base_url=os.environ.get("SLACK_API_URL") or API_URL)
    client = SocketModeClient(app_token, web_client=web, logger=_silent())

    async def take(_: object, request: SocketModeRequest) -> None:
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        for click in _read(request.type, request.payload):
            hear(click)

    client.socket_mode_request_listeners.append(take)
    try:
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                client.wss_uri = await client.issue_new_wss_url()  # `connect` would try again for ever
                await client.connect()  # type: ignore[no-untyped-call]
        except SlackApiError as error:
            raise _refused(error, "$SLACK_APP_TOKEN") from error
        except (SlackClientError, ClientError, OSError, TimeoutError, ValueError) as error:
            raise _unreachable(error) from error
        yield
    finally:
        await client.close()  # type: ignore[no-untyped-call]


def _silent() -> logging.Logger:
    """A log that keeps the client's messages from our output: the client raises the same errors."""
    logger = logging.getLogger("gameday.slack_clicks")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _read(kind: str, payload: Any) -> list[Click]:
    """The clicks of a block_actions payload (docs.slack.dev/reference/interaction-payloads)."""
    if kind != "interactive" or not isinstance(payload, dict) or payload.get("type") != "block_actions":
        return []
    try:
        user, where = str(payload["user"]["id"]), payload["container"]
        return [
            Click(
                user, str(a["action_id"]), str(a.get("value", "")), where["channel_id"], where["message_ts"]
            )
            for a in payload["actions"]
        ]
    except (KeyError, TypeError, AttributeError):
        return []


__all__ = ["Click", "SlackError", "clicks"]
