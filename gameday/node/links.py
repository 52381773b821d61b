"""A node's network links as iproute2 tells of them, and what taking one down would lose.

Taking a link down makes the kernel forget more than its state: static routes through it, its global IPv6
addresses and its permanent neighbours go, and do not return with it. So they are kept before, and put back.
(A route with several ways is not lost: its way through the link is dead, and comes back by itself.)
"""

from __future__ import annotations

import json
import re
from typing import Any

from gameday.node.host import Host, ToolError

_NOT_TAKEN = re.compile(r"\s+(linkdown|dead|offload|trap|nhid \d+)\b")  # what is shown, but can't be said
_ADD = {  # what a link loses, in the order in which it can be put back, and what `ip` is told for it
    "addresses": ("-6", "address", "add"),
    "neighbours": ("neigh", "replace"),
    "routes": ("-4", "route", "add"),
    "routes6": ("-6", "route", "add"),
}
_BY_ITSELF = re.compile(r"\bproto (kernel|ra)\b|^(local|broadcast|multicast|anycast)\b")


def show(host: Host, name: str) -> dict[str, Any]:
    """One link; with `vfinfo_list` where it has virtual functions. Raises ToolError."""
    found: list[dict[str, Any]] = json.loads(host.run("ip", "-json", "-details", "link", "show", "dev", name))
    return next(link for link in found if link.get("ifname"))


def names(host: Host) -> dict[str, str]:
    """All interfaces by each of their names. Raises ToolError."""
    found: dict[str, str] = {}
    for link in json.loads(host.run("ip", "-json", "link", "show")):
        if name := link.get("ifname"):
            found |= dict.fromkeys([*(link.get("altnames") or ()), name], name)
    return found


def find(host: Host, options: dict[str, Any]) -> str:
    """The interface that is meant: by `interface`, or by `pciAddress`. Raises ValueError where it is not."""
    known = names(host)
    others = ", ".join(n for n in known if n != "lo") or "none"
    if name := options.get("interface"):
        if name not in known:
            raise ValueError(f"there is no interface {name}; the node has {others}")
        return known[name]
    address = str(options["pciAddress"])
    for name in known:
        if pci_address(host, name) == address:
            return known[name]
    hint = "one that a pod uses is in the pod's network: `vf` reaches it through its PF"
    raise ValueError(f"no interface here is the PCI device {address} ({hint}); the node has {others}")


def pci_address(host: Host, name: str) -> str:
    """An interface's PCI address; "" for one that is no PCI device."""
    try:
        text = host.read(f"/sys/class/net/{name}/device/uevent")
    except OSError:
        return ""
    match = re.search(r"^PCI_SLOT_NAME=(\S+)$", text, re.MULTILINE)
    return match[1] if match else ""


def is_up(link: dict[str, Any]) -> bool:
    """Whether somebody wants it up; whether it carries anything is another question."""
    return "UP" in link["flags"]


def has_carrier(link: dict[str, Any]) -> bool:
    return "LOWER_UP" in link["flags"]


def rdma_ports(host: Host, name: str) -> dict[str, str]:
    """The RDMA ports over an interface, as mlx5_0/1, with their states; {} where there is no RDMA."""
    try:
        found = json.loads(host.run("rdma", "-json", "link", "show") or "[]")
    except (ToolError, ValueError):
        return {}
    return {
        f"{port['ifname']}/{port['port']}": str(port.get("state", "")).upper()
        for port in found
        if port.get("netdev") == name
    }


def lost_by_down(host: Host, name: str) -> dict[str, dict[str, list[str]]]:
    """What a link, and those made on top of it (VLANs go down with it), lose: arguments for `ip`, by link."""
    above = [str(link["ifname"]) for link in _up(host) if link.get("link") == name]
    return {each: _losses(host, each) for each in (name, *above)}


def put_back(host: Host, lost: dict[str, dict[str, list[str]]]) -> list[str]:
    """Add what is missing; returns what could not be added. May be called any number of times."""
    failed = []
    up = {link["ifname"] for link in _up(host)}
    for name, before in lost.items():
        if name not in up:
            continue  # somebody else took it down, or away
        there = _losses(host, name)
        for what, command in _ADD.items():
            missing = [entry for entry in before[what] if entry not in there[what]]
            failed += [said for entry in missing for said in _try(host, *command, *entry.split())]
    return failed


def _up(host: Host) -> list[dict[str, Any]]:
    listed = json.loads(host.run("ip", "-json", "link", "show"))
    return [link for link in listed if link.get("ifname") and is_up(link)]


def _losses(host: Host, name: str) -> dict[str, list[str]]:
    return {
        "addresses": _addresses(host, name),
        "neighbours": _neighbours(host, name),
        "routes": _routes(host, "-4", name),
        "routes6": _routes(host, "-6", name),
    }


def _try(host: Host, *argv: str) -> list[str]:
    try:
        host.run("ip", *argv)
    except ToolError as error:
        if "File exists" not in error.said:
            return [str(error)]
    return []


def _routes(host: Host, family: str, name: str) -> list[str]:
    """Routes of all tables that go through one interface, but for those that come back by themselves."""
    try:
        text = host.run("ip", family, "route", "show", "table", "all", "dev", name)
    except ToolError:
        return []  # without IPv6, say
    lines = [_NOT_TAKEN.sub("", line).strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not _BY_ITSELF.search(line)]
    kept.sort(key=lambda line: " via " in line)  # the way to a gateway comes before the routes through it
    return [_with_device(line, name) for line in kept]


def _with_device(route: str, name: str) -> str:
    """The route as `ip route add` wants it: the listing leaves the device out, as it was asked for it."""
    words = route.split()
    if "dev" in words:
        return route
    at = words.index("via") + 2 if "via" in words else 1
    return " ".join([*words[:at], "dev", name, *words[at:]])


def _addresses(host: Host, name: str) -> list[str]:
    """Global IPv6 addresses that somebody gave it; those from router advertisements return by themselves."""
    try:
        found = json.loads(host.run("ip", "-6", "-json", "address", "show", "dev", name) or "[]")
    except (ToolError, ValueError):
        return []
    entries = [info for link in found for info in link.get("addr_info") or ()]
    return [
        f"{info['local']}/{info['prefixlen']} dev {name}" + (" nodad" if info.get("nodad") else "")
        for info in entries
        if info.get("scope") == "global" and not info.get("dynamic")
    ]


def _neighbours(host: Host, name: str) -> list[str]:
    """Neighbours that somebody wrote down; those that were learnt are learnt again."""
    try:
        found = json.loads(host.run("ip", "-json", "neigh", "show", "dev", name, "nud", "permanent") or "[]")
    except (ToolError, ValueError):
        return []
    return [f"{n['dst']} lladdr {n['lladdr']} dev {name} nud permanent" for n in found if n.get("lladdr")]
