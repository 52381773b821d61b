"""`ip`, `tc`, `rdma` and sysfs of a simulated node, as far as the node's program uses them.

Output has iproute2's shapes (6.x); errors are the kernel's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from gameday.node.host import ToolError
from gameday.sandbox.fleet.host import Files, Hosts
from gameday.sandbox.fleet.network.hardware import MANAGEMENT, Link, Network, Networks, Vf

WITHOUT = "sandbox.gameday.dev/kernel-without"  # on a node: queueing disciplines that its kernel lacks
QDISCS = ("netem", "tbf", "htb", "pfifo", "fq_codel")
NO_DEVICE = "Cannot find device"  # what `tc` says; `ip` has other words


class Tools:
    """The tools of every node. `annotations` reads a node's, "" for what is not there."""

    def __init__(self, networks: Networks, annotation: Callable[[str, str], str]) -> None:
        self._networks, self._annotation = networks, annotation

    def register(self, hosts: Hosts) -> None:
        hosts.tools |= {"ip": self._ip, "tc": self._tc, "rdma": self._rdma, "unshare": self._unshare}
        hosts.files["/sys/class/net"] = Files(read=self._sysfs)

    # -- ip ------------------------------------------------------------------------------------

    def _ip(self, node: str, argv: list[str]) -> str:
        network = self._networks.of(node)
        words = [w for w in argv[1:] if not w.startswith("-")]
        match words:
            case ["link", "show", *rest]:
                found = [_of(network, rest[-1], argv)] if rest else list(network.links.values())
                return json.dumps([_link_json(li, details="-details" in argv) for li in found])
            case ["addr" | "address", "show", *rest]:
                six = "-6" in argv
                found = [_of(network, rest[-1], argv)] if rest else list(network.links.values())
                return json.dumps(
                    [_link_json(li) | {"addr_info": _addresses(network, li, six)} for li in found]
                )
            case ["route", "show", "default"]:
                gateway = {"dst": "default", "gateway": "198.18.255.254", "dev": MANAGEMENT, "flags": []}
                return json.dumps([] if "-6" in argv else [gateway])
            case ["route" | "neigh", "show", *_]:
                return ""  # nothing that a link could lose
            case ["route", "get", address]:
                return json.dumps([{"dst": address, "dev": MANAGEMENT, "flags": [], "cache": []}])
            case ["link", "set", "dev", name, *settings]:
                self._set(network, _of(network, name, argv), settings, argv)
                return ""
        raise ToolError(tuple(argv), 255, f'Command "{" ".join(words)}" is unknown')

    def _set(self, network: Network, link: Link, settings: list[str], argv: list[str]) -> None:
        match settings:
            case ["up" | "down" as state]:
                link.set_up(state == "up")
            case ["mtu", value]:
                link.mtu = int(value)
            case ["vf", number, key, value, *rest]:
                vf = next((v for v in link.vfs if v.number == int(number)), None)
                if vf is None:
                    raise ToolError(tuple(argv), 2, "RTNETLINK answers: Invalid argument")
                setattr(vf, key, type(getattr(vf, key))(value))
                if key == "vlan":
                    vf.qos = int(rest[1]) if rest[:1] == ["qos"] else 0
            case _:
                raise ToolError(
                    tuple(argv), 255, f'Error: either "dev" is duplicate, or "{settings[0]}" is a garbage.'
                )
        self._networks.changed(network.node)

    # -- tc ------------------------------------------------------------------------------------

    def _tc(self, node: str, argv: list[str]) -> str:
        network = self._networks.of(node)
        match [w for w in argv[1:] if w != "-json"]:
            case ["-V"]:
                return "tc utility, iproute2-6.8.0\n"
            case ["qdisc", "show", "dev", name]:
                return json.dumps([_qdisc_json(_of(network, name, argv, NO_DEVICE))])
            case ["qdisc", "add", "dev", name, "root", "handle", handle, *qdisc]:
                link = _of(network, name, argv, NO_DEVICE)
                self._check(node, qdisc, argv)
                if link.qdisc:
                    raise ToolError(tuple(argv), 2, "Error: Exclusivity flag on, cannot modify.")
                link.qdisc = (handle, qdisc)
            case ["qdisc", "del", "dev", name, "root"]:
                link = _of(network, name, argv, NO_DEVICE)
                if link.qdisc is None:
                    raise ToolError(tuple(argv), 2, "Error: Cannot delete qdisc with handle of zero.")
                link.qdisc = None
            case _:
                raise ToolError(tuple(argv), 255, "What is that?")
        self._networks.changed(node)
        return ""

    def _unshare(self, node: str, argv: list[str]) -> str:
        """`unshare --net tc qdisc add dev lo root …`: only whether the kernel would take it."""
        self._check(node, argv[argv.index("root") + 1 :], argv)
        return ""

    def _check(self, node: str, qdisc: list[str], argv: list[str]) -> None:
        missing = self._annotation(node, WITHOUT).split(",")
        if qdisc[0] not in QDISCS or qdisc[0] in missing:
            raise ToolError(tuple(argv), 2, "Error: Specified qdisc kind is unknown.")

    # -- the rest ------------------------------------------------------------------------------

    def _rdma(self, node: str, argv: list[str]) -> str:
        ports = [
            {"ifindex": n, "ifname": device, "port": 1, "state": "ACTIVE" if active else "DOWN"}
            | {"physical_state": "LINK_UP" if active else "DISABLED"}
            | ({"netdev": netdev} if netdev else {})
            for n, (device, active, netdev) in enumerate(self._networks.of(node).rdma_ports())
        ]
        return json.dumps(ports)

    def _sysfs(self, node: str, path: str) -> str:
        """/sys/class/net/LINK/device/uevent"""
        match = re.fullmatch(r"/sys/class/net/([^/]+)/device/uevent", path)
        link = self._networks.of(node).links.get(match[1]) if match else None
        if link is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return f"DRIVER=mlx5_core\nPCI_SLOT_NAME={link.pci}\n"


