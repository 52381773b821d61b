"""The `nic` probe reads what a real node exporter says of real links, as a real Prometheus keeps it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gameday.extend import Value
from gameday.platform.kube import Kube
from gameday.platform.prometheus import Prometheus
from gameday.platform.world import World
from gameday.probes.nic import Nic
from tests.support.children import Child
from tests.support.monitoring import PrometheusServer
from tests.support.node import RealNode
from tests.support.polling import eventually

EXPORTER = "prometheus-node-exporter"


@pytest.fixture(scope="module")
def exporter(node: RealNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs on the node as its service would; gives its address."""
    program = shutil.which(EXPORTER)
    assert program, f"install {EXPORTER}, or run `make test-node`, which does"
    address = f"{node.address}:9100"
    child = Child(
        EXPORTER,
        [*node.enter, program, f"--web.listen-address={address}"],
        tmp_path_factory.mktemp("exporter") / "exporter.log",
        cwd=Path("/"),
    )
    yield address
    child.kill()


@pytest.fixture(scope="module")
def _links(node: RealNode) -> Iterator[None]:
    """Two pairs; the far ends are up, so that the near ones have a carrier."""
    for name in ("probe0", "probe1"):
        node.ip(f"link add {name} type veth peer name far-{name}")
        node.ip(f"link set {name} up")
        node.ip(f"link set far-{name} up")
    yield
    for name in ("probe0", "probe1"):
        node.ip(f"link delete {name}")


@pytest.fixture(scope="module")
async def world(
    kube: Kube, node: RealNode, exporter: str, _links: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    # Prometheus' own discovery of nodes gives series such a label; `instance` would do as well.
    labels = {"node": node.name}
    folder = tmp_path_factory.mktemp("prometheus")
    server = PrometheusServer(folder, exporter, shows='node_network_up{device="probe1"}', labels=labels)
    await server.start()
    async with Prometheus(server.url) as prometheus:
        yield World(kube, prometheus)
    server.kill()


async def _read(world: World, node: RealNode, what: str) -> dict[str, Value]:
    nodes = {"names": [node.name]}
    spec = Nic.Spec.model_validate({"nodes": nodes, "interface": "probe.", "read": what, "window": "5s"})
    return dict((await Nic().measure(spec, world)).series)


async def _until(world: World, node: RealNode, what: str, **expected: Value) -> None:
    wanted = {f"{node.name} {device}": value for device, value in expected.items()}
    await eventually(lambda: _read(world, node, what), lambda found: found == wanted)


@asynccontextmanager
async def _changed(node: RealNode, change: str, back: str) -> AsyncIterator[None]:
    node.ip(change)
    yield
    node.ip(back)


async def test_state_and_carrier(world: World, node: RealNode) -> None:
    await _until(world, node, "state", probe0="up", probe1="up")
    await _until(world, node, "carrier", probe0="up", probe1="up")
    async with _changed(node, "link set far-probe0 down", "link set far-probe0 up"):
        await _until(world, node, "carrier", probe0="down", probe1="up")
    async with _changed(node, "link set probe1 down", "link set probe1 up"):
        await _until(world, node, "state", probe0="up", probe1="down")


async def test_carrier_changes(world: World, node: RealNode) -> None:
    await _until(world, node, "carrierChanges", probe0=0, probe1=0)
    node.ip("link set far-probe0 down")
    node.ip("link set far-probe0 up")
    await eventually(
        lambda: _read(world, node, "carrierChanges"), lambda found: found[f"{node.name} probe0"] == 2
    )


async def test_mtu(world: World, node: RealNode) -> None:
    await _until(world, node, "mtu", probe0=1500, probe1=1500)
    assert await _read(world, node, "mtuAgrees") == {"": True}
    async with _changed(node, "link set probe0 mtu 1400", "link set probe0 mtu 1500"):
        await _until(world, node, "mtu", probe0=1400, probe1=1500)
        assert await _read(world, node, "mtuAgrees") == {"": False}


async def test_errors(world: World, node: RealNode) -> None:
    await _until(world, node, "errors", probe0=0, probe1=0)
