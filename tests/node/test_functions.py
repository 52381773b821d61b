"""Virtual functions through their PF, on the sandbox's simulated hardware: this machine has no SR-IOV."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gameday.node.actions import Action, action
from gameday.sandbox.fleet.host import Hosts, SimulatedHost
from gameday.sandbox.fleet.network import Networks, Vf
from gameday.sandbox.fleet.network.tools import Tools

pytestmark = pytest.mark.fast
NODE = "gpu-0"


class Node:
    """A simulated node, asked from a thread as the program does."""

    def __init__(self) -> None:
        self.networks, hosts = Networks(), Hosts()
        Tools(self.networks, lambda _node, _key: "").register(hosts)
        self.host = SimulatedHost(NODE, hosts, asyncio.get_running_loop())

    def vf(self, pf: str = "ens1f0", number: int = 0) -> Vf:
        return self.networks.of(NODE).links[pf].vfs[number]


@pytest.fixture
async def node() -> Node:
    return Node()


def fault(**wanted: Any) -> Action:
    return action("vf", {"interface": "ens1f0", "vf": 0, "vfPciAddress": "0000:1a:00.2", "set": wanted})


async def off_loop(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def made(doing: Action, node: Node) -> dict[str, Any]:
    assert await off_loop(doing.check, node.host) == []
    before: dict[str, Any] = await off_loop(doing.before, node.host)
    await off_loop(doing.apply, node.host, before)
    assert (await off_loop(doing.look, node.host, before))[0] == "in"
    return before


@pytest.mark.parametrize(
    "wanted",
    [{"state": "disable"}, {"max_tx_rate": 100}, {"vlan": 7}, {"spoofchk": "on", "trust": "off"}],
    ids=lambda wanted: "-".join(wanted),
)
async def test_set_and_put_back(wanted: dict[str, Any], node: Node) -> None:
    at_first = vars(node.vf()).copy()
    doing = fault(**wanted)
    before = await made(doing, node)
    assert {key: getattr(node.vf(), key) for key in wanted} == wanted
    assert vars(node.vf(number=1)) | {"number": 0} != at_first | wanted  # the neighbour is as it was
    await off_loop(doing.revert, node.host, before)
    await off_loop(doing.revert, node.host, before)
    assert (await off_loop(doing.look, node.host, before))[0] == "out"
    assert vars(node.vf()) == at_first


async def test_a_vlan_comes_back_with_its_priority(node: Node) -> None:
    node.vf().vlan, node.vf().qos = 12, 3
    doing = fault(vlan=0)
    before = await made(doing, node)
    await off_loop(doing.revert, node.host, before)
    assert (node.vf().vlan, node.vf().qos) == (12, 3)


async def test_what_somebody_else_set_meanwhile_stays(node: Node) -> None:
    doing = fault(state="disable", vlan=7)
    before = await made(doing, node)
    node.vf().state = "enable"
    assert (await off_loop(doing.look, node.host, before))[0] == "partial"
    await off_loop(doing.revert, node.host, before)
    assert (node.vf().state, node.vf().vlan) == ("enable", 0)
    assert (await off_loop(doing.look, node.host, before))[0] == "out"


async def test_what_was_so_before_stays_so(node: Node) -> None:
    node.vf().trust = "off"
    doing = fault(trust="off", state="disable")
    before = await made(doing, node)
    await off_loop(doing.revert, node.host, before)
    assert (node.vf().trust, node.vf().state) == ("off", "auto")
    assert "is so already" in (await off_loop(fault(trust="off").check, node.host))[0]


async def test_several_go_in_and_out_together(node: Node) -> None:
    each = [{"interface": pf, "vf": 1} for pf in ("ens1f0", "ens2f0")]
    doing = action("several", {"action": "vf", "each": each, "set": {"state": "disable"}})
    before = await made(doing, node)
    assert [node.vf(pf, 1).state for pf in ("ens1f0", "ens2f0", "ens3f0")] == ["disable", "disable", "auto"]
    node.vf("ens2f0", 1).state = "auto"
    assert (await off_loop(doing.look, node.host, before))[0] == "partial"
    await off_loop(doing.revert, node.host, before)
    assert (await off_loop(doing.look, node.host, before))[0] == "out"


async def test_what_can_not_be(node: Node) -> None:
    def problems(**options: Any) -> list[str]:
        return action("vf", {"interface": "ens1f0", "vf": 0, "set": {"vlan": 7}, **options}).check(node.host)

    assert await off_loop(lambda: problems(vf=9)) == ["ens1f0 has no VF 9, but 0, 1"]
    assert "has no virtual functions" in (await off_loop(lambda: problems(interface="ens9f0")))[0]
    assert "does not tell port" in (await off_loop(lambda: problems(set={"port": 1})))[0]


async def test_the_rdma_port_goes_down_with_its_link(node: Node) -> None:
    doing = action("link-down", {"pciAddress": "0000:3b:00.0"})
    before = await made(doing, node)
    state, facts = await off_loop(doing.look, node.host, before)
    assert (state, facts) == ("in", ["ens2f0: down, carrier off", "RDMA mlx5_1/1: DOWN"])
    await off_loop(doing.revert, node.host, before)
    assert (await off_loop(doing.look, node.host, before))[0] == "out"
