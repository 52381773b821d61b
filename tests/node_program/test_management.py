"""Interfaces that a node is managed through are found, whatever they are built on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from gameday.node.host import NodeHost, ToolError
from gameday.node.management import management_interfaces

pytestmark = pytest.mark.fast


@dataclass
class Ip:
    """A node of which only `ip -json` is known, in iproute2's words."""

    links: list[dict[str, Any]]
    defaults: list[dict[str, Any]] = field(default_factory=list)
    routes: dict[str, str] = field(default_factory=dict)  # address: interface

    def run(self, *argv: str) -> str:
        match argv:
            case ("ip", "-json", "addr", "show"):
                return json.dumps([*self.links, {}])
            case ("ip", "-json", "-4", "route", "show", "default"):
                return json.dumps(self.defaults)
            case ("ip", "-json", "-6", "route", "show", "default"):
                return ""
            case ("ip", "-json", "route", "get", address) if address in self.routes:
                return json.dumps([{"dst": address, "dev": self.routes[address]}])
        raise ToolError(argv, 2, "RTNETLINK answers: Network is unreachable")

    def read(self, path: str) -> str:
        raise FileNotFoundError(path)

    def write(self, path: str, text: str) -> None:
        raise FileNotFoundError(path)


def link(name: str, address: str = "", **more: Any) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"local": address}] if address else [], **more}


def test_the_default_route() -> None:
    node = Ip([link("eth0"), link("ens1f0")], [{"dst": "default", "dev": "eth0"}])
    assert management_interfaces(node, []) == {"eth0": "it carries the node's default route"}


def test_several_next_hops() -> None:
    hops = {"dst": "default", "nexthops": [{"dev": "a"}, {"dev": "b"}]}
    assert set(management_interfaces(Ip([link("a"), link("b")], [hops]), [])) == {"a", "b"}


def test_the_nodes_own_address_and_the_way_to_the_api_server() -> None:
    node = Ip([link("eth0", "10.0.0.5"), link("eth1")], routes={"192.0.2.1": "eth1"})
    found = management_interfaces(node, ["10.0.0.5", "192.0.2.1", "gpu-0", "127.0.0.1", "2001:db8::1"])
    assert found == {
        "eth0": "it has the node's address 10.0.0.5",
        "eth1": "the way to 192.0.2.1 (API server or kubelet) goes through it",
    }


def test_what_a_bond_bridge_or_vlan_is_made_of() -> None:
    node = Ip(
        [
            link("eno1", master="bond0"),
            link("eno2", master="bond0"),
            link("bond0", master="br0"),
            link("br0"),
            link("br0.100", "10.0.0.5", link="br0"),
            link("ens1f0"),
        ]
    )
    found = management_interfaces(node, ["10.0.0.5"])
    assert set(found) == {"br0.100", "br0", "bond0", "eno1", "eno2"}
    assert found["eno2"].startswith("bond0 lives on it, and br0 lives on it, and br0.100 lives on it")


def test_a_node_without_ip() -> None:
    class Bare(Ip):
        def run(self, *argv: str) -> str:
            raise ToolError(argv, 127, "the node has no ip")

    with pytest.raises(ToolError, match="the node has no ip"):
        management_interfaces(Bare([]), [])


def test_the_ip_of_this_machine() -> None:
    """The real tool, with the real words: this machine's loopback is no management interface; others are."""
    host = NodeHost("/")
    try:
        links = json.loads(host.run("ip", "-json", "-4", "addr", "show", "scope", "global"))
        own = {a["local"]: link["ifname"] for link in links if link for a in link["addr_info"]}
        found = management_interfaces(host, ["127.0.0.1", "::1", *own])
    except ToolError as error:
        if error.code == 127:
            pytest.skip("this machine has no ip")
        raise
    if not own:
        pytest.skip("this machine has no address but its loopback's")
    assert set(own.values()) <= found.keys()
    assert "lo" not in found
