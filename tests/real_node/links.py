"""Links of the real node to break, and what must be as before when they are back.

`fab0` is one end of a veth pair, whose other end is in a network namespace of its own, as another machine's
would be; `mac0` is a macvlan on such an end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real_node.experiments import write
from tests.support.node import RealNode

LINKS = ("fab0", "mac0")
ROUTE = "198.51.100.0/24"


@contextmanager
def pairs(node: RealNode) -> Iterator[None]:
    """The links, all up; gone when the block ends."""
    node.ip("netns add peer")
    for index in (0, 1):
        node.ip(f"link add fab{index} type veth peer name fab{index} netns peer")
        node.ip(f"-netns peer link set fab{index} up")
        node.ip(f"link set fab{index} up")
    node.ip("link add link fab1 name mac0 type macvlan mode bridge")
    node.ip("link set mac0 up")
    yield
    node.ip("netns delete peer")  # takes the pairs with it, and those the macvlan


def state(node: RealNode, name: str) -> dict[str, set[Any]]:
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


def nic(folder: Path, node: RealNode, link: str, hold: str, **what: Any) -> Path:
    step = {"nic": {"nodes": {"names": [node.name]}, "interface": link, **what}, "for": hold}
    return write(folder, node, step)
