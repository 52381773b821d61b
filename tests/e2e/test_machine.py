"""A machine is deleted and replaced: how long that took is told, and nothing has to be undone."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.resources import NODES
from tests.e2e.experiments import write
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

POOL = "node.cluster.x-k8s.io/pool=elastic"
TARGET = {"context": "gameday-.*", "namespaces": ["platform"], "nodes": {"selector": POOL}}
STEP: dict[str, Any] = {"machine": {"nodes": {"selector": POOL}, "replacedWithin": "2m"}, "for": "1s"}


def _experiment(folder: Path, **spec: Any) -> Path:
    return write(folder, method=[{**STEP, **spec}], target=TARGET, blastRadius={"nodes": 1})


async def _pool(kube: Kube) -> list[Object]:
    return [n for n in await kube.list(NODES, labels=POOL) if is_ready(n)]


async def _machine(kube: Kube) -> Ref:
    (node,) = await eventually(lambda: _pool(kube), lambda found: len(found) == 1)
    name = node["metadata"]["annotations"]["cluster.x-k8s.io/machine"]
    return Ref("cluster.x-k8s.io/v1beta2", "Machine", name, "platform")


async def test_a_machine_is_replaced_and_the_report_says_after_how_long(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _machine(kube)
    ended = await asyncio.to_thread(gameday.run, _experiment(tmp_path))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    after = await _machine(kube)
    assert after != before
    out = next(e for e in ended.of("fault") if e["state"] == "out")
    (told,) = out["evidence"]
    assert re.fullmatch(rf"{after} with node {after.name} is Ready, [\dms]+ after the deletion", told)
    assert {e["state"] for e in ended.of("audited")} == {"irreversible"}
    assert ended.folder is not None
    assert told in (ended.folder / "report.md").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["abort", "kill"])
async def test_cut_off_nothing_is_left_to_undo(
    how: signal.Signals, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _machine(kube)
    with gameday.started(_experiment(tmp_path, **{"for": "60s"})) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "change", "the machine is deleted")
        run.signal(how)
        if how == signal.SIGINT:
            ended = await asyncio.to_thread(run.ended)
            assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
        else:
            run.process.wait()
            recovered = await asyncio.to_thread(gameday, "recover", "--run", run.folder.name, "--force")
            assert recovered.code == 0, recovered.output
            assert str(before) in recovered.output
    await eventually(lambda: _pool(kube), lambda found: len(found) == 1, within=60.0)


async def test_a_machine_that_nobody_would_remove_or_replace_is_refused(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    machine = await _machine(kube)
    file = _experiment(tmp_path)
    for meta, words in (
        ({"annotations": {"cluster.x-k8s.io/paused": ""}}, "is paused"),
        ({"labels": {"cluster.x-k8s.io/control-plane": ""}}, "one of the control plane's"),
    ):
        await kube.patch(machine, {"metadata": meta}, "merge")
        try:
            ended = await asyncio.to_thread(gameday.run, file)
        finally:
            gone = {key: dict.fromkeys(values) for key, values in meta.items()}
            await kube.patch(machine, {"metadata": gone}, "merge")
        assert ended.code == 4, ended.output
        assert words in " ".join(ended.output.split())
