"""A ServiceNow that runs here: the Table API's reads over a real socket, with its refusals.

Queries are conditions joined with ^ (encoded queries); fields may be dot-walked (approver.user_name); a login
that it does not know gets 401, a table that it does not have 400. A condition on a field that a table does
not have is left out, as an instance does unless it is told otherwise (glide.invalid_query.returns_no_rows).
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, str]


@dataclass
class ServiceNow:
    """Tables by name; each row holds the values of its fields, dot-walked ones by their whole name."""

    user: str = "gameday"
    password: str = "secret-of-gameday"
    tables: dict[str, list[Row]] = field(default_factory=dict)
    url: str = ""
    blind: bool = False  # leaves all conditions out
    _clock: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    @property
    def env(self) -> dict[str, str]:
        return {"SERVICENOW_USER": self.user, "SERVICENOW_PASSWORD": self.password}

    def change(self, number: str, sys_id: str, **fields: str) -> Row:
        """A change that waits for its approvals."""
        row = {"number": number, "sys_id": sys_id, "approval": "requested", "active": "true"}
        row |= {"description": "", "start_date": "", "end_date": ""} | fields
        self.tables.setdefault("change_request", []).append(row)
        self.tables.setdefault("sysapproval_approver", [])
        self.tables.setdefault("sys_journal_field", [])
        return row

    def approver(self, sys_id: str, name: str, state: str) -> Row:
        row = {"sysapproval": sys_id, "approver.user_name": name}
        self.tables["sysapproval_approver"].append(row)
        self.touch(row, name, state=state)
        return row

    def note(self, sys_id: str, text: str, element: str = "work_notes") -> None:
        """Somebody writes a note, which nobody can edit afterwards."""
        row = {"element_id": sys_id, "element": element, "value": text, "sys_created_on": self._now()}
        self.tables["sys_journal_field"].append(row)

    def touch(self, row: Row, by: str, **fields: str) -> None:
        """Somebody changes a row, which then says who and when."""
        row.update(fields, sys_updated_by=by, sys_updated_on=self._now())

    def _now(self) -> str:
        """Times are in seconds; each is later than the one before."""
        self._clock += timedelta(seconds=1)
        return f"{self._clock:%Y-%m-%d %H:%M:%S}"

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        login = "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()
        if authorization != login:
            return 401, _failure("User Not Authenticated")
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        table = parts.path.removeprefix("/api/now/table/")
        if table not in self.tables:
            return 400, _failure(f"Invalid table {table}")
        conditions = [c for c in query.get("sysparm_query", "").split("^") if c]
        rows = self.tables[table]
        if not self.blind:
            rows = [r for r in rows if all(_meets(r, c) for c in conditions)]
        rows = rows[: int(query.get("sysparm_limit", "10000"))]
        fields = query["sysparm_fields"].split(",")
        return 200, {"result": [{f: r[f] for f in fields if f in r} for r in rows]}


def _meets(row: Row, condition: str) -> bool:
    name, operator, value = re.split("(=|LIKE)", condition, maxsplit=1)
    held = row.get(name)
    return held is None or (held == value if operator == "=" else value.lower() in held.lower())


def _failure(message: str) -> Any:
    return {"error": {"message": message, "detail": None}, "status": "failure"}


@contextmanager
def servicenow() -> Iterator[ServiceNow]:
    """An instance that answers while the block lasts."""
    fake = ServiceNow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = fake.answer(self.path, self.headers.get("Authorization", ""))
            answer(self, status, body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as fake.url:
        yield fake


def answer(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    """An answer with JSON."""
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that answers while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
