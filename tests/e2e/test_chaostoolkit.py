"""Chaos Toolkit experiments as they are, through the whole program; and Chaos Mesh after a kill -9."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

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
        "description": "n/a",
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


SECRETS = {
    "acme": {"password": "correct-horse", "token": {"type": "env", "key": "ACME_TOKEN"}, "number": 7654321}
}
UNRULY = """
import os, sys

def end(text: str) -> None:
    sys.exit(text)

def break_off(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(3)
"""
VALUES = ("correct-horse", "battery/staple", "7654321")


def test_what_an_activity_prints_of_its_secrets_is_in_no_file_and_no_output(
    gameday: Program, tmp_path: Path
) -> None:
    """By a probe, an action whose result is logged, one that fails, one that ends its process, a rollback."""
    told = "${password} ${token} ${number}"
    uses = {"secrets": ["acme"]}

    def python(name: str, module: str, func: str, **arguments: Any) -> dict[str, Any]:
        provider = {"type": "python", "module": module, "func": func, "arguments": arguments, **uses}
        return {"type": "action", "name": name, "provider": provider}

    def says(name: str, kind: str = "action", **more: Any) -> dict[str, Any]:
        made = shell(name, f"echo {told}; echo {told} >&2", kind, **more)
        return made | {"provider": made["provider"] | uses}

    document = {
        "title": "Secrets",
        "description": "n/a",
        "secrets": SECRETS,
        "steady-state-hypothesis": {"title": "t", "probes": [says("ask", "probe", tolerance=0)]},
        "method": [
            says("say"),
            python("fail", "os", "unlink", path=f"/nowhere/{told}"),
            python("end", "acme_unruly", "end", text=told),
            python("break off", "acme_unruly", "break_off", text=told),
        ],
        "rollbacks": [says("say again")],
    }
    file = tmp_path / "x.json"
    file.write_text(json.dumps(document))
    (tmp_path / "acme_unruly.py").write_text(UNRULY)
    ended = gameday.run(file, env={"ACME_TOKEN": VALUES[1], "PYTHONPATH": str(tmp_path)})
    assert ended.verdict == "passed", ended.output
    assert ended.folder is not None
    said = ended.output + "".join(p.read_text() for p in ended.folder.rglob("*") if p.is_file())
    for words in ("say returned", "/nowhere/", "exit ***", "without a result: ***", "say again"):
        assert words in said
    assert not [value for value in VALUES if value in said]


def test_a_secret_that_is_too_short_to_be_masked_is_refused(gameday: Program, tmp_path: Path) -> None:
    file = native(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"secrets": {"acme": {"password": "12345"}}}))
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert "password, a secret by its name, is shorter than 6 characters" in " ".join(ended.output.split())
    assert not (tmp_path / "log").exists()


def test_what_only_the_rollback_mends_does_not_pass(gameday: Program, tmp_path: Path) -> None:
    ended = gameday.run(native(tmp_path, shell("break it", f"rm {tmp_path}/healthy")))
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "steady state did not hold after the method" in ended.output
    assert said(tmp_path) == ["action", "rollback"]
    assert (tmp_path / "healthy").exists()


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
