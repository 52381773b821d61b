"""Which interfaces a node is managed through: without them nobody can reach it any more."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from gameday.node.host import Host, ToolError


def management_interfaces(host: Host, addresses: list[str]) -> dict[str, str]:
    """Interfaces by name with the reason, for people, why they must not be touched.

    `addresses`: of the API server and of the node itself (its InternalIP); host names are left out. The
    interfaces below a bond, bridge, VLAN or macvlan count as well, since it lives on them. Raises ToolError.
    """
    found: dict[str, str] = {}
    links = _ip(host, "addr", "show")
    by_address = {a["local"]: link["ifname"] for link in links for a in link.get("addr_info") or ()}
    for family in ("-4", "-6"):
        for route in _ip(host, family, "route", "show", "default", optional=True):
            for hop in [route, *(route.get("nexthops") or ())]:
                if "dev" in hop:
                    found.setdefault(hop["dev"], "it carries the node's default route")
    for address in addresses:
        if not _is_address(address) or ipaddress.ip_address(address).is_loopback:
            continue
        if address in by_address:
            found.setdefault(by_address[address], f"it has the node's address {address}")
            continue
        for route in _ip(host, "route", "get", address, optional=True):
            if "dev" in route:
                found.setdefault(
                    route["dev"], f"the way to {address} (API server or kubelet) goes through it"
                )
    _add_lower(found, links)
    return found


def _add_lower(found: dict[str, str], links: list[dict[str, Any]]) -> None:
    """The interfaces that those found are made of."""
    todo = list(found)
    while todo:
        upper = todo.pop()
        why = f"{upper} lives on it, and {found[upper]}"
        lower = [link["ifname"] for link in links if link.get("master") == upper]
        lower += [link["link"] for link in links if link["ifname"] == upper and link.get("link")]
        for name in lower:
            if name not in found and any(link["ifname"] == name for link in links):
                found[name] = why
                todo.append(name)


def _ip(host: Host, *arguments: str, optional: bool = False) -> list[dict[str, Any]]:
    """`optional`: no route, or a family that the kernel does not have, is an empty answer."""
    try:
        text = host.run("ip", "-json", *arguments)
    except ToolError as error:
        if optional and error.code == 2:  # what `ip` ends with when the kernel said no
            return []
        raise
    entries: list[dict[str, Any]] = [e for e in json.loads(text or "[]") if e]
    return entries


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
