"""Native Chaos Toolkit experiments by `chaos run` and by `gameday run`: the same activities, the same end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_chaostoolkit import shell
from tests.support.platforms import ROOT
from tests.support.program import Program

CHAOS = Path(sys.executable).with_name("chaos")
STRATEGIES = ("default", "before-method-only", "after-method-only", "during-method-only", "continuously")


@dataclass(frozen=True)
class Seen:
    """What was called, in order, and how it ended."""

    calls: list[str]
    deviated: bool
    output: str

    @property
    def acted(self) -> list[str]:
        """The calls of actions and rollbacks, and whether probes came before, between and after them."""
        return [c for n, c in enumerate(self.calls) if c != "probe" or self.calls[n - 1 : n] != ["probe"]]


def write(folder: Path, *method: dict[str, Any], healthy: bool = True, **more: Any) -> Path:
    """An experiment whose steady state is that a file is there; all that is called says so in a log."""
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    log.touch()
    if healthy:
        (folder / "healthy").touch()
    probe = shell("file", f"echo probe >> {log}; test -f {folder}/healthy", "probe", tolerance=0)
    document = {
        "title": "The file stays",
        "description": "n/a",
        "steady-state-hypothesis": {"title": "healthy", "probes": [probe]},
        "method": list(method),
        "rollbacks": [shell("roll back", f"echo rollback >> {log}")],
        **more,
    }
    file = folder / "x.json"
    file.write_text(json.dumps(document).replace("FOLDER", str(folder)))
    return file


def action(script: str = "true", **more: Any) -> dict[str, Any]:
    return shell("act", f"echo action >> FOLDER/log; {script}", **more)


def by_chaos(folder: Path, file: Path, **environment: str) -> Seen:
    command = [str(CHAOS), "--no-version-check", "--settings", str(folder / "none.yaml"), "run", str(file)]
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env={**ENVIRONMENT, **environment}
    )
    journal = json.loads((folder / "journal.json").read_text())
    return Seen((folder / "log").read_text().split(), journal["deviated"], ended.stderr + ended.stdout)


def by_gameday(gameday: Program, folder: Path, file: Path, **environment: str) -> Seen:
    ended = gameday.run(file, env=environment)
    return Seen((folder / "log").read_text().split(), ended.verdict == "deviated", ended.output)


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}


def both(gameday: Program, folder: Path, *method: dict[str, Any], **more: Any) -> tuple[Seen, Seen]:
    theirs, ours = folder / "theirs", folder / "ours"
    seen = by_chaos(theirs, write(theirs, *method, **more))
    return seen, by_gameday(gameday, ours, write(ours, *method, **more))


def runtime(hypothesis: str = "", rollbacks: str = "", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"hypothesis": {"strategy": hypothesis, **more}} if hypothesis else {}
    return {"runtime": found | ({"rollbacks": {"strategy": rollbacks}} if rollbacks else {})}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_steady_state_is_looked_at_when_chaos_run_looks(
    strategy: str, gameday: Program, tmp_path: Path
) -> None:
    breaks = action("sleep 2.5; rm FOLDER/healthy")
    theirs, ours = both(gameday, tmp_path, breaks, rollbacks=[], **runtime(strategy))
    if strategy == "during-method-only":  # the first probe and the action begin at once, as they come
        ours, theirs = (replace(seen, calls=["probe", *seen.calls]) for seen in (ours, theirs))
    assert ours.acted == theirs.acted, ours.output
    if strategy in ("during-method-only", "continuously"):
        assert ours.calls[ours.calls.index("action") :].count("probe") >= 1, ours.output
    assert ours.deviated is theirs.deviated, ours.output


@pytest.mark.parametrize("strategy", ["default", "after-method-only"])
def test_nothing_begins_where_the_steady_state_must_hold_before(
    strategy: str, gameday: Program, tmp_path: Path
) -> None:
    mends = action("touch FOLDER/healthy")
    theirs, ours = both(gameday, tmp_path, mends, healthy=False, rollbacks=[], **runtime(strategy))
    assert ("action" in ours.calls) is ("action" in theirs.calls), ours.output


def test_the_frequency_is_the_experiments(gameday: Program, tmp_path: Path) -> None:
    more = runtime("during-method-only", frequency=30)
    ours = by_gameday(gameday, tmp_path / "o", write(tmp_path / "o", action("sleep 2.5"), **more))
    assert ours.calls[:-1].count("probe") == 1, ours.output


@pytest.mark.parametrize(
    ("strategy", "breaks"),
    [("default", True), ("always", True), ("never", True), ("deviated", True), ("deviated", False)],
)
def test_rollbacks_run_when_chaos_run_runs_them(
    strategy: str, breaks: bool, gameday: Program, tmp_path: Path
) -> None:
    script = "rm FOLDER/healthy" if breaks else "true"
    rollback = shell("roll back", "echo rollback >> FOLDER/log; touch FOLDER/healthy")
    more = runtime("default", strategy)
    theirs, ours = both(gameday, tmp_path, action(script), rollbacks=[rollback], **more)
    assert ("rollback" in ours.calls) is ("rollback" in theirs.calls), ours.output
    assert ours.deviated is theirs.deviated is breaks, ours.output


@pytest.mark.parametrize("strategy", ["default", "deviated"])
def test_after_a_probe_that_could_not_be_asked(strategy: str, gameday: Program, tmp_path: Path) -> None:
    """`chaos run` calls that failed, and does not roll back by default."""
    gone = {
        "type": "probe",
        "name": "size",
        "provider": {
            "type": "python",
            "module": "os.path",
            "func": "getsize",
            "arguments": {"filename": "FOLDER/healthy"},
        },
        "tolerance": 0,
    }
    more = {"steady-state-hypothesis": {"title": "healthy", "probes": [gone]}}
    theirs, ours = both(
        gameday, tmp_path, action("rm FOLDER/healthy"), **runtime("default", strategy), **more
    )
    assert ("rollback" in ours.calls) is ("rollback" in theirs.calls), ours.output
    assert ours.deviated is theirs.deviated is True, ours.output


def test_rollbacks_run_without_a_method(gameday: Program, tmp_path: Path) -> None:
    theirs, ours = both(gameday, tmp_path)
    assert theirs.calls[-1] == "rollback"
    assert "rollback" in ours.calls, ours.output


CONTROL = r"""
from pathlib import Path
from chaoslib.exceptions import InterruptExecution

