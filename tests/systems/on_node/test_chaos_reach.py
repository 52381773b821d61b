"""What of Chaos Mesh this machine's kernel and packages allow, and that the rest leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.node import RealNode
from tests.support.polling import eventually
from tests.systems.on_node.test_chaos_daemon import (
    API,
    FAULT,
    PARTITION,
    SPACE,
    _dropped,
    _inside,
    _planned,
    _step,
    pair,
)

__all__ = ["pair"]  # a fixture

pytestmark = pytest.mark.usefixtures("daemon")

BANDWIDTH: Object = {"rate": "1mbps", "limit": 20000, "buffer": 10000}
HTTP: Object = {"target": "Request", "port": 8080, "abort": True}
IO: Object = {"action": "latency", "volumePath": "/tmp", "delay": "10ms"}
TIME: Object = {"timeOffset": "-10m"}
DNS: Object = {"action": "error", "patterns": ["example.com"]}
LACKING = [
    pytest.param("HTTPChaos", HTTP, "send http request", True, id="http"),  # the program tproxy
    pytest.param("IOChaos", IO, "toda", False, id="io"),  # the program toda
    pytest.param(
        "TimeChaos", {"timeOffset": "-10m"}, "fake_clock_gettime.o", False, id="time"
    ),  # an object file
    pytest.param("DNSChaos", DNS, 'Service "" not found', False, id="dns"),  # a name server of its own
]


async def test_bandwidth_is_limited_in_the_pod_and_no_more(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", action="bandwidth", bandwidth=BANDWIDTH)
        await step.inject(FAULT, plan)
        assert "qdisc tbf" in await _inside(kube, node, pair[0], "tc", "qdisc")
        assert "qdisc tbf" not in await _inside(kube, node, pair[1], "tc", "qdisc")
        assert await step.undo() == ["undone"]
        assert "qdisc tbf" not in await _inside(kube, node, pair[0], "tc", "qdisc")
        await step.becomes(FAULT, plan, "out")


@pytest.mark.parametrize(("kind", "spec", "words", "stuck"), LACKING)
async def test_what_lacks_its_program_is_never_in_and_spoils_nothing(
    kube: Kube,
    node: RealNode,
    tmp_path: Path,
    pair: tuple[Ref, Ref],
    kind: str,
    spec: Object,
    words: str,
    stuck: bool,
) -> None:
    """An HTTPChaos needs its program to be taken out, too: only `force` lets go of one without."""
    options = {"settleWithin": "5s", "force": stuck}
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, kind, **spec, **options)
        await FAULT.inject(plan, step.here)
        said = await eventually(
            lambda: step.settled(FAULT, plan), lambda e: words in " ".join(e.facts), within=30
        )
        assert said.state == "partial"
        assert await step.undo() == ["undone"]
        assert stuck == ("removed by force" in str(step.ledger.ledger.entries[0].message))
        await step.becomes(FAULT, plan, "out")
        assert not await kube.list(await kube.resource(API, kind), SPACE)
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", **PARTITION)
        await step.inject(FAULT, plan)
        assert await _dropped(kube, node, pair[0])
        assert await step.undo() == ["undone"]
        assert not await _dropped(kube, node, pair[0])
