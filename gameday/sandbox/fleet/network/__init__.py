"""The simulated nodes' network hardware: links, virtual functions, RDMA devices, and who uses them."""

from gameday.sandbox.fleet.network.hardware import Link, Network, Networks, Vf

__all__ = ["Link", "Network", "Networks", "Vf"]
