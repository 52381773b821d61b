"""Only what is ours is put back: what others did before, or do meanwhile, stays as they left it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

DRAIN = {"drain": {"nodes": {"names": ["gpu-0", "gpu-1"]}, "deleteEmptyDirData": True}, "for": "1s"}


def _node(name: str) -> Ref:
    return Ref("v1", "Node", name)


async def _unschedulable(kube: Kube, name: str) -> bool:
    return bool((await kube.get(_node(name)))["spec"].get("unschedulable"))


@pytest.mark.parametrize("step", [{**CORDON, "for": "1s"}, DRAIN], ids=["cordon", "drain"])
async def test_a_node_that_was_cordoned_before_stays_cordoned(
    step: dict[str, object], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await kube.patch(_node("gpu-0"), {"spec": {"unschedulable": True}}, "merge")
    try:
        ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[step]))
        assert ended.code == 0, ended.output
        assert "gpu-0" in ended.output
        assert await _unschedulable(kube, "gpu-0")
        assert not await _unschedulable(kube, "gpu-1")
    finally:
        await kube.patch(_node("gpu-0"), {"spec": {"unschedulable": None}}, "merge")


async def test_a_field_that_someone_changes_meanwhile_is_left_and_reported(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Somebody scales the workload to their own number while the fault is in."""
    deployment = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")
    with gameday.started(write(tmp_path, method=[{**SCALE, "for": "4s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await kube.patch(deployment, {"spec": {"replicas": 3}}, "merge")
        ended = await asyncio.to_thread(run.ended)
    try:
        assert (await kube.get(deployment))["spec"]["replicas"] == 3
        assert "kept" in {e["state"] for e in ended.of("audited")}, ended.output
        assert "changed to 3 by someone else" in ended.output
    finally:
        await kube.patch(deployment, {"spec": {"replicas": 2}}, "merge")


async def test_a_fault_that_would_change_nothing_is_refused(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await kube.patch(_node("gpu-0"), {"spec": {"unschedulable": True}}, "merge")
    try:
        step = {"cordon": {"nodes": {"names": ["gpu-0"]}}}
        ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[step]))
        assert ended.code == 4, ended.output
        assert "nothing would change" in ended.output
    finally:
        await kube.patch(_node("gpu-0"), {"spec": {"unschedulable": None}}, "merge")
