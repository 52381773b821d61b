"""Slow, late, lossy: a queueing discipline of `tc` on what a link sends.

It works on what the kernel sends. RDMA and the traffic of virtual functions pass the kernel by.
"""

from __future__ import annotations

import json
from typing import Any

from gameday.node.actions import Look
from gameday.node.host import Host, ToolError
from gameday.node.network import HANDLE, OnLink

NO_TOOL = 127
UNKNOWN = "kind is unknown"  # what `tc` says when the kernel has no such queueing discipline
PACKAGES = {"netem": "sch_netem; Red Hat's systems have it in kernel-modules-extra"}


class LinkShape(OnLink):
    """A root queueing discipline. Option `qdisc`: as `tc` takes it, as ["netem", "delay", "10ms"]."""

    name = "link-shape"

    @property
    def qdisc(self) -> list[str]:
        return [str(word) for word in self.options["qdisc"]]

    def problems(self, host: Host, link: dict[str, Any]) -> list[str]:
        if problem := self._rehearse(host):
            return [problem]
        root = _root(host, link["ifname"])
        if root.get("handle", "0:") == "0:":
            return []
        whose = "of an earlier fault of ours" if root["handle"] == HANDLE else "that somebody configured"
        return [f"{link['ifname']} has a queueing discipline {whose} ({root['kind']} {root['handle']})"]

    def _rehearse(self, host: Host) -> str:
        """Whether `tc` and the kernel take it: tried in a network namespace that ends with the command.

        Only a try tells: modules may be built in, missing or forbidden, and the node's own links stay as
        they are. A node without `unshare` is found out when the fault is made.
        """
        try:
            host.run("tc", "-V")
            host.run("unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", *self.qdisc)
        except ToolError as error:
            if error.code == NO_TOOL and error.argv[0] == "tc":
                return "the node has no `tc`: install iproute (its package is iproute-tc or iproute2)"
            if error.code == NO_TOOL or "unshare" in error.said:
                return ""
            if UNKNOWN in error.said:
                module = PACKAGES.get(self.qdisc[0], f"sch_{self.qdisc[0]}")
                return f"the node's kernel has no {self.qdisc[0]} (module {module})"
            return f"the node's tc refuses {' '.join(self.qdisc)!r}: {error.said}"
        return ""

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        where = ("dev", before["interface"], "root", "handle", HANDLE)
        host.run("tc", "qdisc", "add", *where, *self.qdisc)

    def undo(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> None:
        if _root(host, before["interface"]).get("handle") == HANDLE:
            host.run("tc", "qdisc", "del", "dev", before["interface"], "root")

    def see(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> Look:
        root = _root(host, before["interface"])
        ours = root.get("handle") == HANDLE
        what = " ".join(self.qdisc) if ours else str(root.get("kind", "no queueing discipline"))
        return ("in" if ours else "out"), [f"{before['interface']}: {what}"]


def _root(host: Host, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(host.run("tc", "-json", "qdisc", "show", "dev", name) or "[]")
    return next((entry for entry in found if entry.get("root")), {})
