"""The node exporter's page, as far as links and RDMA devices are on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gameday.sandbox.fleet.exposition import Family
from gameday.sandbox.fleet.network.hardware import GIGABIT, Network

ACTIVE, DOWN = 4, 1  # an RDMA port's state, as the InfiniBand specification numbers them
LINK_UP, DISABLED = 5, 3  # its physical state


def families(networks: Iterable[Network]) -> Iterator[Family]:
    up = Family("node_network_up", "gauge", "Value is 1 if operstate is 'up', 0 otherwise.")
    carrier = Family("node_network_carrier", "gauge", "Network device property: carrier")
    changes = Family(
        "node_network_carrier_changes_total", "counter", "Network device property: carrier_changes"
    )
    errors = [
        Family(f"node_network_{way}_errs_total", "counter", f"Network device statistic {way}_errs.")
        for way in ("receive", "transmit")
    ]
    mtu = Family("node_network_mtu_bytes", "gauge", "Network device property: mtu")
    speed = Family("node_network_speed_bytes", "gauge", "Network device property: speed")
    state = Family("node_infiniband_state_id", "gauge", "State of the InfiniBand port.")
    physical = Family("node_infiniband_physical_state_id", "gauge", "Physical state of the InfiniBand port.")
    for network in networks:
        for link in network.links.values():
            labels = {"node": network.node, "device": link.name}
            up.add(link.up, **labels)
            carrier.add(link.up, **labels)
            changes.add(link.carrier_changes, **labels)
            mtu.add(link.mtu, **labels)
            speed.add(link.speed * GIGABIT, **labels)
            for family in errors:
                family.add(0, **labels)
        for device, active, _ in network.rdma_ports():
            labels = {"node": network.node, "device": device, "port": "1"}
            state.add(ACTIVE if active else DOWN, **labels)
            physical.add(LINK_UP if active else DISABLED, **labels)
    yield from (up, carrier, changes, *errors, mtu, speed, state, physical)
