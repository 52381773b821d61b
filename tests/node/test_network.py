"""Faults on links, on this machine's own kernel: made, seen by another process, and taken back whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from gameday.node.actions import Action, action
from gameday.node.host import ToolError
from tests.support import netns
from tests.support.netns import Namespace

LATE = ("fe80::", "ff00::/8")  # what the kernel adds by itself, a moment after the link is up
ROUTES = (("-4", "10.20.0.0/16"), ("-4", "10.30.0.0/16"), ("-6", "fd01::/64"))


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if why := netns.possible():
        pytest.skip(why)


@pytest.fixture
def node() -> Iterator[Namespace]:
    """fab0: a fabric link with addresses, and routes in two tables; eth0: the way to everybody else."""
    with netns.namespace() as made:
        for link in ("fab0", "eth0"):
            made.set(f"link add {link} mtu 1500 type veth peer name {link}-peer")
            made.set(f"link set {link} up")
            made.set(f"link set {link}-peer up")
        made.set("addr add 10.9.0.1/24 dev fab0")
        made.set("-6 addr add fd00::1/64 dev fab0 nodad")
        made.set("addr add 10.8.0.1/24 dev eth0")
        made.set("route add default via 10.8.0.254")
        made.set("route add 10.20.0.0/16 via 10.30.0.3 dev fab0 onlink table 100")
        made.set("route add 10.30.0.0/16 dev fab0 metric 50 src 10.9.0.1")
        made.set("-6 route add fd01::/64 via fd00::2 dev fab0")
        made.set("route add 10.40.0.0/16 nexthop via 10.9.0.9 dev fab0 nexthop via 10.8.0.9 dev eth0")
        made.set("neigh add 10.9.0.77 lladdr 02:00:00:00:00:01 dev fab0 nud permanent")
        yield made


def fault(name: str, **options: Any) -> Action:
    return action(name, {"interface": "fab0", **options})


def lines(node: Namespace) -> list[str]:
    """Everything of fab0 that a fault could lose, as the kernel tells it."""
    asked = [("link", "show"), ("-4", "addr", "show"), ("-6", "addr", "show", "scope", "global")]
    asked += [(f, "route", "show", "table", "all") for f in ("-4", "-6")]
    asked += [("neigh", "show", "nud", "permanent")]
    told = [node.run("ip", "-oneline", *what, "dev", "fab0").splitlines() for what in asked]
    told += [node.run("ip", "-oneline", "route", "show", "10.40.0.0/16").splitlines()]
    return sorted(line.rstrip() for part in told for line in part if "fe80" not in line)


def made(doing: Action, node: Namespace) -> dict[str, Any]:
    """Checked, remembered, made, and seen in force."""
    assert doing.check(node) == []
    before = doing.before(node)
    doing.apply(node, before)
    assert doing.look(node, before)[0] == "in"
    return before


def test_down_and_back_with_all_that_it_lost(node: Namespace) -> None:
    at_first = lines(node)
    doing = fault("link-down")
    before = made(doing, node)
    assert "UP" not in node.link("fab0")["flags"]
    assert not any(dest in line for _, dest in ROUTES for line in lines(node))
    doing.revert(node, before)
    doing.revert(node, before)
    assert doing.look(node, before) == ("out", ["fab0: up, carrier on"])
    assert lines(node) == at_first


def test_back_though_an_earlier_revert_was_cut_off(node: Namespace) -> None:
    at_first = lines(node)
    before = made(fault("link-down"), node)
    node.set("link set fab0 up")  # as far as it had come
    fault("link-down").revert(node, before)
    assert lines(node) == at_first


def test_an_interface_that_went_away(node: Namespace) -> None:
    doing = fault("link-down")
    before = made(doing, node)
    node.set("link del fab0")
    doing.revert(node, before)
    state, facts = doing.look(node, before)
    assert (state, "gone" in facts[0]) == ("out", True)


def test_flaps_as_often_as_was_asked(node: Namespace) -> None:
    at_first = lines(node)
    doing = fault("link-flap", period=2, count=3)
    before = made(doing, node)
    seen = []
    for tenth in range(80):
        doing.hold(node, before, tenth / 10)
        seen.append("UP" in node.link("fab0")["flags"])
    changes = sum(a != b for a, b in pairwise(seen))
    assert (seen[0], changes, seen[-1]) == (False, 5, True)
    doing.revert(node, before)
    assert doing.look(node, before)[0] == "out"
    assert lines(node) == at_first


def test_a_rate(node: Namespace) -> None:
    at_first = lines(node)
    doing = fault("link-shape", qdisc=["tbf", "rate", "1mbit", "burst", "32kb", "latency", "50ms"])
    before = made(doing, node)
    assert "tbf" in node.run("tc", "qdisc", "show", "dev", "fab0")
    assert (
        "of an earlier fault of ours (tbf" in fault("link-shape", qdisc=doing.options["qdisc"]).check(node)[0]
    )
    doing.revert(node, before)
    doing.revert(node, before)
    assert doing.look(node, before)[0] == "out"
    assert lines(node) == at_first


def test_a_queueing_discipline_of_somebody_else_stays(node: Namespace) -> None:
    doing = fault("link-shape", qdisc=["tbf", "rate", "1mbit", "burst", "32kb", "latency", "50ms"])
    before = made(doing, node)
    node.run("tc", "qdisc", "replace", "dev", "fab0", "root", "handle", "1:", "pfifo")
    doing.revert(node, before)
    assert "pfifo 1:" in node.run("tc", "qdisc", "show", "dev", "fab0")
    assert "somebody configured (pfifo 1:)" in doing.check(node)[0]


def test_what_this_kernel_can_and_cannot_do_is_told_before(node: Namespace) -> None:
    """The check must say of netem what the kernel says when it is asked for it in earnest."""
    try:
        node.run("tc", "qdisc", "add", "dev", "fab0-peer", "root", "netem", "delay", "1ms")
        able = True
    except ToolError:
        able = False
    problems = fault("link-shape", qdisc=["netem", "delay", "1ms"]).check(node)
    assert problems == [] if able else "kernel has no netem (module sch_netem" in problems[0]
    assert node.ip("link", "show", "dev", "fab0")[0]["qdisc"] == "noqueue"
    wrong = fault("link-shape", qdisc=["tbf", "rate", "nonsense"]).check(node)
    assert "refuses 'tbf rate nonsense'" in wrong[0]


def test_another_mtu(node: Namespace) -> None:
    at_first = lines(node)
    doing = fault("link-mtu", mtu=1400)
    before = made(doing, node)
    assert node.link("fab0")["mtu"] == 1400
    doing.revert(node, before)
    assert lines(node) == at_first
    assert "already" in fault("link-mtu", mtu=1500).check(node)[0]
    assert "takes an MTU from 68 to 65535" in fault("link-mtu", mtu=100_000).check(node)[0]


def test_an_mtu_that_somebody_else_set_stays(node: Namespace) -> None:
    doing = fault("link-mtu", mtu=1400)
    before = made(doing, node)
    node.set("link set fab0 mtu 1300")
    doing.revert(node, before)
    assert doing.look(node, before) == ("out", ["fab0: MTU 1300, 1500 before"])
    assert node.link("fab0")["mtu"] == 1300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interface": "fab9"}, "there is no interface fab9; the node has fab0-peer, fab0"),
        ({"interface": "", "pciAddress": "0000:1a:00.0"}, "no interface here is the PCI device 0000:1a:00.0"),
        ({"interface": "eth0"}, "eth0 carries the node's management (it carries the node's default route)"),
        ({"addresses": ["10.9.0.1"]}, "fab0 carries the node's management (it has the node's address"),
        ({"addresses": ["10.30.7.7"]}, "fab0 carries the node's management (the way to 10.30.7.7"),
    ],
)
def test_refused(options: dict[str, Any], words: str, node: Namespace) -> None:
    problems = fault("link-down", **options).check(node)
    assert problems
    assert words in problems[0]
    if "management" in words:
        assert fault("link-down", **options, allowManagement=True).check(node) == []


def test_the_loopback_is_refused_whatever_is_said(node: Namespace) -> None:
    for options in ({}, {"allowManagement": True}):
        assert "is the node's loopback" in fault("link-down", interface="lo", **options).check(node)[0]


def test_what_is_down_can_not_be_taken_down(node: Namespace) -> None:
    node.set("link set fab0 down")
    assert fault("link-down").check(node) == ["fab0 is down already: nothing would change"]


def test_what_is_made_on_top_of_a_link_keeps_its_own(node: Namespace) -> None:
    node.set("link add link fab0 name mv0 type macvlan mode bridge")
    node.set("link set mv0 up")
    node.set("-6 addr add fd05::1/64 dev mv0 nodad")
    node.set("route add 10.50.0.0/16 dev mv0")
    doing = fault("link-down")
    before = made(doing, node)
    node.set("link set mv0 down")  # as the kernel does to a VLAN, and lifts it again with the link below
    doing.revert(node, before)
    node.set("link set mv0 up")
    doing.revert(node, before)
    assert "fd05::1/64" in node.run("ip", "-6", "addr", "show", "dev", "mv0")
    assert "10.50.0.0/16 dev mv0" in node.run("ip", "route", "show")


def test_a_macvlan(node: Namespace) -> None:
    node.set("link add link fab0 name mv0 type macvlan mode bridge")
    node.set("link set mv0 up")
    doing = fault("link-down", interface="mv0")
    before = made(doing, node)
    doing.revert(node, before)
    assert "UP" in node.link("mv0")["flags"]


def test_no_virtual_functions_here(node: Namespace) -> None:
    assert "has no virtual functions" in fault("vf", vf=0, set={"state": "disable"}).check(node)[0]
