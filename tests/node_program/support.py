"""The node's program as a node gets it: its files alone, a task, an account, and an API server to ask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gameday.ledger.node_pod import program_files
from gameday.node.task import Task
from tests.support.polling import until

# An action for tests: a file of the node holds "up", and while it is in force "down".
ACTION = """
from gameday.node.actions import Action

class Switch(Action):
    name = "switch"

    def check(self, host):
        return [] if host.read("/state").strip() else ["/state is empty"]

    def before(self, host):
        return {"was": host.read("/state")}

    def apply(self, host, before):
        host.write("/state", self.options.get("to", "down"))

    def hold(self, host, before, elapsed):
        host.write("/held", str(elapsed))

    def revert(self, host, before):
        if (self.options.get("stuck")):
            host.read("/missing")
        if host.read("/state") == "down":
            host.write("/state", before["was"])

    def look(self, host, before):
        now = host.read("/state")
        return ("in" if now == "down" else "out"), ["state is " + now]
"""


OLDEST = next(
    (str(p) for p in Path.home().glob(".pyenv/versions/3.9*/bin/python3")), shutil.which("python3.9")
)


@dataclass
class FakeApi:
    """Serves a Lease and a pod over HTTP, as an API server does, as long as it is not told to be silent."""

    lease: bool = True
    pod: bool = True
    deleting: bool = False
    renews: bool = True
    duration: int = 30
    forbids: bool = False
    age: float = 0.0  # seconds since the pod was created
    paths: list[tuple[str, str]] = field(default_factory=list)  # path and authorization
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeApi:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.paths.append((self.path, self.headers.get("Authorization", "")))
                code, body = fake._answer(self.path)
                raw = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.silence()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def silence(self) -> None:
        """From now on nobody listens there."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if self.forbids:
            return 403, {"kind": "Status", "code": 403}
        if "/leases/" in path and self.lease:
            renewed = datetime.now(UTC).isoformat() if self.renews else "2026-01-01T00:00:00Z"
            return 200, {"spec": {"renewTime": renewed, "leaseDurationSeconds": self.duration}}
        if "/pods/" in path and self.pod:
            gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if self.deleting else {}
            created = datetime.fromtimestamp(time.time() - self.age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return 200, {"metadata": {"name": "program", "creationTimestamp": created, **gone}}
        return 404, {"kind": "Status", "code": 404}


@dataclass
class Node:
    """A folder that stands for the node's file system, and the program's files beside it."""

    folder: Path
    api: FakeApi

    def __post_init__(self) -> None:
        package = self.folder / "program" / "gameday" / "node"
        package.mkdir(parents=True)
        for name, text in program_files().items():
            (package / name).write_text(text)
        (package / "for_tests.py").write_text(ACTION)
        self.root = self.folder / "root"
        self.root.mkdir()
        self.state = self.root / "state"
        self.state.write_text("up")
        (self.root / "held").touch()
        self.account = self.folder / "account"
        self.account.mkdir()
        (self.account / "token").write_text("secret\n")

    def start(self, mode: str = "run", python: str | None = None, **options: Any) -> Started:
        """Start the program, without any site-packages."""
        task = Task(
            id="test",
            action=options.pop("action", "switch"),
            options=options.pop("options", {}),
            lease=("gameday", "gameday-test"),
            pod=("gameday", "program"),
            api_server=self.api.url,
            **{"seconds": 60.0, "patience": 60.0, **options},
        )
        file = self.folder / "task.json"
        file.write_text(json.dumps(task.to_data()))
        message = self.folder / "message"
        message.unlink(missing_ok=True)
        arguments = ["--mode", mode, "--root", str(self.root), "--account", str(self.account)]
        process = subprocess.Popen(
            [
                python or sys.executable,
                "-S",
                "-m",
                "gameday.node",
                str(file),
                *arguments,
                "--message",
                str(message),
            ],
            env={"PYTHONPATH": str(self.folder / "program"), "PATH": os.environ["PATH"]},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Started(process, self, message)


@dataclass
class Started:
    """The program as a child process."""

    process: subprocess.Popen[str]
    node: Node
    message: Path

    def is_in(self) -> Started:
        """Wait until the change is in force."""
        until(lambda: self.node.state.read_text() == "down", "the change is in force", within=20)
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> list[dict[str, Any]]:
        """Its events, once it has ended."""
        out, err = self.process.communicate(timeout=60)
        assert not err, err
        return [json.loads(line) for line in out.splitlines()]