def _of(network: Network, name: str, argv: list[str], words: str = "") -> Link:
    if name not in network.links:
        said = f'{words} "{name}"' if words else f'Device "{name}" does not exist.'
        raise ToolError(tuple(argv), 1, said)
    return network.links[name]


def _link_json(link: Link, *, details: bool = False) -> dict[str, Any]:
    flags = ["BROADCAST", "MULTICAST", *(["UP", "LOWER_UP"] if link.up else [])]
    told: dict[str, Any] = {
        "ifindex": link.index,
        "ifname": link.name,
        "flags": flags,
        "mtu": link.mtu,
        "qdisc": link.qdisc[1][0] if link.qdisc else "mq",
        "operstate": "UP" if link.up else "DOWN",
        "group": "default",
        "txqlen": 1000,
        "link_type": "ether",
        "address": link.mac,
        "broadcast": "ff:ff:ff:ff:ff:ff",
    }
    if details:
        told |= {"min_mtu": 68, "max_mtu": 9978, "num_tx_queues": 64, "num_rx_queues": 64}
        told |= {"parentbus": "pci", "parentdev": link.pci}
        told |= {"vfinfo_list": [_vf_json(vf) for vf in link.vfs]} if link.vfs else {}
    return told


def _vf_json(vf: Vf) -> dict[str, Any]:
    vlan = {k: v for k, v in (("vlan", vf.vlan), ("qos", vf.qos)) if v}
    return {
        "vf": vf.number,
        "link_type": "ether",
        "address": vf.mac,
        "broadcast": "ff:ff:ff:ff:ff:ff",
        "vlan_list": [vlan],
        "rate": {"max_tx": vf.max_tx_rate, "min_tx": 0},
        "spoofchk": vf.spoofchk == "on",
        "link_state": vf.state,
        "trust": vf.trust == "on",
        "query_rss_en": False,
    }


def _addresses(network: Network, link: Link, six: bool) -> list[dict[str, Any]]:
    if link.name != MANAGEMENT or six:
        return []
    return [
        {"family": "inet", "local": network.address, "prefixlen": 16, "scope": "global", "label": link.name}
    ]


def _qdisc_json(link: Link) -> dict[str, Any]:
    if link.qdisc is None:
        return {"kind": "mq", "handle": "0:", "root": True, "options": {}}
    return {"kind": link.qdisc[1][0], "handle": link.qdisc[0], "root": True, "refcnt": 65, "options": {}}
