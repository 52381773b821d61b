"""Hooks before and after a run and a step: asked with JSON, heard, and never waited for beyond their time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gameday import masking
from gameday.experiment.model import Hook
from gameday.run import hooks
from tests.e2e.experiments import CORDON, write
from tests.support.kubeconfigs import beside_prod, kubectl
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about hooks of the tests' own")

STEP = {**CORDON, "for": "500ms"}


class Listener:
    """An address that hears hooks and answers as it is told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.no: str = ""  # the `when` that is answered 409
        self.silent = threading.Event()  # set to let answers go that were held back
        self.holds = ""  # the `when` that gets no answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.heard.append(said)
                if said["when"] == outer.holds:
                    outer.silent.wait(30)
                self.send_response(409 if said["when"] == outer.no else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def hooks(self, **more: Any) -> dict[str, Any]:
        hook = {"url": self.url, **more}
        return {k: [hook] for k in ("beforeRun", "beforeStep", "afterStep", "afterRun")}

    @property
    def when(self) -> list[str]:
        return [h["when"] for h in self.heard]


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.silent.set()
    made.server.shutdown()
    made.server.server_close()


def test_all_are_asked_and_told_in_order(
    listener: Listener, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=[STEP], hooks=listener.hooks()))
    assert ended.code == 0, ended.output
    assert listener.when == ["beforeRun", "beforeStep", "afterStep", "afterRun"]
    assert listener.heard[1] | {"run": ""} == {
        "when": "beforeStep",
        "run": "",
        "step": "1",
        "name": "cordon",
        "fault": "cordon",
    }
    assert listener.heard[3]["verdict"] == "passed"


@pytest.mark.parametrize(("when", "code"), [("beforeRun", 4), ("beforeStep", 3)])
def test_one_that_comes_before_may_refuse(
    when: str, code: int, listener: Listener, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    listener.no = when
    ended = gameday.run(write(tmp_path, method=[STEP], hooks=listener.hooks()))
    assert ended.code == code, ended.output
    assert f"({when}) says no: 409" in " ".join(ended.output.split())
    assert not ended.of("change")
    assert listener.when[-1] == "afterRun"


def test_one_that_never_answers_is_waited_for_no_longer_than_it_may_take(
    listener: Listener, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    listener.holds = "afterStep"
    hooks = listener.hooks() | {"afterStep": [{"url": listener.url, "timeout": "500ms"}]}
    ended = gameday.run(write(tmp_path, method=[STEP], hooks=hooks))
    assert ended.code == 0, ended.output
    assert any("no answer within 0.5 s" in e["message"] for e in ended.of("warn")), ended.output


def test_a_command_hears_json_finds_the_runs_cluster_and_says_no_by_its_exit_code(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    heard = tmp_path / "heard.json"
    view = f"{kubectl()} config view --minify -o 'jsonpath={{.clusters[*].cluster.server}}'"
    command = ["sh", "-c", f"cat > {heard}; {view}; echo ' not today'; exit 3"]
    file = write(tmp_path, method=[STEP], hooks={"beforeRun": [{"command": command}]})
    several = str(beside_prod(gameday.platform.kubeconfig, tmp_path))
    ended = gameday.run(file, f"--context={gameday.platform.context}", env={"KUBECONFIG": several})
    assert ended.code == 4, ended.output
    assert f"says no: exit code 3 {gameday.platform.api_url} not today" in " ".join(ended.output.split())
    assert json.loads(heard.read_text())["experiment"] == "test"
    assert not ended.of("change")


@pytest.mark.fast
async def test_an_answer_that_comes_in_pieces_is_read_to_its_end() -> None:
    """The first piece alone says nothing of why."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"no: the change CHG1 is not approved"
        writer.write(b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)  # a piece of its own
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        hook = Hook(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        (said,) = await hooks.asked([hook], "beforeRun", {}, dict)
    assert said.endswith("says no: 409 no: the change CHG1 is not approved")


@pytest.mark.fast
@pytest.mark.parametrize("before", range(200, 310, 10))
async def test_a_secret_in_an_answer_is_masked_before_the_answer_is_cut(before: int) -> None:
    secret = "kP3a9Xq7Zt0LmN4vB2cR8yW1sE6uHdJ5fG" * 3
    masking.keep_secret("token", secret)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * before + b" " + secret.encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        hook = Hook(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        (said,) = await hooks.asked([hook], "beforeRun", {}, dict)
    assert "says no: 403 xxx" in said
    assert "kP3a" not in said


@pytest.mark.fast
async def test_a_hook_is_asked_by_way_of_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n")).decode().strip())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await hooks.asked([Hook(url="http://hook.invalid/")], "beforeRun", {}, dict) == []
    assert seen == ["POST http://hook.invalid/ HTTP/1.1"]
