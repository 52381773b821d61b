"""The tests of the fault `machine` on a real Cluster API, and what needs its health checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import write
from tests.e2e.test_machine import *  # noqa: F403 - the same tests, on the real thing
from tests.e2e.test_machine import TARGET, _experiment, _machine
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot
from tests.systems.cluster_api import API, CLUSTER, MEMBERS, SPACE, RealClusterAPI


@pytest.fixture(autouse=True)
def _real(cluster_api: RealClusterAPI) -> None:
    """Each of these tests is about the real controllers."""


@asynccontextmanager
async def checked(kube: Kube, seconds: int) -> AsyncIterator[Ref]:
    """The pool's health check: a machine whose node is not Ready for so long is replaced."""
    lost = [{"type": "NodeReady", "status": s, "timeoutSeconds": seconds} for s in ("False", "Unknown")]
    made = {
        "apiVersion": API,
        "kind": "MachineHealthCheck",
        "metadata": {"name": "lost-nodes", "namespace": SPACE},
        "spec": {
            "clusterName": CLUSTER.name,
            "selector": {"matchLabels": MEMBERS},
            "checks": {"unhealthyMachineConditions": lost},
        },
    }
    ref = Ref.of(await kube.create(made))
    try:
        yield ref
    finally:
        await kube.delete(ref)


async def test_a_health_check_is_foretold(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    machine = await _machine(kube)
    names = {"names": [machine.name]}
    spec: dict[str, Any] = {"target": TARGET, "blastRadius": {"nodes": 1, "gpus": 8, "pods": 16}}
    step = {"nodeShutdown": {"nodes": names}, "for": "5m"}
    async with checked(kube, 120) as check:
        ended = await asyncio.to_thread(gameday, "plan", write(tmp_path, method=[step], **spec))
        assert ended.code == 4, ended.output
        text = " ".join(ended.output.split())
        assert f"may delete node {machine.name} with its Machine {SPACE}/{machine.name}" in text
        assert "once it is unhealthy for 2m" in text
        spec["blastRadius"]["others"] = [f"MachineHealthCheck/{check.name}"]
        ended = await asyncio.to_thread(gameday, "plan", write(tmp_path, method=[step], **spec))
        assert ended.code == 0, ended.output


async def test_what_was_foretold_happens(platform: Platform, kube: Kube, world_unchanged: Snapshot) -> None:
    """The check deletes a machine whose node is lost, and its set makes another."""
    lost = await _machine(kube)
    async with checked(kube, 1):
        await asyncio.to_thread(platform.control, f"nodes/{lost.name}/stop")
        await eventually(lambda: kube.find(lost), lambda found: found is None, within=180)
        assert await _machine(kube) != lost


async def test_a_core_that_is_away_removes_nothing(
    cluster_api: RealClusterAPI, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The deletion is asked for, and nothing of it is seen: that is said, with what is left."""
    before = await _machine(kube)
    step = {"replacedWithin": "5s", "nodes": {"names": [before.name]}}
    cluster_api.stop()
    try:
        ended = await asyncio.to_thread(
            gameday.run, _experiment(tmp_path, machine=step), env={"COLUMNS": "200"}
        )
        assert ended.verdict != "passed", ended.output
        failed = [e["message"] for e in ended.of("fault") if e["state"] == "failed"]
        assert failed, ended.output
        assert all(f"{before} is still there" in message for message in failed), failed
    finally:
        cluster_api.start()
    await eventually(lambda: kube.find(before), lambda found: found is None, within=60)
    await _machine(kube)
