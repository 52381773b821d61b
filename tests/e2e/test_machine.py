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
from tests.e2e.experiments import EVERYWHERE, write
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

PAUSED, CONTROL_PLANE = "cluster.x-k8s.io/paused", "cluster.x-k8s.io/control-plane"
POOL = "node.cluster.x-k8s.io/pool=elastic"
TARGET = {"context": "gameday-.*", "namespaces": EVERYWHERE, "nodes": {"selector": POOL}}
STEP: dict[str, Any] = {"machine": {"nodes": {"selector": POOL}, "replacedWithin": "2m"}, "for": "1s"}


def _experiment(folder: Path, **spec: Any) -> Path:
    return write(folder, method=[{**STEP, **spec}], target=TARGET, blastRadius={"nodes": 1, "gpus": 8})


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


@pytest.mark.parametrize("state", ["in", "undoing"])
async def test_a_signal_ends_the_wait_for_a_replacement(
    state: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Nothing is there to undo, so nothing is waited for, whenever the signal comes."""
    before = await _machine(kube)
    held = {"for": "60s" if state == "in" else "1ms"}
    with gameday.started(_experiment(tmp_path, **held)) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "fault" and e["state"] == state, state)
        run.signal(signal.SIGTERM)
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    (failed,) = [e for e in ended.of("fault") if e["state"] == "failed"]
    assert "the run was stopped, and there is nothing to undo" in failed["message"]
    assert before != await _machine(kube)


@pytest.mark.parametrize(
    ("of", "body", "words"),
    [
        ("Machine", {"metadata": {"annotations": {PAUSED: ""}}}, "is paused"),
        ("MachineSet", {"metadata": {"annotations": {PAUSED: ""}}}, "is paused"),
        ("Cluster", {"spec": {"paused": True}}, "is paused (spec.paused)"),
        ("Machine", {"metadata": {"labels": {CONTROL_PLANE: ""}}}, "one of the control plane's"),
    ],
    ids=["machine paused", "set paused", "cluster paused", "control plane"],
)
async def test_a_machine_that_nobody_would_remove_or_replace_is_refused(
    of: str,
    body: Object,
    words: str,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    machine = await _machine(kube)
    spec = (await kube.get(machine))["spec"]
    named = {"Machine": machine.name, "MachineSet": "elastic", "Cluster": spec["clusterName"]}
    ref = Ref(machine.api_version, of, named[of], machine.namespace)
    await kube.patch(ref, body, "merge")
    try:
        ended = await asyncio.to_thread(gameday.run, _experiment(tmp_path))
    finally:
        await kube.patch(ref, _taken_out(body), "merge")
    assert ended.code == 4, ended.output
    assert words in " ".join(ended.output.split())


def _taken_out(body: Object) -> Object:
    return {k: _taken_out(v) if isinstance(v, dict) else None for k, v in body.items()}
