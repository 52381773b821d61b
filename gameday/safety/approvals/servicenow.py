"""Approvals of a change in ServiceNow, by its Table API.

A change says which plan it is about in a note, `gameday plan DIGEST` among its work notes or comments: its
fields can be edited after it was approved, and what they were then only its audit log knows; a note (table
sys_journal_field) is written once. All such notes of a change name one plan. Those who approved it are its
approvers (table sysapproval_approver) in state `approved` who were the last to touch their own approval, and
that after the note. They count once the whole change is approved, and within its planned start and end.

Logs in with $SERVICENOW_TOKEN (OAuth), or $SERVICENOW_USER and $SERVICENOW_PASSWORD, which may read the three
tables. Times are UTC, unless display values are asked for.
"""

from __future__ import annotations

import os
import re
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from gameday.experiment.text import shorten
from gameday.safety.approvals.approval import Approval, Source
from gameday.safety.approvals.http import NotAsked, ask
from gameday.safety.plan import Plan

FIELDS = "sys_id,number,approval,active,start_date,end_date"
NOTES = ("comments", "work_notes")
PLAN = re.compile(r"gameday plan ([0-9a-f]{64})\b")
MOST = 100  # rows of an answer; with so many there may be more


class ServiceNow(Source):
    """One change of one instance."""

    def __init__(self, url: str, change: str) -> None:
        self._url, self._change = url.rstrip("/"), change

    async def approvals(self, plan: Plan) -> list[Approval]:
        rows = await self._rows("change_request", f"number={self._change}", FIELDS)
        # A condition that an instance does not understand, it leaves out: what it gives is looked at again.
        found = [row for row in rows if row.get("number") == self._change]
        if len(found) != 1:
            raise NotAsked(f"ServiceNow has no change {self._change} that we may read")
        change = found[0]
        noted = await self._noted(change["sys_id"], plan.digest)
        starts, ends = _time(change.get("start_date")), _time(change.get("end_date"))
        open_ = change.get("approval") == "approved" and change.get("active") == "true"
        if not open_ or (starts is not None and time.time() < starts):
            return []
        wanted = f"sysapproval={change['sys_id']}^state=approved"
        fields = "sysapproval,state,approver.user_name,sys_updated_by,sys_updated_on"
        rows = await self._rows("sysapproval_approver", wanted, fields)
        until = plan.expires if ends is None else ends
        return [
            Approval(f"servicenow:{row['approver.user_name']}", until, f"change {self._change}")
            for row in rows
            if (row.get("sysapproval"), row.get("state")) == (change["sys_id"], "approved")
            and row.get("approver.user_name")
            and row.get("sys_updated_by") == row["approver.user_name"]
            and (_time(row.get("sys_updated_on")) or 0.0) > noted
        ]

    async def _noted(self, change: str, digest: str) -> float:
        """Since when the change is about this plan, and about no other. Raises NotAsked."""
        wanted = f"element_id={change}^valueLIKEgameday plan"
        rows = await self._rows("sys_journal_field", wanted, "element_id,element,value,sys_created_on")
        notes = [r for r in rows if r.get("element_id") == change and r.get("element") in NOTES]
        named = {found for note in notes for found in PLAN.findall(note.get("value", ""))}
        if named - {digest}:
            raise NotAsked(f"change {self._change} is about another plan: each plan has a change of its own")
        if not named:
            raise NotAsked(
                f"change {self._change} is not about this plan: write `gameday plan {digest}` "
                "into its work notes, before it is approved"
            )
        about = [_time(n.get("sys_created_on")) for n in notes if PLAN.search(n.get("value", ""))]
        return min(at for at in about if at is not None) if any(about) else float("inf")

    async def _rows(self, table: str, wanted: str, fields: str) -> list[dict[str, str]]:
        query = {
            "sysparm_query": wanted,
            "sysparm_fields": fields,
            "sysparm_display_value": "false",
            "sysparm_exclude_reference_link": "true",
            "sysparm_limit": str(MOST),
        }
        headers = {"Accept": "application/json", "Authorization": _login()}
        what = f"ServiceNow ({self._url}, table {table})"
        said = await ask("GET", f"{self._url}/api/now/table/{table}", what, headers=headers, query=query)
        rows: Any = said.get("result") if isinstance(said, dict) else None
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise NotAsked(f"{what} gave an answer that can't be understood")
        if len(rows) >= MOST:
            raise NotAsked(f"{what} has more than can be judged ({MOST} rows)")
        return rows


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(value, str) for value in row.values())


def _login() -> str:
    if token := os.environ.get("SERVICENOW_TOKEN"):
        return f"Bearer {token}"
    user, password = os.environ.get("SERVICENOW_USER"), os.environ.get("SERVICENOW_PASSWORD")
    if not user or not password:
        raise NotAsked("ServiceNow wants $SERVICENOW_TOKEN, or $SERVICENOW_USER and $SERVICENOW_PASSWORD")
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _time(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise NotAsked(f"ServiceNow gave a time that can't be understood: {shorten(text, 40)!r}") from None
