"""A run in which no fault went in has found nothing out, and no output says that all was as stated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gameday import events as ev
from gameday.report import render
from tests.report import logs

pytestmark = pytest.mark.fast
CONTEXT = ev.Preflight(
    check="target",
    level="refused",
    message="the context is 'prod', but the experiment is for 'staging-.*'",
    hint="choose another one with --context",
)
ENDINGS: dict[str, tuple[str, str, list[ev.Preflight]]] = {
    "wrong context": ("refused", "target: the context is 'prod', but …", [CONTEXT]),
    "not approved": ("refused", "the plan was not approved", []),
    "Ctrl-C": ("interrupted", "stopped by Ctrl-C; nothing was touched", []),
}


def _rendered(
    folder: Path, verdict: str, reason: str, said: Sequence[ev.Event]
) -> tuple[str, str, dict[str, Any]]:
    w = logs.Writer()
    w(0, logs.started())
    w(1, ev.Phase(phase="preflight"))
    for event in said:
        w(2, event)
    w(3, ev.Verdict(verdict=verdict, reason=reason, exit_code=4))
    logs.write(folder, w.sorted())
    render(folder)
    html, md = ((folder / name).read_text() for name in ("report.html", "report.md"))
    return html, md, json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_was_tried(ending: str, tmp_path: Path) -> None:
    html, md, data = _rendered(tmp_path, *ENDINGS[ending])
    for text in (html, md):
        assert "everything was as stated" not in text
        assert "Nothing was tried, so nothing was learned." in text
        assert "expected alert fired" not in text
        assert "expected alerts fired" not in text
        assert "probes held" not in text
        assert "not judged" not in text.partition("Timeline")[0].replace("not judged during", "")
    assert "| Detection | **—** | not asked |" in md
    assert "| Steady state | **—** | not asked |" in md
    refused = [f for f in data["findings"] if f["rule"] == "refused"]
    assert [f["title"] for f in refused] == [f"{p.check}: {p.message}" for p in ENDINGS[ending][2]]
    assert data["actions"] == [p.hint for p in ENDINGS[ending][2]]


def test_a_baseline_that_did_not_hold_is_something_learned(tmp_path: Path) -> None:
    broken = ev.Probed(probe="error ratio", state="broken", value=3.0, high=1.0, expected="< 1%")
    html, md, _ = _rendered(tmp_path, "aborted", "the baseline did not hold", [broken])
    for text in (html, md):
        assert "everything was as stated" not in text
        assert "0 of 2" not in text
    assert "| Detection | **—** | not asked |" in md
