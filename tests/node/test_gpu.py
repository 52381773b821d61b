"""Power, clocks and the kernel log of a node's GPUs, on the sandbox's simulated ones."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

import pytest

from gameday.node.actions import Action, action
from gameday.node.host import ToolError
from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.host import Hosts, SimulatedHost

pytestmark = pytest.mark.fast
NODE = "gpu-0"
T = TypeVar("T")


class Node:
    """A simulated node, asked from a thread as the program does."""

    def __init__(self) -> None:
        self.gpus, hosts = Gpus(Cache(cast(Any, None))), Hosts()
        self.gpus.register(hosts, {})
        self.hosts = hosts
        self.host = SimulatedHost(NODE, hosts, asyncio.get_running_loop())

    async def problems(self, doing: Action) -> list[str]:
        return await asyncio.to_thread(doing.check, self.host)

    async def applied(self, doing: Action) -> dict[str, Any]:
        assert await self.problems(doing) == []
        before = await asyncio.to_thread(doing.before, self.host)
        await asyncio.to_thread(doing.apply, self.host, before)
        return before

    async def state(self, doing: Action, before: dict[str, Any]) -> str:
        return (await asyncio.to_thread(doing.look, self.host, before))[0]

    async def reverted(self, doing: Action, before: dict[str, Any]) -> str:
        await asyncio.to_thread(doing.revert, self.host, before)
        return await self.state(doing, before)


@pytest.fixture
async def node() -> Node:
    return Node()


def throttle(**options: Any) -> Action:
    return action("gpu-throttle", options)


async def test_power_is_limited_and_given_back(node: Node) -> None:
    node.gpus.cards(NODE)[1].limit = 650.0  # somebody's own limit, which is to come back
    doing = throttle(percent=50)
    before = await node.applied(doing)
    assert {c.limit for c in node.gpus.cards(NODE)} == {350.0}
    assert await node.state(doing, before) == "in"
    assert await node.reverted(throttle(percent=50), before) == "out"
    assert [c.limit for c in node.gpus.cards(NODE)[:3]] == [700.0, 650.0, 700.0]


async def test_a_limit_that_somebody_else_set_meanwhile_is_left(node: Node) -> None:
    doing = throttle(watts=300, gpus=[0, 1])
    before = await node.applied(doing)
    node.gpus.cards(NODE)[0].limit = 400.0
    assert await node.reverted(doing, before) == "out"
    assert [c.limit for c in node.gpus.cards(NODE)[:2]] == [400.0, 700.0]


async def test_clocks_are_limited_and_given_back(node: Node) -> None:
    doing = throttle(clock=900, gpus=[2])
    before = await node.applied(doing)
    assert [c.clock for c in node.gpus.cards(NODE)[1:4]] == [1980, 900, 1980]
    assert await node.state(doing, before) == "in"
    assert await node.reverted(doing, before) == "out"
    assert node.gpus.cards(NODE)[2].clock == 1980


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"watts": 100}, "GPU 0: 100 W is not within 200 W and the present 700 W"),
        ({"watts": 700}, "GPU 0: 700 W is not within 200 W and the present 700 W"),
        ({"clock": 3000, "gpus": [1]}, "GPU 1: clocks of 3000 MHz, where 1980 is its highest"),
        ({"watts": 300, "gpus": [9]}, "there is no GPU 9 (nvidia-smi lists 0, 1, 2, 3, 4, 5, 6, 7)"),
    ],
)
async def test_what_speaks_against_it(options: dict[str, Any], problem: str, node: Node) -> None:
    assert (await node.problems(throttle(**options)))[0] == problem


async def test_a_node_without_the_tool_says_so(node: Node) -> None:
    del node.hosts.tools["nvidia-smi"]
    with pytest.raises(ToolError, match="the node has no chroot"):
        await node.problems(throttle(watts=300))


async def test_the_operators_driver_container_has_the_tool_too(node: Node) -> None:
    found = node.hosts.tools.pop("nvidia-smi")
    node.hosts.tools["chroot"] = lambda name, argv: found(name, argv[2:])
    await node.applied(throttle(watts=300, gpus=[0]))
    assert node.gpus.cards(NODE)[0].limit == 300.0


async def test_an_xids_line_is_the_drivers(node: Node) -> None:
    options = {"xid": 79, "text": "GPU has fallen off the bus", "gpus": [0, 2]}
    doing = action("xid-line", options)
    before = await node.applied(doing)
    assert [(line.gpu, line.xid) for line in node.gpus.lines(NODE)] == [(0, 79), (2, 79)]
    said = "NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus"
    assert node.gpus.lines(NODE)[0].text == said
    assert await node.state(doing, before) == "in"
    assert await node.reverted(action("xid-line", options), before) == "out"
    assert len(node.gpus.lines(NODE)) == 2, "a line of the kernel log cannot be taken back"


class Losing:
    """A node whose GPU 1 fell off the bus: nvidia-smi says so among its rows, and ends with 0."""

    line = "Unable to determine the device handle for GPU0000:5E:00.0: Unknown Error"

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def run(self, *argv: str) -> str:
        if argv[1:3] == ("-i", "1"):
            raise ToolError(argv, 15, self.line)
        rows = self._host.run(*argv).splitlines()
        if argv[1].startswith("--query-gpu"):
            rows = [self.line if row.startswith("1,") else row for row in rows]
        return "".join(f"{row}\n" for row in rows)

    def read(self, path: str) -> str:
        return self._host.read(path)

    def write(self, path: str, text: str) -> None:
        self._host.write(path, text)


async def test_a_lost_gpu_is_a_reading_of_its_own(node: Node) -> None:
    healthy = throttle(watts=300, gpus=[0, 2])
    lost = Losing(node.host)
    assert await asyncio.to_thread(throttle(watts=300, gpus=[1]).check, lost) == [
        f"there is no GPU 1 (nvidia-smi lists 0, 2, 3, 4, 5, 6, 7; {Losing.line})"
    ]
    assert await asyncio.to_thread(healthy.check, lost) == []
    before = await asyncio.to_thread(healthy.before, lost)
    await asyncio.to_thread(healthy.apply, lost, before)
    state, facts = await asyncio.to_thread(healthy.look, lost, before)
    assert state == "in"
    assert Losing.line in facts


async def test_a_gpu_that_is_lost_meanwhile_keeps_no_other_one_throttled(node: Node) -> None:
    doing = throttle(watts=300, gpus=[0, 1, 2])
    before = await node.applied(doing)
    lost = Losing(node.host)
    with pytest.raises(ToolError, match="Unable to determine"):
        await asyncio.to_thread(doing.revert, lost, before)
    assert [c.limit for c in node.gpus.cards(NODE)[:3]] == [700.0, 300.0, 700.0]
    state, facts = await asyncio.to_thread(doing.look, lost, before)
    assert state == "partial"
    assert "GPU 1: power limit unknown, was 700 W" in facts
