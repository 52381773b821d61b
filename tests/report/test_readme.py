"""reports/README.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gameday.report import render
from tests.report import logs, readme

pytestmark = pytest.mark.fast


def test_the_generated_facts_are_in_step() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_facts(text) == text, "write them anew: python -m tests.report.readme"
    assert text.count(readme.END) == len(readme.FACTS)


BY_THE_RUN = {"experiment.json", "plan.json", "ledger.jsonl", "slack.json"}  # the session, the ledger, Slack


def test_the_table_is_of_the_files_that_are_written(tmp_path: Path) -> None:
    render(logs.write(tmp_path, logs.game_day()))
    told = set(re.findall(r"^\| `([^`/]+\.[a-z]+)`", readme.README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {p.name for p in tmp_path.iterdir()} == told - BY_THE_RUN
