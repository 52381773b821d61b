"""A link comes back whatever dies: gameday, its pod, its program, the API server, or the way to it."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gameday.ledger.lease import ref_of
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.real_node.conftest import SPACE
from tests.real_node.links import nic, state
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.support.polling import eventually, until
from tests.support.program import Program

pytestmark = pytest.mark.usefixtures("pairs")


@pytest.mark.parametrize(
    ("link", "hold", "renewed", "why"),
    [("fab0", "3s", True, "its 23 s are over"), ("mac0", "300s", False, "Lease was not renewed")],
    ids=["its time is over", "the lease runs out"],
    indirect=["link"],
)
async def test_a_link_comes_back_when_gameday_is_killed(
    kube: Kube,
    node: RealNode,
    link: str,
    nothing_left: None,
    gameday: Program,
    tmp_path: Path,
    hold: str,
    renewed: bool,
    why: str,
) -> None:
    """`renewed`: somebody goes on renewing the Lease, as a run would that hangs."""
    with gameday.started(nic(tmp_path, node, link, hold, state="down")) as run:
        run.fault_is("in")
        run.kill()
    assert not node.is_up(link)

    async def back() -> bool:
        if renewed:
            await kube.patch(ref_of(run.folder.name), {"spec": {"renewTime": _now()}}, "merge")
        return await asyncio.to_thread(node.is_up, link)

    await eventually(back, within=90, every=1.0)
    (pod,) = await kube.list(PODS, SPACE)
    said = await eventually(lambda: kube.logs(Ref.of(pod), "program"), lambda text: '"out"' in text)
    assert why in said
    ended = gameday("recover", "--run", run.folder.name, "--force")
    assert ended.code == 0, ended.output


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_a_link_comes_back_when_its_pod_is_told_to_go(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        assert not node.is_up("fab0")
        (pod,) = await kube.list(PODS, SPACE)
        await kube.delete(Ref.of(pod))
        until(lambda: node.is_up("fab0"), "the link is up")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert ended.code != 0


def test_a_link_comes_back_when_the_api_server_is_gone(
    platform: Platform, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        assert not node.is_up("fab0")
        platform.stop_api()
        try:
            until(lambda: node.is_up("fab0"), "the node takes its fault back by itself", within=60)
        finally:
            platform.start_api()
        run.signal(signal.SIGINT)
        ended = run.ended()
    recovered = gameday("recover", "--run", run.folder.name, "--force", "--reports", gameday.reports)
    assert recovered.code == 0, ended.output + recovered.output


def test_a_program_that_is_killed_is_started_again_and_reverts(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        assert not node.is_up("fab0")
        (program,) = node.processes("python3")
        node.run("kill", "-KILL", str(program))
        until(lambda: node.is_up("fab0"), "the link is up", within=60)
        run.signal(signal.SIGINT)
        run.ended()


def test_the_nodes_management_comes_back_by_itself(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    before = state(node, "eth0")
    with gameday.started(nic(tmp_path, node, "eth0", "5s", state="down", allowManagement=True)) as run:
        until(lambda: not node.is_up("eth0"), "the node can't be reached")
        until(lambda: node.is_up("eth0"), "the node takes its fault back by itself", within=60)
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert state(node, "eth0") == before
