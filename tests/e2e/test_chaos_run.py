"""gameday's faults and probes in experiments that the real `chaos run` runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubeconfigs import beside_prod
from tests.support.platforms import ROOT
from tests.support.polling import until
from tests.support.program import Program
from tests.support.snapshot import Snapshot

LOG = "chaos.log"
CHAOS = Path(sys.executable).with_name("chaos")
QUEUE = "deployment/job-queue-controller"
TARGET = {"context": "gameday-.*", "namespaces": ["platform"]}
SCALE = {"scale": {"workload": QUEUE, "namespace": "platform", "replicas": 0}}


def _activity(kind: str, name: str, func: str, **arguments: Any) -> dict[str, Any]:
    provider = {"type": "python", "module": "gameday.chaostoolkit", "func": func, "arguments": arguments}
    return {"type": kind, "name": name, "provider": provider}


def _replicas(expect: str) -> dict[str, Any]:
    asked = {"resource": QUEUE, "namespace": "platform", "jsonPath": "{.spec.replicas}"}
    probe = _activity("probe", "replicas", "measure_probe", probe={"kubernetes": asked}, expect=expect)
    return {**probe, "tolerance": True}


def _fault(func: str, reports: Path, **arguments: Any) -> dict[str, Any]:
    limits = {"target": TARGET, "blast_radius": {"pods": 2}, "reports": str(reports)}
    return _activity("action", "no queue", func, fault=SCALE, **limits, **arguments)


def _write(folder: Path, method: list[Any], rollbacks: list[Any]) -> Path:
    file = folder / "experiment.json"
    document = {
        "title": "The queue's controller goes",
        "description": "n/a",
        "steady-state-hypothesis": {"title": "It runs", "probes": [_replicas(">= 2")]},
        "method": method,
        "rollbacks": rollbacks,
    }
    file.write_text(json.dumps(document))
    return file


def _chaos(gameday: Program, folder: Path, file: Path) -> subprocess.Popen[bytes]:
    """`chaos run` in the background, telling chaos.log in that folder; of several clusters, on the tests'."""
    command = [str(CHAOS), "--no-version-check", "run", "--hypothesis-strategy=before-method-only"]
    command += ["--rollback-strategy=always", str(file)]
    several = beside_prod(gameday.platform.kubeconfig, folder)
    environment = {**gameday.environment, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(several)}
    environment["KUBERNETES_CONTEXT"] = gameday.platform.context
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _output(chaos: subprocess.Popen[bytes], folder: Path) -> str:
    """What it told until its end."""
    chaos.wait(timeout=120)
    return (folder / LOG).read_text()


def test_a_fault_is_in_for_the_method_and_taken_back_by_a_rollback(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    gone = {**_replicas("== 0"), "name": "nobody is there"}
    method = [_fault("inject_fault", tmp_path / "reports", hold="5m"), gone]
    chaos = _chaos(gameday, tmp_path, _write(tmp_path, method, [_activity("action", "undo", "undo_fault")]))
    output = _output(chaos, tmp_path)
    journal = json.loads((tmp_path / "journal.json").read_text())
    outputs = [a["output"] for a in journal["run"]]
    assert outputs[1] is True, output
    assert "0 of 0 replicas ready" in outputs[0]["evidence"][-1]
    (undone,) = journal["rollbacks"][0]["output"]
    assert (undone["run"], undone["verdict"]) == (outputs[0]["run"], "interrupted")
    assert (Path(undone["report"]) / "report.html").exists()
    assert "nothing is in force" in gameday("status").output


def test_a_fault_that_holds_for_a_while_and_one_that_is_refused(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = [_fault("run_fault", tmp_path / "reports", hold="1s")]
    method.append({**_fault("run_fault", tmp_path / "reports", hold="1s"), "name": "too much"})
    method[1]["provider"]["arguments"]["blast_radius"] = {"pods": 1}
    chaos = _chaos(gameday, tmp_path, _write(tmp_path, method, []))
    output = _output(chaos, tmp_path)
    done, refused = json.loads((tmp_path / "journal.json").read_text())["run"]
    assert (done["status"], done["output"]["verdict"]) == ("succeeded", "passed"), output
    assert refused["status"] == "failed"
    assert "2 pods (at most 1" in " ".join("".join(refused["exception"]).split())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_chaos_ends_in_the_middle(
    how: signal.Signals, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Ctrl-C puts the fault back at once; where `chaos` is killed, its hold ends as said all the same."""
    reports = tmp_path / "reports"
    hold = "5m" if how == signal.SIGINT else "8s"
    pause = {"after": 60}
    method = [{**_fault("inject_fault", reports, hold=hold), "pauses": pause}]
    chaos = _chaos(gameday, tmp_path, _write(tmp_path, method, []))
    until(lambda: "Pausing" in (tmp_path / LOG).read_text(), "it is in", within=60)
    chaos.send_signal(how)
    _output(chaos, tmp_path)
    until(lambda: "nothing is in force" in gameday("status").output, "it is put back", within=60, every=1.0)
