"""Links of a real node: down as others see it, slow, flapping, and as they were afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.real_node.links import nic
from tests.support.node import RealNode
from tests.support.program import Program

pytestmark = pytest.mark.usefixtures("pairs")


def _peer_has_carrier(node: RealNode) -> bool:
    """As the machine at the other end of fab0 sees it."""
    (shown,) = json.loads(node.ip("-netns peer -json link show dev fab0"))
    return "LOWER_UP" in shown["flags"]


def test_a_link_goes_down_as_others_see_it_and_comes_back(
    node: RealNode, link: str, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(nic(tmp_path, node, link, "3s", state="down")) as run:
        run.fault_is("in")
        assert not node.is_up(link)
        assert _peer_has_carrier(node) == (link != "fab0")
        ended = run.ended()
    assert ended.code == 0, ended.output
    facts = {e["state"]: e["evidence"] for e in ended.of("fault") if e["state"] in ("in", "out")}
    assert facts["in"] == [f"{node.name}: {link}: down, carrier off"]
    assert facts["out"] == [f"{node.name}: {link}: up, carrier on"]


@pytest.mark.parametrize(
    ("link", "what", "fact"),
    [
        ("mac0", {"mtu": 1400}, "MTU 1400"),
        ("fab0", {"rate": "1mbit"}, "tbf"),
        ("fab0", {"flap": {"period": "1s", "count": 2}}, "down"),
    ],
    ids=["mtu", "rate", "flap"],
    indirect=["link"],
)
def test_other_faults_of_a_link(
    node: RealNode,
    link: str,
    nothing_left: None,
    gameday: Program,
    tmp_path: Path,
    what: dict[str, Any],
    fact: str,
) -> None:
    changes = _carrier_changes(node, link)
    ended = gameday.run(nic(tmp_path, node, link, "4s", **what))
    assert ended.code == 0, ended.output
    (inside,) = [e["evidence"] for e in ended.of("fault") if e["state"] == "in"]
    assert fact in " ".join(inside)
    if "flap" in what:
        assert _carrier_changes(node, link) == changes + 4


def _carrier_changes(node: RealNode, link: str) -> int:
    return int(node.run("cat", f"/sys/class/net/{link}/carrier_changes"))


def test_a_kernel_without_netem_is_named_before_anything_is_touched(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    try_it = "tc qdisc add dev lo root netem && tc qdisc delete dev lo root && echo there"
    there = node.run("sh", "-c", f"{try_it} 2>/dev/null || true")
    ended = gameday.run(nic(tmp_path, node, "fab0", "2s", delay="10ms"))
    if there:
        assert ended.code == 0, ended.output
    else:
        assert ended.code == 4, ended.output
        assert "netem" in ended.output


def test_the_nodes_management_is_refused(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    ended = gameday.run(nic(tmp_path, node, "eth0", "2s", state="down"))
    assert ended.code == 4, ended.output
    assert "eth0 carries the node's management" in ended.output
