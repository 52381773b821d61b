"""Drains the scene's nodes as a step of a run does, ledger included; prints the seconds it took.

A program of its own, as its competitors are: `python -m bench.drain_gameday KUBECONFIG SELECTOR NAMESPACE`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from gameday.events import Event
from gameday.extend import Step
from gameday.faults.drain import Drain, DrainSpec
from gameday.platform.kube import Kube
from gameday.platform.world import World
from tests.support.ledgers import unguarded


async def drain(kubeconfig: str, selector: str, namespace: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with await Kube.connect(kubeconfig) as kube:
            world = World(kube, run="bench", namespaces=(namespace,), node_selector=selector, emit=_ignore)
            fault, spec = Drain(), DrainSpec.model_validate({"nodes": {"selector": selector}})
            ledger = unguarded(kube, "bench", Path(folder), {}, _ignore)
            started = time.perf_counter()
            plan = await fault.plan(spec, world.at("1"))
            step = Step(world.at("1"), ledger.step("1"))
            await fault.inject(plan, step)
            evidence = await fault.settled(plan, step.injected, step.world)
            took = time.perf_counter() - started
            assert evidence.state == "in", f"not drained: {evidence}"
            return took


def _ignore(_: Event) -> None:
    """No log: none of the competitors keeps one."""


if __name__ == "__main__":
    print(json.dumps({"seconds": asyncio.run(drain(*sys.argv[1:4]))}))
