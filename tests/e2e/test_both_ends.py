"""A network fault whose two ends have one selector: each end is chosen by itself, and both are counted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.kube import Kube
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

MANY = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
WIDE = {"COLUMNS": "400"}


def _partition(selector: dict[str, Any]) -> dict[str, Any]:
    end = {"mode": "one", "selector": selector}
    spec = {"action": "partition", "direction": "both", **end, "target": end}
    return {"name": "split", "chaosMesh": {"kind": "NetworkChaos", "spec": spec}, "for": "2s"}


async def test_a_partition_is_between_two_pods(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{**_partition(MANY), "for": "120s"}])
    with gameday.started(file) as run:
        await asyncio.to_thread(run.fault_is, "in")
        (made,) = await kube.list(await kube.resource(API_VERSION, "NetworkChaos"), "platform")
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended)
    assert ended.verdict == "interrupted", ended.output
    near, far = (end["selector"]["pods"]["inference"] for end in (made["spec"], made["spec"]["target"]))
    assert (len(near), len(far)) == (1, 1)
    assert near != far


async def test_both_ends_count(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    one = write(tmp_path, method=[_partition(MANY)], blastRadius={"pods": 1, "gpus": 32})
    said = await asyncio.to_thread(gameday, "plan", one, env=WIDE)
    assert said.code != 0
    assert "2 pods (at most 1" in said.output


async def test_a_pod_alone_is_not_both_ends(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    name = (await kube.list(PODS, "inference", labels="app=inference"))[0]["metadata"]["name"]
    only = write(tmp_path, method=[_partition({"pods": {"inference": [name]}})])
    said = await asyncio.to_thread(gameday, "plan", only, env=WIDE)
    assert said.code != 0
    assert f"pod inference/{name} would be both ends" in said.output
