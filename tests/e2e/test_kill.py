"""kill -9 at any moment, then `gameday recover` elsewhere: the cluster is as before, object by object."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.platforms import ROOT
from tests.support.polling import until
from tests.support.program import Program, Running
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

METHOD: list[dict[str, Any]] = [
    {
        "parallel": [
            SCALE,
            CORDON,
            {
                "taint": {
                    "nodes": {"names": ["gpu-2", "gpu-3"]},
                    "key": "gameday.dev/test",
                    "effect": "NoSchedule",
                },
                "for": "30s",
            },
        ]
    }
]
RADIUS = {"nodes": 4, "pods": 4, "gpus": 32}


def _recover(gameday: Program, run: str) -> None:
    """From a folder that never saw the run, and before its lease has run out."""
    ended = gameday("recover", "--run", run, "--force")
    assert ended.code == 0, ended.output


def _wait_for(run: Running, moment: str) -> None:
    kind, _, state = moment.partition(" ")
    run.until(lambda e: e["type"] == kind and e.get("state", e.get("phase", "")) == state, moment)


@pytest.mark.parametrize(
    "moment",
    [
        "phase baseline",
        "fault injecting",
        "change intended",
        "change made",
        "fault in",
        "fault undoing",
        "change undone",
    ],
)
def test_killed_at_a_moment(moment: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    file = write(tmp_path, method=_short_holds(moment), blastRadius=RADIUS)
    with gameday.started(file) as run:
        _wait_for(run, moment)
        name = run.kill()
    _recover(gameday, name)
    assert "nothing is in force" in gameday("status").output
    report = gameday("report", name, "--reports", gameday.reports)
    assert report.code == 0, report.output
    assert (gameday.reports / name / "report.html").exists()


def _short_holds(moment: str) -> list[dict[str, Any]]:
    """Moments of the undo come only once the hold is over."""
    if "und" not in moment:
        return METHOD
    steps = [{**step, "for": "1s"} for step in METHOD[0]["parallel"]]
    return [{"parallel": steps}]


def test_killed_after_a_random_time(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    """Moments that no event marks: between a request and its answer, say. The delay is printed on failure."""
    for delay in (0.05, 0.3, 0.7):
        with gameday.started(write(tmp_path, method=METHOD, blastRadius=RADIUS)) as run:
            run.until(lambda e: e["type"] == "fault", "the method began")
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                os.sched_yield()
            name = run.kill()
        _recover(gameday, name)


def test_a_run_that_is_alive_is_not_recovered_by_accident(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=METHOD, blastRadius=RADIUS)) as run:
        run.fault_is("in")
        refused = gameday("recover", "--run", run.folder.name)
        assert refused.code == 2, refused.output
        assert "is alive" in refused.output
        passed_over = gameday("recover")
        assert "left alone, since alive" in passed_over.output
        run.signal(signal.SIGTERM)
        assert run.ended().code == 130


def test_the_janitor_restores_a_run_whose_lease_ran_out(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The lease lasts 30 s from its last renewal; nobody says which run to restore."""
    with gameday.started(write(tmp_path, method=METHOD, blastRadius=RADIUS)) as run:
        run.fault_is("in")
        run.kill()
    janitor = subprocess.Popen(
        [sys.executable, "-m", "gameday", "recover", "--watch"],
        cwd=ROOT,
        env=gameday.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert janitor.stdout is not None
        for line in janitor.stdout:
            if "restored" in line:
                assert run.folder.name in line
                break
    finally:
        janitor.kill()
        janitor.wait()


def test_a_recovery_is_not_cut_off_by_a_dropped_session(
    gameday: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """SIGHUP lets it finish; only a second signal leaves the rest, and the exit code says so."""
    with gameday.started(write(tmp_path, method=[SCALE])) as run:
        run.fault_is("in")
        name = run.kill()
    api_proxy.fail("PATCH", "deployments/job-queue-controller", 503, times=10_000)
    recovering = subprocess.Popen(
        [sys.executable, "-m", "gameday", "recover", "--run", name, "--force"],
        cwd=ROOT,
        env={**gameday.environment, "KUBECONFIG": str(api_proxy.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: any("PATCH" in r and "job-queue" in r for r in api_proxy.requests), "the undo began")
        recovering.send_signal(signal.SIGHUP)
        assert recovering.stdout is not None
        said = iter(recovering.stdout.readline, "")  # among it that the undo is still tried
        assert any("what is under way is put back first" in line for line in said)
        recovering.send_signal(signal.SIGTERM)
        rest = recovering.stdout.read()
        assert recovering.wait(30) == 5, rest
        assert "run `gameday recover` again" in rest
    finally:
        recovering.kill()
        recovering.wait()
    _recover(gameday, name)
