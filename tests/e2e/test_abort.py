"""However a run is stopped, everything is put back, and the exit code says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.platforms import ROOT
from tests.support.polling import until
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

BOTH = [{"parallel": [SCALE, CORDON]}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
        run.until(lambda e: e["type"] == "fault" and (e["kind"], e["state"]) == ("scale", "in"), "it is in")
        listed = gameday("status")
        assert run.folder.name in listed.output
        words = r"Deployment platform/job-queue-controller  spec\.replicas: \d → 0  in force$"
        assert re.search(words, listed.output, re.MULTILINE), listed.output
        asked = gameday("abort", run.folder.name, "--reason", "a real incident")
        assert asked.code == 0, asked.output
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "a real incident" in ended.output
    assert "nothing is in force" in gameday("status").output


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, "abort"])
def test_a_request_under_way_lands_before_the_undo_however_often_the_run_is_told_to_stop(
    second: signal.Signals | str,
    gameday: Program,
    api_proxy: ApiProxy,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    gameday.environment["KUBECONFIG"] = str(api_proxy.kubeconfig)
    change = "PATCH /apis/apps/v1/namespaces/platform/deployments/job-queue-controller"
    api_proxy.hold("PATCH", "deployments/job-queue-controller")
    with gameday.started(write(tmp_path, method=[SCALE])) as run:
        until(lambda: any(change in r for r in api_proxy.requests), "the change is on its way", within=60)
        assert gameday("abort", run.folder.name).code == 0
        for _ in range(2):
            if isinstance(second, signal.Signals):
                run.signal(second)
            assert gameday("abort", run.folder.name).code == 0
        assert [e["state"] for e in run.events if e["type"] == "change"] == ["intended"]
        api_proxy.relent()
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


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
    assert "no run nobody-knows-it is known in" in ended.output


async def test_an_interrupt_ends_the_wait_for_recovery(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Steady state never returns, and nobody who pressed Ctrl-C is made to wait out the objective."""
    marker = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "marker", "namespace": "platform"},
    }
    probe = {
        "name": "marker",
        "kubernetes": {
            "resource": "configmap/marker",
            "namespace": "platform",
            "jsonPath": "{.metadata.name}",
        },
        "is": "marker",
        "during": "ignore",
        "interval": "500ms",
    }
    await kube.create(marker)
    file = write(tmp_path, method=[{**CORDON, "for": "2s"}], steadyState=[probe], recovery={"within": "10m"})
    with gameday.started(file) as run:
        await asyncio.to_thread(run.fault_is, "in")
        await kube.delete(Ref.of(marker))
        await asyncio.to_thread(run.until, lambda e: e.get("phase") == "recovery", "recovery is awaited")
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended, 30.0)
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 4), (b"\x03", 130), (b"y\n", 0), (b"", 130)])
def test_the_plan_is_approved_at_a_terminal(
    answer: bytes, code: int, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{**CORDON, "for": "1s"}])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gameday", "run", str(file), "--reports", str(gameday.reports)],
        cwd=ROOT,
        env=gameday.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_at_a_terminal,
    )
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        assert select.select([ours], [], [], 60)[0], shown.decode(errors="replace")
        shown += os.read(ours, 4096)
    os.write(ours, answer)
    if not answer:  # the terminal is closed, and its foreground programs get a SIGHUP
        os.close(ours)
        assert process.wait(60) == code
        return
    with contextlib.suppress(OSError):  # the terminal is gone when the program is
        while select.select([ours], [], [], 60)[0] and (more := os.read(ours, 4096)):
            shown += more
    assert process.wait(60) == code, shown.decode(errors="replace")


def _at_a_terminal() -> None:
    """As a shell starts a program: with the terminal its own, and Ctrl-C heard even where tests ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
