"""What network hardware a simulated GPU node has, and in which state it is.

eth0 is the way to everybody (management, services), ens9f0 the way to the storage that training reads from
over TCP, ens1f0 to ens4f0 are the RDMA fabric: physical functions (PFs), each with two virtual ones (VFs).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gameday.sandbox.fleet.nodes import GPUS, address_of

MANAGEMENT, STORAGE = "eth0", "ens9f0"
FABRIC = ("ens1f0", "ens2f0", "ens3f0", "ens4f0")
VFS = GPUS // len(FABRIC)  # one for each GPU
MTU = 9000
BUSES = ("1a", "3b", "9c", "bd")
GIGABIT = 125_000_000  # bytes a second


@dataclass
class Vf:
    """A virtual function; settings in the words of `ip link set PF vf N`, its rate in Mbit/s (0: any)."""

    number: int
    pci: str
    mac: str
    rdma: str
    state: str = "auto"
    max_tx_rate: int = 0
    vlan: int = 0
    qos: int = 0
    spoofchk: str = "off"
    trust: str = "on"


@dataclass
class Link:
    """An interface. `qdisc` is its root queueing discipline's handle and what `tc` was told of it."""

    index: int
    name: str
    pci: str
    mac: str
    mtu: int = MTU
    speed: int = 400  # Gbit/s
    up: bool = True
    rdma: str = ""
    vfs: list[Vf] = field(default_factory=list)
    qdisc: tuple[str, list[str]] | None = None
    carrier_changes: int = 1

    def set_up(self, up: bool) -> None:
        if up != self.up:
            self.up = up
            self.carrier_changes += 1

    def passes(self, vf: Vf) -> bool:
        """Whether anything gets from a VF to the wire."""
        return self.up and vf.state != "disable"


@dataclass
class Network:
    """One node's links by name."""

    node: str
    links: dict[str, Link]
    address: str

    def vf(self, pci: str) -> tuple[Link, Vf] | None:
        return next(((li, vf) for li in self.links.values() for vf in li.vfs if vf.pci == pci), None)

    def rdma_ports(self) -> Iterator[tuple[str, bool, str]]:
        """Each RDMA device, whether its port is active, and its interface ("" when a pod has that)."""
        for link in self.links.values():
            if link.rdma:
                yield link.rdma, link.up, link.name
            for vf in link.vfs:
                yield vf.rdma, link.passes(vf), ""


class Networks:
    """Every simulated GPU node's network, made when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Network] = {}
        self._listeners: list[Callable[[str], None]] = []

    def of(self, node: str) -> Network:
        if node not in self._known:
            self._known[node] = _network(node)
        return self._known[node]

    def listen(self, listener: Callable[[str], None]) -> None:
        """Be told of each node whose hardware changed."""
        self._listeners.append(listener)

    def changed(self, node: str) -> None:
        for listener in self._listeners:
            listener(node)


def _network(node: str) -> Network:
    links = [
        Link(2, MANAGEMENT, "0000:01:00.0", _mac(node, MANAGEMENT), mtu=1500, speed=25),
        Link(3, STORAGE, "0000:02:00.0", _mac(node, STORAGE), speed=100),
    ]
    for number, (name, bus) in enumerate(zip(FABRIC, BUSES, strict=True)):
        first = len(FABRIC) + number * VFS
        vfs = [
            Vf(i, f"0000:{bus}:00.{i + 2}", _mac(node, f"{name}v{i}"), f"mlx5_{first + i}")
            for i in range(VFS)
        ]
        mac = _mac(node, name)
        links.append(Link(4 + number, name, f"0000:{bus}:00.0", mac, rdma=f"mlx5_{number}", vfs=vfs))
    return Network(node, {link.name: link for link in links}, address_of(node))


def _mac(node: str, name: str) -> str:
    """A stable, locally administered address."""
    number = zlib.crc32(f"{node}/{name}".encode())
    return "02:00:" + ":".join(f"{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))
