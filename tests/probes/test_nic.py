"""The `nic` probe on the platform's Prometheus; on a real exporter it is read in tests/real_node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.extend import Measurement
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.prometheus import Prometheus
from gameday.platform.world import World
from gameday.probes.nic import Nic, agreement
from tests.support.platforms import Platform
from tests.support.polling import eventually


@pytest.fixture
async def world(kube: Kube, platform: Platform) -> AsyncIterator[World]:
    async with Prometheus(platform.prometheus_url) as prometheus:
        yield World(kube, prometheus)


async def ask(
    world: World, read: str, interface: str = "ens1f0", window: str = "10s", **nodes: Any
) -> Measurement:
    choice = nodes or {"names": ["gpu-0", "gpu-1"]}
    spec = Nic.Spec.model_validate({"nodes": choice, "interface": interface, "read": read, "window": window})
    return await Nic().measure(spec, world)


@pytest.mark.parametrize(
    ("read", "value"),
    [("state", "up"), ("carrier", "up"), ("carrierChanges", 0), ("errors", 0.0), ("mtu", 9000.0)],
)
async def test_links(read: str, value: Any, world: World) -> None:
    told = await eventually(lambda: ask(world, read), lambda told: bool(told.series))  # an increase takes two
    assert dict(told.series) == {"gpu-0 ens1f0": value, "gpu-1 ens1f0": value}


@pytest.mark.parametrize("read", ["carrierChanges", "errors"])
async def test_a_counter_that_was_scraped_once_is_not_called_an_exporter_that_is_away(
    read: str, world: World
) -> None:
    await eventually(lambda: ask(world, "carrier"), lambda told: bool(told.series))
    told = await ask(world, read, window="1ms")
    assert told.series == ()
    assert "fewer than two samples of the counters of ens1f0 of gpu-0, gpu-1 within 1ms" in told.message
    told = await ask(world, read, interface="ens99", window="1ms")
    assert "knows no ens99 of gpu-0, gpu-1: is its node exporter scraped?" in told.message


async def test_rdma_ports(world: World) -> None:
    told = await ask(world, "rdmaState", "mlx5_[45]", names=["gpu-0"])
    assert dict(told.series) == {"gpu-0 mlx5_4/1": "ACTIVE", "gpu-0 mlx5_5/1": "ACTIVE"}


async def test_mtus_agree_or_not(world: World) -> None:
    told = await ask(world, "mtuAgrees", "ens.*", selector="nvidia.com/gpu.present=true")
    assert told.series == (("", True),)
    told = await ask(world, "mtuAgrees", "ens1f0|eth0", names=["gpu-0"])
    assert told.series == (("", False),)


async def test_a_node_that_nobody_tells_of_is_no_health(world: World) -> None:
    told = await ask(world, "carrier", names=["gpu-0", "cpu-0"])
    assert told.series == ()
    assert "knows no ens1f0 of cpu-0" in told.message
    with pytest.raises(PlatformError, match="no node is gpu-99"):
        await ask(world, "carrier", names=["gpu-99"])


@pytest.mark.fast
def test_those_that_are_not_as_most_are_are_named() -> None:
    told = agreement({("a", "x"): 9000, ("b", "x"): 9000, ("c", "x"): 1500})
    assert told.series == (("", False),)
    assert told.message == "2 links have an MTU of 9000; c x has 1500"
