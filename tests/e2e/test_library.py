"""Every experiment of the library runs as shipped, is judged by its own bounds, and leaves nothing behind."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gameday.experiment.loader import load
from tests.support.platforms import ROOT
from tests.support.program import Program
from tests.support.snapshot import Snapshot

LIBRARY = sorted((ROOT / "experiments").glob("*.yaml"))
OUTPUTS = (
    "report.html",
    "report.md",
    "report.json",
    "junit.xml",
    "journal.json",
    "events.jsonl",
    "plan.json",
)


@pytest.mark.parametrize("file", LIBRARY, ids=lambda f: f.stem)
def test_an_experiment_of_the_library_passes_and_restores(
    file: Path, gameday: Program, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(file, "--set", "hold=12s", "--set", "window=5s")
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert ended.folder is not None
    for name in OUTPUTS:
        assert (ended.folder / name).stat().st_size > 0, name
    states: dict[str, list[str]] = {}
    for event in ended.of("fault"):
        states.setdefault(event["step"], []).append(event["state"])
    assert states
    assert all(s == ["injecting", "in", "undoing", "out"] for s in states.values()), states
    assert {e["state"] for e in ended.of("audited")} <= {"restored", "irreversible"}


@pytest.mark.parametrize("file", LIBRARY, ids=lambda f: f.stem)
@pytest.mark.fast
def test_an_experiment_of_the_library_names_a_runbook_that_exists(file: Path) -> None:
    loaded = load(file)
    assert loaded.warnings == ()
    runbook = loaded.experiment.spec.runbook
    assert runbook is not None
    assert (file.parent / runbook).is_file()


def test_a_run_leaves_outputs_that_machines_can_read(gameday: Program, world_unchanged: Snapshot) -> None:
    ended = gameday.run(ROOT / "experiments/job-queue-down.yaml", "--set", "hold=12s", "--set", "window=5s")
    assert ended.folder is not None
    cases = ET.parse(ended.folder / "junit.xml").getroot().iter("testcase")
    assert {"training throughput", "waiting jobs"} <= {c.get("name") for c in cases}
    report = json.loads((ended.folder / "report.json").read_text())
    assert report["verdict"] == "passed"
    journal = json.loads((ended.folder / "journal.json").read_text())
    assert (journal["status"], journal["deviated"]) == ("completed", False)
