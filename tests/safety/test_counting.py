"""What a plan reads of a large cluster: no list twice, and counts without lists."""

from __future__ import annotations

import asyncio

import pytest

from gameday.platform.kube import Kube
from gameday.platform.resources import NODES, PODS
from gameday.platform.shared import Shared
from gameday.platform.world import World
from gameday.safety.blast import running, total
from tests.e2e.experiments import EVERYWHERE


@pytest.mark.fast
async def test_the_same_is_read_once_for_a_plan_and_anew_for_a_run() -> None:
    read: list[str] = []

    async def pods() -> list[str]:
        read.append("pods")
        await asyncio.sleep(0)
        return read

    planning, acting = World(None, shared=Shared()), World(None)  # type: ignore[arg-type]
    await asyncio.gather(*(planning.at(step).once("pods", pods) for step in ("1", "2")))
    assert read == ["pods"]
    await planning.once("nodes", pods)
    await acting.once("pods", pods)
    await acting.once("pods", pods)
    assert len(read) == 4


@pytest.mark.fast
async def test_what_could_not_be_read_is_asked_for_again() -> None:
    failing = [True]

    async def pods() -> str:
        if failing.pop():
            failing.append(False)
            raise OSError("away")
        return "here"

    world = World(None, shared=Shared())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="away"):
        await world.once("pods", pods)
    assert await world.once("pods", pods) == "here"


async def test_pods_that_run_are_counted_and_not_listed(kube: Kube) -> None:
    for namespace in EVERYWHERE:
        listed = await kube.list(PODS, namespace)
        phases = [pod["status"].get("phase") for pod in listed]
        assert await running(kube, namespace) == phases.count("Running"), namespace
        assert await total(kube, PODS, namespace) == len(listed)
    assert await total(kube, NODES) == len(await kube.list(NODES))
