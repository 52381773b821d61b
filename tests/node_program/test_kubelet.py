"""A kubelet that no systemd runs is stopped by a signal: a real process, as the kernel shows it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from gameday.node.host import NodeHost, ToolError
from gameday.node.system import KubeletStop
from tests.support.polling import until


class Node(NodeHost):
    """This machine, as if the only kubelet on it were a child of the test."""

    def __init__(self, kubelet: int) -> None:
        super().__init__("/")
        self._kubelet = kubelet

    def run(self, *argv: str) -> str:
        if argv[0] == "systemctl":
            raise ToolError(argv, 1, "System has not been booted with systemd as init system (PID 1).")
        return f"{self._kubelet}\n" if argv[0] == "pgrep" else super().run(*argv)


@pytest.fixture
def kubelet() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def _state(host: NodeHost, process: subprocess.Popen[bytes]) -> str:
    return host.read(f"/proc/{process.pid}/stat").rpartition(")")[2].split()[0]


def test_it_stops_and_goes_on(kubelet: subprocess.Popen[bytes]) -> None:
    host, doing = Node(kubelet.pid), KubeletStop({})
    assert doing.check(host) == []
    before = doing.before(host)
    assert doing.look(host, before)[0] == "out"
    doing.apply(host, before)
    until(lambda: _state(host, kubelet) == "T", "the process is stopped")
    assert doing.look(host, before)[0] == "in"
    for _ in range(2):  # idempotent
        doing.revert(host, before)
        until(lambda: _state(host, kubelet) == "S", "the process goes on")
        assert doing.look(host, before)[0] == "out"


def test_another_process_of_the_same_number_is_left_alone(kubelet: subprocess.Popen[bytes]) -> None:
    host, doing = Node(kubelet.pid), KubeletStop({})
    before: dict[str, Any] = {**doing.before(host), "started": "1"}
    host.run("kill", "-STOP", str(kubelet.pid))
    until(lambda: _state(host, kubelet) == "T", "somebody else stopped it")
    doing.revert(host, before)
    assert _state(host, kubelet) == "T"
    assert doing.look(host, before) == ("out", [f"process {kubelet.pid} (kubelet) ended meanwhile"])


def test_a_node_without_a_kubelet() -> None:
    (problem,) = KubeletStop({"unit": "k3s-agent"}).check(Node(0))
    assert "neither an active systemd unit k3s-agent nor a process `kubelet`" in problem
