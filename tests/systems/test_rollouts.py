"""The tests of Argo Rollouts' faults on a real controller, and what needs one that can be stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from tests.e2e.test_rollout import *  # noqa: F403 - the same tests, on the real thing
from tests.e2e.test_rollout import experiment, phase
from tests.support.program import Program
from tests.support.snapshot import Snapshot
from tests.systems.rollouts import RealRollouts


@pytest.fixture(autouse=True)
def _real(rollouts: RealRollouts) -> None:
    """Each of these tests is about the real controller."""


async def test_a_pause_that_nobody_has_seen_is_not_in(
    updating: None,
    rollouts: RealRollouts,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """An update that waits at a step is Paused already: that phase is no evidence of this pause."""
    rollouts.stop()
    try:
        ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "pause", settleWithin="3s"))
    finally:
        rollouts.start()
    states = [e["state"] for e in ended.of("fault")]
    assert states[0] == "injecting", ended.output
    assert "in" not in states, ended.output
    assert not (await phase(kube, "Paused"))["spec"].get("paused")


async def test_an_update_that_waits_is_paused_and_waits_again(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "pause"))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    status = (await phase(kube, "Paused"))["status"]
    assert status["message"] == "CanaryPauseStep"
    assert not status.get("abort")


async def test_killed_in_an_undo_and_recovered(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = (await phase(kube, "Healthy"))["status"]["stableRS"]
    with gameday.started(experiment(tmp_path, "undo", hold="60s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert (await phase(kube, "Healthy"))["status"]["stableRS"] == before
