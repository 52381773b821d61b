"""What the `gpu` fault does on a real node's kernel log, and what it says where there is no NVIDIA driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.real_node.experiments import write
from tests.support.node import RealNode
from tests.support.program import Program

LINE = "NVRM: Xid (PCI:0000:05:00): 48, pid='<unknown>', name=<unknown>, double bit ECC error"


@pytest.fixture
async def gpus(kube: Kube, node: RealNode) -> AsyncIterator[None]:
    """The node says that it has GPUs, as an administrator may let any node say of any resource."""
    ref = Ref("v1", "Node", node.name)
    status: dict[str, Any] = {"capacity": {"nvidia.com/gpu": "8"}}
    await kube.patch(ref, {"status": status}, "merge", subresource="status")
    yield
    gone: dict[str, Any] = {"nvidia.com/gpu": None}
    body = {"status": {"capacity": gone, "allocatable": gone}}
    await kube.patch(ref, body, "merge", subresource="status")


def _gpu(node: RealNode, hold: str, **mode: Any) -> dict[str, Any]:
    return {"gpu": {"nodes": {"names": [node.name]}, **mode}, "for": hold}


def _said(node: RealNode) -> int:
    return node.run("dmesg").count(LINE)


async def test_an_xid_is_in_the_nodes_kernel_log(
    gpus: None, gameday: Program, node: RealNode, tmp_path: Path, nothing_left: None
) -> None:
    before = _said(node)
    xid = {"error": "double bit ECC error", "gpus": [5], "via": "kernelLog"}
    ended = gameday.run(write(tmp_path, node, _gpu(node, "1s", xid=xid)))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert _said(node) == before + 1
    evidence = {e["state"]: e.get("evidence") for e in ended.of("fault")}
    assert evidence["in"] == [f"{node.name}: kernel log: {LINE}"]
    assert "stays there until the node restarts" in ended.output


async def test_the_line_is_written_once_whoever_takes_over(
    gpus: None, gameday: Program, node: RealNode, tmp_path: Path, nothing_left: None
) -> None:
    before = _said(node)
    file = write(tmp_path, node, _gpu(node, "60s", xid={"error": 48, "gpus": [5], "via": "kernelLog"}))
    with gameday.started(file) as run:
        run.fault_is("in")
        name = run.kill()
        ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert _said(node) == before + 1


async def test_a_node_without_nvidias_tools_is_found_before_the_baseline(
    gameday: Program, node: RealNode, tmp_path: Path, nothing_left: None
) -> None:
    ended = gameday.run(write(tmp_path, node, _gpu(node, "1s", throttle={"powerLimit": "50%"})))
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert "nvidia-smi" in " ".join(ended.output.split())
    assert ended.of("fault") == []
