"""The torture itself: no fault is forgotten, its comparison sees, and the README says its figures."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.threads import LoopThread
from tests.torture import catalogue, figures
from tests.torture.wire import HungUp, Kill, Lines, Reply
from tests.torture.world import differences

pytestmark = pytest.mark.fast


def test_every_fault_has_a_case_or_a_reason(tmp_path: Path) -> None:
    known = catalogue.cases(tmp_path)
    assert catalogue.forgotten(known) == []
    without = [case for case in known if case.name != "slurm: requeue"]
    assert catalogue.forgotten(without) == ["slurm: requeue"]


def test_the_readme_says_what_was_measured() -> None:
    text = figures.README.read_text()
    assert figures.with_table(text) == text, "write it anew: python -m tests.torture.figures"


def test_the_comparison_names_each_field_and_each_thing() -> None:
    before = {"Node a": {"spec": {"taints": [1, 2]}}, "Pod b": [{"x": 1}], "Lease c": {}}
    after = {"Node a": {"spec": {"taints": [1, 3], "new": True}}, "Pod b": [{"x": 1}, {"x": 1}]}
    assert differences(before, before) == []
    assert differences(before, after) == [
        "Lease c: gone",
        "Node a: spec.new was absent, is true",
        "Node a: spec.taints[1] was 2, is 3",
        'Pod b:  was [{"x": 1}], is [{"x": 1}, {"x": 1}]',
    ]


class Server:
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.thread, self.heard, self.url = LoopThread("server"), list[str](), ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._hear)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _hear(self, request: web.Request) -> web.Response:
        self.heard.append(f"{request.method} {request.path}")
        return web.json_response({"heard": await request.text()})


@pytest.mark.parametrize(
    ("moment", "reached", "answered"), [("before", 1, 1), ("unanswered", 2, 1), ("answered", 2, 2)]
)
def test_the_line_kills_at_the_change_that_was_meant(moment: str, reached: int, answered: int) -> None:
    server, lines, killed = Server(), Lines(), list[int]()
    server.thread.call(server.start())
    near = lines.to(server.url)
    lines.begin(Kill(2, moment, lambda: killed.append(1)))
    got = 0
    for number in range(3):
        body = json.dumps({"number": number}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(near, body), timeout=5) as answer:
                assert json.loads(answer.read())["heard"] == body.decode()
                got += 1
        except OSError:
            continue
    assert (len(server.heard), got, killed) == (reached, answered, [1])
    lines.close()
    server.thread.close()


def test_a_reply_can_break_in_the_middle() -> None:
    whole, cut = Reply(200, "0123456789"), Reply(200, "0123456789", cut=True)
    assert whole.encoded().endswith(b"0123456789")
    assert cut.encoded().endswith(b"01234")
    with pytest.raises(HungUp):
        asyncio.run(Kill(1, "before", lambda: None, struck=True).before(None))  # type: ignore[arg-type]
