"""`nodeShutdown` on a real node: its kubelet stops, the cluster notices, and it goes on; whoever dies."""

from __future__ import annotations

import signal
from pathlib import Path

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref, is_ready
from tests.real_node.experiments import write
from tests.support.node import RealNode
from tests.support.polling import eventually, until
from tests.support.program import Program


def _shutdown(folder: Path, node: RealNode, hold: str) -> Path:
    return write(folder, node, {"nodeShutdown": {"nodes": {"names": [node.name]}}, "for": hold})


def _kubelet(node: RealNode) -> str:
    """Its state: S sleeps until there is something to do, T is stopped."""
    (state,) = node.processes("kubelet").values()
    return "running" if state in "SR" else state


async def test_a_kubelet_stops_and_goes_on(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    (pid,) = node.processes("kubelet")
    with gameday.started(_shutdown(tmp_path, node, "2s")) as run:
        run.fault_is("in")
        assert _kubelet(node) == "T"
        assert not is_ready(await kube.get(Ref("v1", "Node", node.name)))
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert _kubelet(node) == "running"
    assert list(node.processes("kubelet")) == [pid]
    assert is_ready(await kube.get(Ref("v1", "Node", node.name)))


async def test_a_kubelet_goes_on_when_gameday_is_killed(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_shutdown(tmp_path, node, "300s")) as run:
        until(lambda: _kubelet(node) == "T", "the kubelet is stopped")
        run.signal(signal.SIGKILL)
        run.process.wait()
    until(lambda: _kubelet(node) == "running", "the node takes its fault back by itself", within=90)
    await eventually(lambda: kube.get(Ref("v1", "Node", node.name)), is_ready)
    ended = gameday("recover", "--run", run.folder.name, "--force")
    assert ended.code == 0, ended.output
