"""Approvals by a button in Slack, while the run waits for them. Slack vouches for who pressed it."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from types import TracebackType
from typing import ClassVar, Self

from gameday.masking import clip
from gameday.platform.slack import Message, Posted, Slack, SlackError
from gameday.platform.slack_clicks import Click, clicks
from gameday.safety.approvals.approval import Approval, Source
from gameday.safety.plan import Plan

BOT_TOKEN, APP_TOKEN = "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"
ACTION = "gameday-approve"
LONGEST = 2900  # characters of a section; Slack takes 3000


class SlackButton(Source):
    """A message with the plan and a button. Nobody hears the button outside of the context."""

    lasting: ClassVar[bool] = False

    def __init__(self, channel: str, plan: Plan) -> None:
        self._channel, self._plan = channel, plan
        self._posted: Posted | None = None
        self._pressed: list[Click] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        bot, app = os.environ.get(BOT_TOKEN), os.environ.get(APP_TOKEN)
        if not bot or not app:
            raise SlackError(f"the button in Slack wants ${BOT_TOKEN} and ${APP_TOKEN}")
        await self._stack.enter_async_context(clicks(app, self._pressed.append))
        try:
            self._posted = await Slack(bot).post(self._channel, _message(self._plan))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def approvals(self, plan: Plan) -> list[Approval]:
        where = self._posted
        users = dict.fromkeys(
            c.user
            for c in self._pressed
            if where is not None
            and (c.action, c.value, c.channel, c.ts) == (ACTION, plan.digest, where.channel, where.ts)
        )
        return [Approval(f"slack:{user}", plan.expires, f"Slack, {self._channel}") for user in users]


def _message(plan: Plan) -> Message:
    """The plan in plain text, which Slack does not read as markup, and the button."""
    changes = [f"step {s.path}: {c}" for s in plan.steps.values() for c in s.fault.changes]
    what = f"A game day waits for approvals of plan {plan.digest[:12]} on {plan.cluster}."
    text = clip("\n".join([what, *changes]), LONGEST)
    button = {
        "type": "button",
        "action_id": ACTION,
        "value": plan.digest,
        "style": "primary",
        "text": {"type": "plain_text", "text": "Approve"},
    }
    section = {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}
    return Message(what, [section, {"type": "actions", "elements": [button]}])