def say(folder, *words):
    with (Path(folder) / "log").open("a") as log:
        log.write("-".join(words) + "\n")

def configure_control(experiment, folder, **_):
    say(folder, "configure", *experiment["title"].split())

def cleanup_control():
    pass

LEVELS = "experiment", "hypothesis", "method", "rollback"

def before(level):
    def control(context, folder, **_):
        say(folder, "before", level)
    return control

def after(level):
    def control(context, state, folder, **_):
        told = state["status"] if level == "experiment" else len(state) if isinstance(state, list) else "x"
        say(folder, "after", level, str(told))
    return control

for level in LEVELS:
    globals()[f"before_{level}_control"] = before(level)
    globals()[f"after_{level}_control"] = after(level)

def before_activity_control(context, folder, **_):
    say(folder, "before", context["name"])
    if context["name"] == "act":
        context["provider"]["arguments"][1] += f"; echo changed >> {folder}/log"
    if context["name"] == "too much":
        raise InterruptExecution("enough")

def after_activity_control(context, state, folder, **_):
    say(folder, "after", context["name"], state["status"])
"""


def heard(seen: Seen) -> list[str]:
    """The calls without the probes of gameday's own look at the end, of which no control hears."""
    last = seen.calls.index("after-rollback-1") if "after-rollback-1" in seen.calls else len(seen.calls)
    return [c for n, c in enumerate(seen.calls) if n <= last or c != "probe"]


@pytest.mark.parametrize("ends", [False, True], ids=["to its end", "interrupted by a control"])
def test_controls_are_applied_where_chaos_run_applies_them(
    ends: bool, gameday: Program, tmp_path: Path
) -> None:
    """Of the whole experiment, of its parts and of each activity; they may change one, and end the run."""
    (tmp_path / "hearing.py").write_text(CONTROL)
    provider = {"type": "python", "module": "hearing", "arguments": {"folder": "FOLDER"}}
    own = {"name": "own", "provider": {**provider, "arguments": {"folder": "FOLDER/own"}}}
    second = {**action(), "name": "too much"} if ends else {**action(), "name": "next", "controls": [own]}
    more = {"controls": [{"name": "all", "provider": provider}], **runtime("default", "default")}
    for side in ("theirs", "ours"):
        (tmp_path / side / "own").mkdir(parents=True)
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    method = (action(), second)
    theirs = by_chaos(tmp_path / "theirs", write(tmp_path / "theirs", *method, **more), **path)
    ours = by_gameday(gameday, tmp_path / "ours", write(tmp_path / "ours", *method, **more), **path)
    assert heard(ours) == heard(theirs), ours.output
    assert "changed" in ours.calls
    assert ("rollback" in ours.calls) is not ends
    if not ends:
        own_heard = [(tmp_path / side / "own" / "log").read_text() for side in ("theirs", "ours")]
        assert own_heard[0] == own_heard[1] == "configure-The-file-stays\nbefore-next\nafter-next-succeeded\n"
