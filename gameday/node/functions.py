"""Actions on a virtual function (VF) through its physical function (PF).

`ip link set PF vf N …` reaches the VF wherever its own interface is: a pod's network namespace, a virtual
machine, or nowhere at all.
"""

from __future__ import annotations

from typing import Any

from gameday.node import links
from gameday.node.actions import Look
from gameday.node.host import Host
from gameday.node.network import OnLink

SWITCHES = ("spoofchk", "trust")


class VirtualFunction(OnLink):
    """Settings of one VF. Options: the PF as for a link, `vf`, `vfPciAddress`, and `set`: state, max_tx_rate
    (Mbit/s; 0 is no limit), vlan (0 is none), spoofchk and trust (on, off), as `ip link set` takes them.
    """

    name = "vf"

    @property
    def number(self) -> int:
        return int(self.options["vf"])

    @property
    def wanted(self) -> dict[str, Any]:
        wanted: dict[str, Any] = self.options["set"]
        return wanted

    def _management(self, host: Host, name: str) -> list[str]:
        """The PF itself stays as it is; the VF may be the node's own way out."""
        address = self.options.get("vfPciAddress")
        own = [n for n in links.names(host) if address and links.pci_address(host, n) == address]
        return super()._management(host, own[0]) if own else []

    def problems(self, host: Host, link: dict[str, Any]) -> list[str]:
        name, there = link["ifname"], _functions(link)
        if not there:
            return [f"{name} has no virtual functions: is SR-IOV set up on this node?"]
        if self.number not in there:
            return [f"{name} has no VF {self.number}, but {', '.join(map(str, there))}"]
        now = _settings(there[self.number])
        untold = [key for key in self.wanted if key not in now]
        if untold:
            return [
                f"the driver of {name} does not tell {', '.join(untold)} of a VF, so it can't be put back"
            ]
        if all(now[key] == value for key, value in self.wanted.items()):
            return [f"VF {self.number} of {name} is so already ({_words(self.wanted)}): nothing would change"]
        return []

    def keep(self, host: Host, link: dict[str, Any]) -> dict[str, Any]:
        return {"settings": _settings(_functions(link)[self.number])}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        for key, value in self.wanted.items():
            self._set(host, before["interface"], key, value)

    def undo(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> None:
        now = _settings(_functions(link).get(self.number, {}))
        old = before["settings"]
        for key, value in self.wanted.items():
            if now.get(key) == value and old[key] != value:
                more = ["qos", str(old["qos"])] if key == "vlan" and old["vlan"] else []
                self._set(host, before["interface"], key, old[key], *more)

    def see(self, host: Host, link: dict[str, Any], before: dict[str, Any]) -> Look:
        now = _settings(_functions(link).get(self.number, {}))
        ours = [
            now.get(key) == value for key, value in self.wanted.items() if before["settings"][key] != value
        ]
        facts = [f"VF {self.number} of {before['interface']}: {_words({k: now.get(k) for k in self.wanted})}"]
        return ("in" if all(ours) else "partial" if any(ours) else "out"), facts

    def _set(self, host: Host, pf: str, key: str, value: Any, *more: str) -> None:
        host.run("ip", "link", "set", "dev", pf, "vf", str(self.number), key, str(value), *more)


def _functions(link: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(vf["vf"]): vf for vf in link.get("vfinfo_list") or ()}


def _settings(told: dict[str, Any]) -> dict[str, Any]:
    """What `ip -json link show` tells of a VF, in the words of `ip link set`; nothing that it leaves out."""
    vlan = (told.get("vlan_list") or [{}])[0]
    settings = {"vlan": vlan.get("vlan", told.get("vlan", 0)), "qos": vlan.get("qos", told.get("qos", 0))}
    if "link_state" in told:
        settings["state"] = told["link_state"]
    if "rate" in told or "tx_rate" in told:
        settings["max_tx_rate"] = told["rate"]["max_tx"] if "rate" in told else told["tx_rate"]
    settings |= {key: "on" if told[key] else "off" for key in SWITCHES if key in told}
    return settings


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
