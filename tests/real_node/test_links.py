"""Links of a real node: down as others see it, and back whatever dies: gameday, its pod, or the API server.

`fab0` is one end of a veth pair, whose other end is in a network namespace of its own, as another machine's
would be; `mac0` is a macvlan on such an end.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from tests.real_node.experiments import write
from tests.support.node import RealNode
from tests.support.platforms import Platform
from tests.support.polling import eventually, until
from tests.support.program import Program

SPACE = "gameday"
ROUTE = "198.51.100.0/24"
LINKS = ("fab0", "mac0")


@pytest.fixture(scope="module", autouse=True)
def _links(node: RealNode) -> Iterator[None]:
    node.ip("netns add peer")
    for index in (0, 1):
        node.ip(f"link add fab{index} type veth peer name fab{index} netns peer")
        node.ip(f"-netns peer link set fab{index} up")
        node.ip(f"link set fab{index} up")
    node.ip("link add link fab1 name mac0 type macvlan mode bridge")
    node.ip("link set mac0 up")
    yield
    node.ip("netns delete peer")  # takes the pairs, and those the macvlan, with it


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest, node: RealNode) -> Iterator[str]:
    """A link with an address and a route through it, which the kernel forgets when it goes down."""
    name: str = request.param
    node.ip(f"address add 192.0.2.1/24 dev {name}")
    node.ip(f"-6 address add 2001:db8::1/64 dev {name} nodad")
    node.ip(f"route add {ROUTE} via 192.0.2.2 dev {name}")
    before = _state(node, name)
    try:
        yield name
        assert _state(node, name) == before
    finally:
        node.ip(f"address flush dev {name}")


def _state(node: RealNode, name: str) -> dict[str, set[Any]]:
    """What must be as before: flags, MTU, addresses, routes and queueing disciplines."""
    shown = node.link(name)
    addresses = json.loads(node.ip(f"-json address show dev {name} scope global"))
    routes = [node.ip(f"{family} route show dev {name}") for family in ("-4", "-6")]
    return {
        "flags": set(shown["flags"]),
        "mtu": {shown["mtu"]},
        "addresses": {(a["local"], a["prefixlen"]) for found in addresses for a in found["addr_info"] if a},
        # The kernel's own route, link-local, is there as soon as the link has been up for a moment.
        "routes": {r.strip() for text in routes for r in text.splitlines() if not r.startswith("fe80")},
        "qdisc": set(node.run("tc", "qdisc", "show", "dev", name).splitlines()),
    }


def _nic(folder: Path, node: RealNode, link: str, hold: str, **what: Any) -> Path:
    step = {"nic": {"nodes": {"names": [node.name]}, "interface": link, **what}, "for": hold}
    return write(folder, node, step)


def _peer_has_carrier(node: RealNode) -> bool:
    """As the machine at the other end of fab0 sees it."""
    (shown,) = json.loads(node.ip("-netns peer -json link show dev fab0"))
    return "LOWER_UP" in shown["flags"]


def test_a_link_goes_down_as_others_see_it_and_comes_back(
    node: RealNode, link: str, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_nic(tmp_path, node, link, "3s", state="down")) as run:
        run.fault_is("in")
        assert not node.is_up(link)
        assert _peer_has_carrier(node) == (link != "fab0")
        ended = run.ended()
    assert ended.code == 0, ended.output
    facts = {e["state"]: e["evidence"] for e in ended.of("fault") if e["state"] in ("in", "out")}
    assert facts["in"] == [f"{node.name}: {link}: down, carrier off"]
    assert facts["out"] == [f"{node.name}: {link}: up, carrier on"]


@pytest.mark.parametrize(
    ("link", "hold", "why"),
    [("fab0", "3s", "its 23 s are over"), ("mac0", "300s", "Lease was not renewed")],
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
    why: str,
) -> None:
    with gameday.started(_nic(tmp_path, node, link, hold, state="down")) as run:
        run.fault_is("in")
        run.signal(signal.SIGKILL)
        run.process.wait()
    assert not node.is_up(link)
    until(lambda: node.is_up(link), "the node takes its fault back by itself", within=90)
    (pod,) = await kube.list(PODS, SPACE)
    said = await eventually(lambda: kube.logs(Ref.of(pod), "program"), lambda text: '"out"' in text)
    assert why in said
    ended = gameday("recover", "--run", run.folder.name, "--force")
    assert ended.code == 0, ended.output


async def test_a_link_comes_back_when_its_pod_is_told_to_go(
    kube: Kube, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        (pod,) = await kube.list(PODS, SPACE)
        await kube.delete(Ref.of(pod))
        until(lambda: node.is_up("fab0"), "the link is up")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert ended.code != 0


def test_a_link_comes_back_when_the_api_server_is_gone(
    platform: Platform, node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        platform.stop_api()
        try:
            until(lambda: node.is_up("fab0"), "the node takes its fault back by itself", within=60)
        finally:
            platform.start_api()
        run.signal(signal.SIGINT)
        ended = run.ended()
    recovered = gameday("recover", "--run", run.folder.name, "--force")
    assert recovered.code == 0, ended.output + recovered.output


def test_a_program_that_is_killed_is_started_again_and_reverts(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_nic(tmp_path, node, "fab0", "300s", state="down")) as run:
        run.fault_is("in")
        (program,) = node.processes("python3")
        node.run("kill", "-KILL", str(program))
        until(lambda: node.is_up("fab0"), "the link is up", within=60)
        run.signal(signal.SIGINT)
        run.ended()


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
    ended = gameday.run(_nic(tmp_path, node, link, "4s", **what))
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
    ended = gameday.run(_nic(tmp_path, node, "fab0", "2s", delay="10ms"))
    if there:
        assert ended.code == 0, ended.output
    else:
        assert ended.code == 4, ended.output
        assert "netem" in ended.output


def test_the_nodes_management_is_refused(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    ended = gameday.run(_nic(tmp_path, node, "eth0", "2s", state="down"))
    assert ended.code == 4, ended.output
    assert "eth0 carries the node's management" in ended.output


def test_the_nodes_management_comes_back_by_itself(
    node: RealNode, nothing_left: None, gameday: Program, tmp_path: Path
) -> None:
    before = _state(node, "eth0")
    with gameday.started(_nic(tmp_path, node, "eth0", "5s", state="down", allowManagement=True)) as run:
        until(lambda: not node.is_up("eth0"), "the node can't be reached")
        until(lambda: node.is_up("eth0"), "the node takes its fault back by itself", within=60)
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert _state(node, "eth0") == before
