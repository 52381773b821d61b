"""The `nic` probe: links and RDMA ports of nodes, as the node exporter tells Prometheus of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gameday.experiment.model import NodePick, PositiveDuration, Regex, Spec
from gameday.experiment.quantity import format_duration
from gameday.experiment.text import some
from gameday.extend import Measurement, Probe, Value
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object
from gameday.platform.promql import matchers
from gameday.probes.prometheus import prometheus_of

if TYPE_CHECKING:
    from gameday.platform.world import World

# Labels by which scrape configurations tell which node a series is from, the plainest first.
NODE_LABELS = ("node", "nodename", "kubernetes_node", "instance", "host")
# An RDMA port's state, as the InfiniBand specification numbers it.
PORT_STATES = {0: "NOP", 1: "DOWN", 2: "INIT", 3: "ARMED", 4: "ACTIVE", 5: "ACTIVE_DEFER"}
READ = {
    "state": "node_network_up{{{who}}}",
    "carrier": "node_network_carrier{{{who}}}",
    "carrierChanges": "increase(node_network_carrier_changes_total{{{who}}}[{window}])",
    "errors": "increase(node_network_receive_errs_total{{{who}}}[{window}])"
    " + increase(node_network_transmit_errs_total{{{who}}}[{window}])",
    "mtu": "node_network_mtu_bytes{{{who}}}",
    "mtuAgrees": "node_network_mtu_bytes{{{who}}}",
    "rdmaState": "node_infiniband_state_id{{{who}}}",
}

COUNTED = ("carrierChanges", "errors")  # over a window


class NicSpec(Spec):
    """Which links, and what to read of them."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector.")
    interface: Regex = Field(
        description="The links by name, a regular expression; of `rdmaState` the RDMA devices, as mlx5_0."
    )
    read: Literal["state", "carrier", "carrierChanges", "errors", "mtu", "mtuAgrees", "rdmaState"] = Field(
        description="`state` and `carrier` are up or down; `carrierChanges` and `errors` are counted over "
        "`window`; `mtuAgrees` is one answer for all: are their MTUs the same; `rdmaState` is ACTIVE, DOWN, …"
    )
    window: PositiveDuration = Field(
        "1m", validate_default=True, description="Over which changes and errors are counted."
    )


class Nic(Probe[NicSpec]):
    """Links and RDMA ports of nodes: their state, changes, errors, MTU, and whether their MTUs agree."""

    Spec: ClassVar = NicSpec
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: fabric links
nic: {nodes: {selector: nvidia.com/gpu.present=true}, interface: "ens.*", read: carrier}
is: up
"""

    async def measure(self, spec: NicSpec, world: World) -> Measurement:
        """A value for each link, named as `gpu-0 ens1f0`; a node that Prometheus does not know is named."""
        nodes = await _nodes(spec.nodes, world)
        values = await _read(spec, spec.read, nodes, world)
        if silent := sorted(set(nodes.values()) - {node for node, _ in values}):
            return Measurement((), await _why_silent(spec, silent, nodes, world))
        if spec.read == "mtuAgrees":
            return agreement(values)
        series = ((f"{n} {d}", _value(spec.read, v)) for (n, d), v in sorted(values.items()))
        return Measurement(tuple(series))


def agreement(values: Mapping[tuple[str, str], float]) -> Measurement:
    """Whether all MTUs are the same; names those that are not as most are."""
    usual, count = Counter(values.values()).most_common(1)[0]
    others = [f"{n} {d} has {v:g}" for (n, d), v in sorted(values.items()) if v != usual]
    text = f"{count} links have an MTU of {usual:g}"
    return Measurement((("", not others),), "; ".join([text, *others]))


async def _read(
    spec: NicSpec, read: str, nodes: Mapping[str, str], world: World
) -> dict[tuple[str, str], float]:
    """What Prometheus says of each link of the nodes, by node and device."""
    who = matchers({"device": spec.interface}, "=~")
    query = READ[read].format(who=who, window=format_duration(spec.window))
    values: dict[tuple[str, str], float] = {}
    for labels, value in await prometheus_of(world).instant(query, limit=10_000):
        if node := _node_of(labels, nodes):
            port = labels.get("port", "1")
            device = labels.get("device", "") + (f"/{port}" if read == "rdmaState" else "")
            values[node, device] = value
    return values


async def _why_silent(spec: NicSpec, silent: list[str], nodes: Mapping[str, str], world: World) -> str:
    """Why nothing is known of these nodes: an increase needs two samples in its window, a link one."""
    which = some(silent)
    if spec.read in COUNTED:
        known = {node for node, _ in await _read(spec, "state", nodes, world)}
        if known.issuperset(silent):
            window = format_duration(spec.window)
            return (
                f"Prometheus has fewer than two samples of the counters of {spec.interface} of {which} "
                f"within {window}: they are scraped only since then, or `window` is shorter than two scrapes"
            )
    return f"Prometheus knows no {spec.interface} of {which}: is its node exporter scraped?"


async def _nodes(choice: NodePick, world: World) -> dict[str, str]:
    """The nodes' names by all names that a scrape may know them by: their own, and their addresses."""
    from gameday.platform.resources import NODES

    listed = await world.kube.list(NODES, labels=choice.selector)
    meant = [n for n in listed if choice.names is None or n["metadata"]["name"] in choice.names]
    if not meant:
        raise PlatformError(f"no node is {choice.selector or ', '.join(choice.names or ())}")
    return {known: n["metadata"]["name"] for n in meant for known in _names(n)}


def _names(node: Object) -> list[str]:
    listed = (node.get("status") or {}).get("addresses") or ()
    return [node["metadata"]["name"], *(a["address"] for a in listed)]


def _node_of(labels: Mapping[str, str], nodes: Mapping[str, str]) -> str:
    """The node that a series is from; "" for one that is not meant."""
    for label in NODE_LABELS:
        told = labels.get(label, "")
        name = nodes.get(told) or nodes.get(re.sub(r":\d+$", "", told).strip("[]"))
        if name:
            return name
    return ""


def _value(read: str, value: float) -> Value:
    if read in ("state", "carrier"):
        return "up" if value else "down"
    if read == "rdmaState":
        return PORT_STATES.get(int(value), str(int(value)))
    return round(value) if read == "carrierChanges" else value
