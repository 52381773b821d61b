"""Approvals that any other system keeps: it is asked by a POST, and vouches for who approved.

The question holds the plan's digest, when it ends and what it does. The answer is `{"plan": DIGEST,
"approvals": [{"by": NAME, "until": TIME}]}`; 202 or 204 says that nobody did so far. A token in
$GAMEDAY_APPROVALS_TOKEN goes along as a bearer token.
"""

from __future__ import annotations

import os
from datetime import datetime

from gameday.safety.approvals.approval import Approval, Source
from gameday.safety.approvals.http import NotAsked, ask
from gameday.safety.plan import Plan

TOKEN = "GAMEDAY_APPROVALS_TOKEN"


class Webhook(Source):
    """The approvals that a system at an address knows of."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def approvals(self, plan: Plan) -> list[Approval]:
        token = os.environ.get(TOKEN)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        changes = [f"step {s.path}: {c}" for s in plan.steps.values() for c in s.fault.changes]
        body = {
            "plan": plan.digest,
            "cluster": plan.cluster.to_data(),
            "expires": plan.expires,
            "changes": changes,
        }
        said = await ask("POST", self._url, self._url, headers=headers, body=body)
        if said is None:
            return []
        try:
            if said["plan"] != plan.digest:
                raise NotAsked(f"{self._url} answered about another plan")
            return [Approval(f"webhook:{a['by']}", _until(a, plan), self._url) for a in said["approvals"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotAsked(f"{self._url} gave an answer that can't be understood") from error


def _until(approval: dict[str, str], plan: Plan) -> float:
    if "until" not in approval:
        return plan.expires
    return datetime.fromisoformat(approval["until"]).timestamp()
