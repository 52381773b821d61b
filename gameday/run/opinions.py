"""Opinions of others than Kubernetes on the nodes that a run touches: GPUd of their GPUs, and Slurm.

Told as conditions of the node, once at the start, so that the log says who was asked, and then each change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from gameday.events import ConditionChanged, Emit
from gameday.platform.errors import PlatformError

if TYPE_CHECKING:
    from gameday.platform.world import World

EVERY = 1.0  # seconds between questions
MOST = 32  # nodes whose GPUd is asked
GPUD, SLURM = "GPUd", "Slurm"

Opinion = tuple[str, str, str, str]  # node, condition, status, reason


async def follow_opinions(world: World, nodes: Iterable[str], tell: Emit) -> None:
    """Ask until cancelled; who does not answer at the start is not asked again."""
    watched = sorted(nodes)[:MOST]
    async with asyncio.TaskGroup() as group:
        if watched and world.slurm is not None:
            group.create_task(_follow(lambda: _slurm(world, set(watched)), tell))
        for node in watched:
            group.create_task(_follow_gpud(world, node, tell))


async def _follow_gpud(world: World, node: str, tell: Emit) -> None:
    from gameday.platform import gpud
    from gameday.platform.objects import Ref

    try:
        url = gpud.url_of(await world.kube.get(Ref("v1", "Node", node)))
        await gpud.states(url)
    except PlatformError:
        return  # most platforms have none
    await _follow(lambda: _gpud(node, url), tell)


async def _follow(ask: Callable[[], AsyncIterator[Opinion]], tell: Emit) -> None:
    known: dict[tuple[str, str], str] = {}
    while True:
        try:
            async for node, condition, status, reason in ask():
                if known.get((node, condition)) != status:
                    known[node, condition] = status
                    tell(
                        ConditionChanged(
                            object=f"Node {node}", condition=condition, status=status, reason=reason
                        )
                    )
        except PlatformError:
            pass  # it went away with the fault, perhaps; the next answer will tell
        await asyncio.sleep(EVERY)


async def _gpud(node: str, url: str) -> AsyncIterator[Opinion]:
    """The worst component's state; which one is in the reason."""
    from gameday.platform import gpud

    ill = [(e["component"], h) for e in await gpud.states(url) if (h := gpud.worst(e)) != "Healthy"]
    component, health = ill[0] if ill else ("", "Healthy")
    yield node, GPUD, health, component


async def _slurm(world: World, nodes: set[str]) -> AsyncIterator[Opinion]:
    assert world.slurm is not None
    for node in await world.slurm.nodes():
        if node.name in nodes:
            yield node.name, SLURM, node.word, node.reason
