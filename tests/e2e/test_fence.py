"""Several processes and one run: stopped for longer than its Lease, side by side, its records taken away."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from gameday.ledger.keeping import NAMESPACE, ensure_namespace
from gameday.ledger.lease import ref_of
from gameday.ledger.store import record_ref
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

LONG: dict[str, Any] = {**CORDON, "for": "120s"}
ELSEWHERE: dict[str, Any] = {"cordon": {"nodes": {"names": ["gpu-2"]}}, "for": "1s"}
TAINT: dict[str, Any] = {
    "taint": {"nodes": {"names": ["gpu-0"]}, "key": "gameday.dev/test", "effect": "NoSchedule"},
    "for": "1s",
}
STRANGE = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {
        "name": "somebody",
        "namespace": NAMESPACE,
        "labels": {"gameday.dev/ledger": "true"},
        "annotations": {"gameday.dev/by": "[/]\x1b[2J"},
    },
}


def test_a_run_that_was_stopped_for_longer_than_its_lease_changes_nothing(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """`recover` watches the Lease until it has run out: nobody waits here for a fixed time."""
    with gameday.started(write(tmp_path, method=[LONG])) as run:
        run.fault_is("in")
        run.signal(signal.SIGSTOP)
        recovered = gameday("recover", "--run", run.folder.name)
        assert recovered.code == 0, recovered.output
        before = len(run.events)
        run.signal(signal.SIGCONT)
        ended = run.ended()
    assert ended.verdict == "aborted", ended.output
    assert not [e for e in ended.events[before:] if e["type"] == "change" and e["state"] == "made"]


def test_a_namespace_that_is_refused_new_pods_meets_all_that_is_in_it(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    quota = {"quota": {"name": "compute", "namespace": "inference", "hard": {"pods": "100%"}}, "for": "120s"}
    scale = {"scale": {"workload": "deployment/inference", "namespace": "inference", "replicas": 11}}
    with gameday.started(write(tmp_path, method=[quota])) as run:
        run.fault_is("in")
        (tmp_path / "second").mkdir()
        refused = gameday.run(write(tmp_path / "second", method=[{**scale, "for": "1s"}]))
        run.signal(signal.SIGTERM)
        assert run.ended().code == 130
    assert refused.code == 4, refused.output
    assert "Deployment inference/inference is its target as well" in refused.output


async def test_overlapping_runs_are_refused_and_others_go_side_by_side(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await ensure_namespace(kube)
    await kube.create(STRANGE)
    try:
        with gameday.started(write(tmp_path, method=[LONG])) as run:
            run.fault_is("in")
            name = run.folder.name
            (tmp_path / "second").mkdir()
            refused = gameday.run(write(tmp_path / "second", method=[ELSEWHERE, TAINT]))
            assert refused.code == 4, refused.output
            assert f"run {name} is in force, and Node gpu-0 is its target as well" in refused.output
            radius = {"nodes": 3, "gpus": 32}  # nodes that are down already count
            passed = gameday.run(write(tmp_path / "second", method=[ELSEWHERE], blastRadius=radius))
            assert passed.code in (0, 1), passed.output
            status = gameday("status")
            assert f"{name}  alive" in status.output
            assert "ConfigMap gameday/somebody carries our label" in status.output
            run.signal(signal.SIGTERM)
            assert run.ended().code == 130
    finally:
        await kube.delete(Ref.of(STRANGE))
    assert "nothing is in force" in gameday("status").output


async def test_a_folder_brings_back_what_the_cluster_has_forgotten(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """kill -9, and everything in our namespace removed by somebody who takes finalizers off, too."""
    with gameday.started(write(tmp_path, method=[LONG])) as run:
        run.fault_is("in")
        name = run.kill()
    for ref in (record_ref(name), ref_of(name), Ref("v1", "Secret", f"gameday-{name}", NAMESPACE)):
        await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
        await kube.delete(ref)
    lost = gameday("recover", "--run", name, "--reports", gameday.reports)
    assert (lost.code, "gameday recover --from" in lost.output) == (2, True), lost.output
    recovered = gameday("recover", "--from", gameday.reports / name)
    assert recovered.code == 0, recovered.output
    assert f"{name}: restored" in recovered.output


async def test_a_run_whose_namespace_is_deleted_aborts_and_puts_everything_back(
    gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    space, nodes = Ref("v1", "Namespace", NAMESPACE), [Ref("v1", "Node", n) for n in ("gpu-0", "gpu-1")]
    with gameday.started(write(tmp_path, method=[LONG])) as run:
        run.fault_is("in")
        assert all([(await kube.get(node))["spec"].get("unschedulable") for node in nodes])
        await kube.delete(space)
        ended = run.ended()
    assert (ended.verdict, ended.code) == ("aborted", 3), ended.output
    assert "is being deleted" in ended.output
    assert not any([(await kube.get(node))["spec"].get("unschedulable") for node in nodes])
    while await kube.find(space) is not None:  # nothing of ours holds it up any more
        continue
    await ensure_namespace(kube)
