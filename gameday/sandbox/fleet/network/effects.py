"""What a node's network means for a training worker there: cut off, slower, or not at all.

Its collectives run over RDMA through its VFs; its samples come over TCP through the storage link. What `tc`
does to a PF reaches neither.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gameday.experiment.quantity import parse_duration
from gameday.platform.objects import Object
from gameday.sandbox.fleet.network.attachments import vfs_of
from gameday.sandbox.fleet.network.hardware import MTU, STORAGE, Link, Network, Vf

COLLECTIVES = 100_000  # Mbit/s that the collectives take on each VF
SAMPLES = 10_000_000_000  # bit/s that the samples take
FRAGMENTS = 0.3  # of the packets that get lost between ends that disagree on the MTU
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def on_worker(pod: Object, network: Network) -> dict[str, Any]:
    """As fields of a Replica: cut, delay, loss, busy; {} when nothing is wrong."""
    found = [network.vf(pci) for pci in vfs_of(pod)]
    effects = [_of_vf(link, vf) for link, vf in filter(None, found)]
    return merged([*effects, _of_storage(network.links[STORAGE])]) if found else {}


def merged(effects: list[dict[str, Any]]) -> dict[str, Any]:
    """Several things that are wrong, as one."""
    total: dict[str, Any] = {}
    for effect in effects:
        for name, value in effect.items():
            if name == "cut":
                total[name] = value or total.get(name, False)
            elif name == "delay":
                total[name] = total.get(name, 0.0) + value
            else:
                total[name] = 1 - (1 - total.get(name, 0.0)) * (1 - value)
    return total


def _of_vf(link: Link, vf: Vf) -> dict[str, Any]:
    if not link.passes(vf) or vf.vlan:
        return {"cut": True}
    slow = {"busy": _busy(vf.max_tx_rate / COLLECTIVES)} if vf.max_tx_rate else {}
    return slow | _mtu(link)


def _of_storage(link: Link) -> dict[str, Any]:
    if not link.up:
        return {"cut": True}
    return _mtu(link) | (_of_qdisc(link.qdisc[1]) if link.qdisc else {})


def _mtu(link: Link) -> dict[str, Any]:
    return {} if link.mtu == MTU else {"loss": FRAGMENTS}


def _of_qdisc(qdisc: list[str]) -> dict[str, Any]:
    told = dict(pairwise(qdisc[1:]))
    if qdisc[0] == "tbf":
        number = told["rate"].removesuffix("bit")
        unit = number[-1] if number[-1] in _UNITS else ""
        return {"busy": _busy(float(number.removesuffix(unit)) * _UNITS[unit] / SAMPLES)}
    lost = [float(told[key].removesuffix("%")) / 100 for key in ("loss", "corrupt") if key in told]
    effect = merged([{"loss": each} for each in lost])
    return effect | ({"delay": parse_duration(told["delay"])} if "delay" in told else {})


def _busy(rest: float) -> float:
    return min(0.9, max(0.0, 1 - rest))
