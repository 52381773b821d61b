"""Actions on a node's network links: down, flapping, slow or lossy, another MTU.

Each is made with the node's own `ip` and `tc`, read back from them, and reverted only where it is still ours.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gameday.node import links
from gameday.node.actions import Action, Look
from gameday.node.host import Host, ToolError
from gameday.node.management import management_interfaces

HANDLE = "6764:"  # the handle of our queueing disciplines ("gd"), by which they are known again
GONE = "the interface is gone: there is nothing to put back"


class OnLink(Action):
    """Something done to one interface. Options: `interface` or `pciAddress`; `addresses` that the node is
    managed by (of the API server, its own), and `allowManagement`.
    """

    def check(self, host: Host) -> list[str]:
        try:
            link = links.show(host, links.find(host, self.options))
        except (ToolError, ValueError) as error:
            return [str(error)]
        if "LOOPBACK" in link["flags"]:
            return [f"{link['ifname']} is the node's loopback: everything on the node depends on it"]
        return [*self._management(host, str(link["ifname"])), *self.problems(host, link)]

    def _management(self, host: Host, name: str) -> list[str]:
        if self.options.get("allowManagement"):
            return []
        why = management_interfaces(host, self.options.get("addresses") or []).get(name)
        hint = "choose another one, or say `allowManagement: true` and hold for less than two minutes"
        return [f"{name} carries the node's management ({why}): {hint}"] if why else []

    @abstractmethod
    def problems(self, host: Host, link: dict[str, Any]) -> list[str]:
        """Reasons against it on this link."""

    def before(self, host: Host) -> dict[str, Any]:
        link = links.show(host, links.find(host, self.options))
        return {"interface": link["ifname"], **self.keep(host, link)}

    def keep(self, host: Host, link: dict[str, Any]) -> dict[str, Any]:
        """The state to go back to."""
        return {}

    def revert(self, host: Host, before: dict[str, Any]) -> None:
        link = self.now(host, before)
        if link is not None:
            self.undo(host, link, before)

    @abstractmethod
    def undo(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> None:
        """Take back what is still ours of it."""

    def look(self, host: Host, before: dict[str, Any]) -> Look:
        link = self.now(host, before)
        return ("out", [f"{before['interface']}: {GONE}"]) if link is None else self.see(host, link, before)

    @abstractmethod
    def see(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> Look:
        """Read back from a link that is there."""

    def now(self, host: Host, before: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return links.show(host, before["interface"])
        except ToolError as error:
            if "does not exist" in error.said:
                return None
            raise


class LinkDown(OnLink):
    """The link is taken down; what it lost by that comes back with it."""

    name = "link-down"

    def problems(self, host: Host, link: dict[str, Any]) -> list[str]:
        if not links.is_up(link):
            return [f"{link['ifname']} is down already: nothing would change"]
        if link.get("link_type") == "infiniband":
            name = link["ifname"]
            return [f"{name} is IP over InfiniBand: the RDMA port below it would stay up; use `vf` on it"]
        return []

    def keep(self, host: Host, link: dict[str, Any]) -> dict[str, Any]:
        name = link["ifname"]
        return {
            "carrier": links.has_carrier(link),
            "rdma": links.rdma_ports(host, name),
            "lost": links.lost_by_down(host, name),
        }

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        host.run("ip", "link", "set", "dev", before["interface"], "down")

    def undo(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> None:
        if not links.is_up(link):
            host.run("ip", "link", "set", "dev", before["interface"], "up")
        if failed := links.put_back(host, before["lost"]):
            raise ValueError("; ".join(failed))

    def see(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> Look:
        name, up, carrier = before["interface"], links.is_up(link), links.has_carrier(link)
        ports = links.rdma_ports(host, name)
        facts = [f"{name}: {'up' if up else 'down'}, carrier {'on' if carrier else 'off'}"]
        facts += [f"RDMA {port}: {state}" for port, state in ports.items()]
        if not up:
            return ("partial" if "ACTIVE" in ports.values() else "in"), facts
        back = (carrier or not before["carrier"]) and all(
            ports.get(port) == state for port, state in before["rdma"].items()
        )
        return ("out" if back else "partial"), facts


class LinkFlap(LinkDown):
    """The link goes down and up again, `count` times, once each `period` seconds; then it stays up."""

    name = "link-flap"

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._down = False

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        super().apply(host, before)
        self._down = True

    def hold(self, host: Host, before: dict[str, Any], elapsed: float) -> None:
        period = float(self.options["period"])
        down = elapsed < period * int(self.options["count"]) and elapsed % period < period / 2
        if down == self._down:
            return
        link = self.now(host, before)
        if link is None:
            return
        host.run("ip", "link", "set", "dev", before["interface"], "down" if down else "up")
        if not down:
            links.put_back(host, before["lost"])  # the revert tries what failed again
        self._down = down


class LinkMtu(OnLink):
    """The link takes another MTU. Option: `mtu`, in bytes."""

    name = "link-mtu"

    @property
    def mtu(self) -> int:
        return int(self.options["mtu"])

    def problems(self, host: Host, link: dict[str, Any]) -> list[str]:
        name, least, most = link["ifname"], link.get("min_mtu") or 0, link.get("max_mtu") or 65535
        if link["mtu"] == self.mtu:
            return [f"{name} has an MTU of {self.mtu} already: nothing would change"]
        if not least <= self.mtu <= most:
            return [f"{name} takes an MTU from {least} to {most}, not {self.mtu}"]
        return []

    def keep(self, host: Host, link: dict[str, Any]) -> dict[str, Any]:
        return {"mtu": link["mtu"]}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        host.run("ip", "link", "set", "dev", before["interface"], "mtu", str(self.mtu))

    def undo(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> None:
        if link["mtu"] == self.mtu:
            host.run("ip", "link", "set", "dev", before["interface"], "mtu", str(before["mtu"]))

    def see(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> Look:
        fact = f"{before['interface']}: MTU {link['mtu']}, {before['mtu']} before"
        return ("in" if link["mtu"] == self.mtu else "out"), [fact]
