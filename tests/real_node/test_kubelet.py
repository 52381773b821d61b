"""`nodeShutdown` on a real node: its kubelet stops, the cluster notices, and it goes on; whoever dies."""

from __future__ import annotations

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
    """Whether it is stopped, by its state's letter."""
    _, state = _oldest(node)
    return "stopped" if state == "T" else "running"


def _oldest(node: RealNode) -> tuple[int, str]:
    """The kubelet itself; while it starts another program, that too has its name for a moment."""
    return min(node.processes("kubelet").items())


async def test_a_kubelet_stops_and_goes_on(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    pid, _ = _oldest(node)
    with gameday.started(_shutdown(tmp_path, node, "2s")) as run:
        # The cluster calls a node lost when it has heard nothing of it for a while.
        run.until(lambda e: e["type"] == "fault" and e["state"] == "in", "the node is lost", within=150)
        assert _kubelet(node) == "stopped"
        assert not is_ready(await kube.get(Ref("v1", "Node", node.name)))
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert _kubelet(node) == "running"
    assert _oldest(node)[0] == pid
    assert is_ready(await kube.get(Ref("v1", "Node", node.name)))


async def test_a_kubelet_goes_on_when_gameday_is_killed(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_shutdown(tmp_path, node, "300s")) as run:
        until(lambda: _kubelet(node) == "stopped", "the kubelet is stopped", within=60)
        run.kill()
    until(lambda: _kubelet(node) == "running", "the node takes its fault back by itself", within=90)
    await eventually(lambda: kube.get(Ref("v1", "Node", node.name)), is_ready)
    ended = gameday("recover", "--run", run.folder.name, "--force")
    assert ended.code == 0, ended.output
