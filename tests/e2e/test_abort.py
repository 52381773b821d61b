"""However a run is stopped, everything is put back, and the exit code says how it ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

BOTH = [{"parallel": [SCALE, CORDON]}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_and_restores(
    number: signal.Signals, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=BOTH)) as run:
        run.fault_is("in")
        run.signal(number)
        ended = run.ended()
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


def test_a_second_ctrl_c_is_answered_and_changes_nothing(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=BOTH)) as run:
        run.fault_is("in")
        run.signal(signal.SIGINT)
        run.until(lambda e: e["type"] == "abort", "the abort is heard")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output


def test_abort_from_another_terminal(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    with gameday.started(write(tmp_path, method=BOTH)) as run:
        run.fault_is("in")
        listed = gameday("status")
        assert run.folder.name in listed.output
        assert "Deployment platform/job-queue-controller" in listed.output
        asked = gameday("abort", run.folder.name, "--reason", "a real incident")
        assert asked.code == 0, asked.output
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "a real incident" in ended.output
    assert "nothing is in force" in gameday("status").output


def test_an_abort_condition_restores(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    condition = {
        "name": "the queue controller is gone",
        "prometheus": 'kube_deployment_status_replicas_available{deployment="job-queue-controller"}',
        "is": "< 1",
        "interval": "500ms",
    }
    ended = gameday.run(write(tmp_path, method=[SCALE], abortIf=[condition]))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert ended.of("abort")[0]["by"] == "condition"


def test_aborting_a_run_that_does_not_exist(gameday: Program) -> None:
    ended = gameday("abort", "nobody-knows-it")
    assert ended.code == 2
    assert "no run nobody-knows-it is alive" in ended.output
