"""The files for machines keep their formats: Chaos Toolkit's journal, JUnit for CI, a versioned JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from chaoslib.run import initialize_run_journal

from gameday import events as ev
from gameday.report import Outputs, png, render
from gameday.report.analysis import analyse
from tests.report import logs

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return render(logs.write(tmp_path_factory.mktemp("run"), logs.game_day()))


def test_the_journal_is_the_chaos_toolkits(outputs: Outputs) -> None:
    journal = json.loads(outputs.journal.read_text())
    assert set(initialize_run_journal({})) <= set(journal)
    assert (journal["status"], journal["deviated"]) == ("completed", True)
    before, during = journal["steady_states"]["before"], journal["steady_states"]["during"]
    assert before["steady_state_met"] is True
    assert [s["steady_state_met"] for s in during] == [False]
    assert [p["activity"]["name"] for p in before["probes"]] == [
        "p99 latency",
        "training throughput",
        "error ratio",
        "app",
    ]
    first, second = journal["run"]
    assert (first["status"], first["activity"]["type"], first["duration"]) == ("succeeded", "action", 17)
    assert len(journal["rollbacks"]) == 2
    assert second["start"] < second["end"]


def test_junit_has_a_case_for_each_thing_held(outputs: Outputs) -> None:
    root = ET.parse(outputs.junit).getroot()
    suite = root[0]
    cases = {(c.get("classname", "").split(".")[1], c.get("name")): c for c in suite.iter("testcase")}
    assert len(cases) == int(suite.get("tests", 0)) == 12
    failed = {key for key, case in cases.items() if case.find("failure") is not None}
    assert failed == {
        ("verdict", "Deviated"),
        ("steadyState", "error ratio"),
        ("steadyState", "app"),
        ("expectAlerts", "TrainingStalled"),
    }
    assert int(root.get("failures", 0)) == 4


def test_what_could_not_be_judged_is_skipped(tmp_path: Path) -> None:
    events = [e for e in logs.game_day() if e.at < logs.START + 80]
    suite = ET.parse(render(logs.write(tmp_path, events)).junit).getroot()[0]
    assert int(suite.get("skipped", 0)) >= 3


def test_the_json_is_versioned_and_tells_all(outputs: Outputs) -> None:
    report = json.loads(outputs.json.read_text())
    assert report["version"] == 1
    assert report["verdict"] == "deviated"
    assert {h["probe"]: h["holds"] for h in report["hypothesis"]}["error ratio"] is False
    assert report["run"]["variables"]["api_token"] == "***"
    assert report["queries"][3]["series"][0]["points"] > 100


def test_markdown_says_it_in_the_order_of_the_page(outputs: Outputs) -> None:
    titles = [line[3:] for line in outputs.markdown.read_text().splitlines() if line.startswith("## ")]
    assert titles == [
        "Hypothesis",
        "Timeline",
        "Charts",
        "Detection",
        "Who reacted",
        "Recovery",
        "What was touched, and put back",
        "Findings",
        "Action items",
        "Run it again",
    ]


def test_rendering_again_changes_nothing(outputs: Outputs) -> None:
    files = [outputs.html, outputs.markdown, outputs.json, outputs.junit, outputs.journal]
    before = [f.read_bytes() for f in files]
    render(outputs.html.parent)
    assert [f.read_bytes() for f in files] == before
    assert not list(outputs.html.parent.glob(".*"))


def test_the_key_chart_is_a_picture_or_nothing() -> None:
    assert png(analyse(logs.game_day())).startswith(b"\x89PNG")
    assert png(analyse([])) == b""
    nothing = ev.QueryDeclared(query=1, expression="up", purpose="observe", at=logs.START, seq=2)
    assert png(analyse([logs.started(), nothing])) == b""
