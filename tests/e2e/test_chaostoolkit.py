"""Chaos Toolkit experiments as they are, through the whole program; and Chaos Mesh after a kill -9."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from gameday.experiment.chaostoolkit import to_experiment
from tests.e2e.experiments import write
from tests.support.program import Program
from tests.support.snapshot import Snapshot


def shell(name: str, script: str, kind: str = "action", **more: Any) -> dict[str, Any]:
    provider = {"type": "process", "path": "sh", "arguments": ["-c", script]}
    return {"type": kind, "name": name, "provider": provider, **more}


def native(folder: Path, *method: dict[str, Any]) -> Path:
    """An experiment whose steady state is that a file is there, and whose rollback makes it again."""
    file, log = folder / "healthy", folder / "log"
    file.touch()
    probes = [shell("the file is there", f"test -f {file}", "probe", tolerance=0)]
    rollbacks = [shell("make it again", f"touch {file}; echo rollback >> {log}")]
    document = {
        "title": "The file stays",
        "steady-state-hypothesis": {"title": "healthy", "probes": probes},
        "method": [shell("note", f"echo action >> {log}"), *method],
        "rollbacks": rollbacks,
    }
    path = folder / "x.json"
    path.write_text(json.dumps(document))
    return path


def said(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_a_native_experiment_runs_unchanged(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """An action that fails does not end it, as in `chaos run`."""
    fails = {"type": "python", "module": "os", "func": "unlink", "arguments": {"path": "/nowhere/at/all"}}
    ended = gameday.run(native(tmp_path, {"type": "action", "name": "fail", "provider": fails}))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "FileNotFoundError" in ended.output
    assert said(tmp_path) == ["action", "rollback"]


def test_what_only_the_rollback_mends_does_not_pass(gameday: Program, tmp_path: Path) -> None:
    document = json.loads(native(tmp_path, shell("break it", f"rm {tmp_path}/healthy")).read_text())
    ended = gameday.run(_short(tmp_path, document))
    assert ended.code == 3, ended.output
    assert "steady state did not return" in ended.output
    assert said(tmp_path) == ["action", "rollback"]
    assert (tmp_path / "healthy").exists()


def _short(folder: Path, document: dict[str, Any]) -> Path:
    """The same as one of our files, so that the test need not wait for a whole minute."""
    ours, _ = to_experiment(document)
    ours["spec"]["recovery"] = {"within": "5s"}
    path = folder / "ours.yaml"
    path.write_text(json.dumps(ours))
    return path


def test_a_missing_extension_is_refused_before_anything_runs(gameday: Program, tmp_path: Path) -> None:
    wrong = {"type": "python", "module": "chaosnone.actions", "func": "x"}
    ended = gameday.run(native(tmp_path, {"type": "action", "name": "fail", "provider": wrong}))
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert "could not find Python module 'chaosnone.actions'" in ended.output
    assert not (tmp_path / "log").exists()


def test_an_abort_cuts_it_off_and_rolls_back(gameday: Program, tmp_path: Path) -> None:
    with gameday.started(native(tmp_path, shell("hang", "sleep 600"))) as run:
        run.until(lambda e: e["type"] == "fault" and e["name"] == "hang", "the hanging action runs")
        run.signal(signal.SIGINT)
        ended = run.ended(timeout=30)
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    assert said(tmp_path) == ["action", "rollback"]


def test_another_machine_rolls_back(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    with gameday.started(native(tmp_path, shell("hang", "sleep 600"))) as run:
        run.until(lambda e: e["type"] == "fault" and e["name"] == "hang", "the hanging action runs")
        name = run.kill()
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert said(tmp_path) == ["action", "rollback"]


def test_chaos_mesh_is_recovered_after_kill_9(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    spec = {
        "action": "delay",
        "mode": "fixed",
        "value": "2",
        "selector": {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}},
        "delay": {"latency": "10ms"},
    }
    file = write(tmp_path, method=[{"chaosMesh": {"kind": "NetworkChaos", "spec": spec}, "for": "30s"}])
    with gameday.started(file) as run:
        run.fault_is("in")
        name = run.kill()
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "nothing is in force" in gameday("status").output
