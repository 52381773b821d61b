"""What restorers did with a run that died is in its log and in its report, wherever they did it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import SCALE, write
from tests.support.program import Program, read_events
from tests.support.snapshot import Snapshot

DEPLOYMENT = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")


def _killed(gameday: Program, folder: Path) -> str:
    """The name of a run that died while its fault was in."""
    with gameday.started(write(folder, method=[{**SCALE, "for": "60s"}])) as run:
        run.fault_is("in")
        return run.kill()


def _report(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text())
    assert isinstance(report, dict)
    return report


def _says_restored(folder: Path, by: str) -> None:
    report = _report(folder)
    assert by in report["why"]
    assert "put back what the run left" in report["why"]
    assert [t["state"] for t in report["touched"]] == ["restored"]
    assert not any("gameday recover" in command for command in report["again"])
    assert not any("gameday recover" in action for action in report["actions"])
    assert "not yet restored" not in (folder / "report.html").read_text()


def test_a_recovery_goes_into_the_log_and_the_report(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    name = _killed(gameday, tmp_path)
    folder = gameday.reports / name
    before = read_events(folder)
    with (folder / "events.jsonl").open("ab") as log:
        log.write(b'[]\n{"seq":null,"type":"note","author":"a","text":"b"}\n')  # as somebody wrote into it
        log.write(b'{"seq":998,"type":["x"]}\n')
        log.write(b'{"seq":999,"type":"no')  # as a kill leaves it
    ended = gameday("recover", "--run", name, "--force", "--reports", gameday.reports)
    assert ended.code == 0, ended.output
    assert "which the run had changed (spec.replicas: 2 → 0)" in ended.output
    added = read_events(folder)[len(before) + 3 :]
    assert [e["seq"] for e in added] == [before[-1]["seq"] + n for n in range(1, len(added) + 1)]
    assert (added[0]["type"], added[0]["state"]) == ("restoration", "begun")
    assert (added[-1]["type"], added[-1]["state"]) == ("restoration", "restored")
    assert {"change", "audited"} <= {e["type"] for e in added}
    _says_restored(folder, "(gameday recover)")
    assert _report(folder)["run"]["ended"] == before[-1]["at"]


def test_a_recovery_from_elsewhere_is_learned_from_the_cluster(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    name = _killed(gameday, tmp_path)
    folder = gameday.reports / name
    first = gameday("report", name, "--reports", gameday.reports)
    assert "its record is in" in first.output
    assert "not yet restored" in _report(folder)["why"]
    elsewhere = gameday("recover", "--run", name, "--force", "--reports", tmp_path / "elsewhere")
    assert elsewhere.code == 0, elsewhere.output
    again = gameday("recover", "--run", name)
    assert "1 change undone by" in again.output, again.output
    blind = gameday("report", name, "--reports", gameday.reports, "--context", "nowhere")
    assert (blind.code, "is not known" in blind.output) == (0, True), blind.output
    assert gameday("report", name, "--reports", gameday.reports).code == 0
    _says_restored(folder, "(gameday recover)")


@pytest.mark.parametrize("known", [True, False], ids=["reports", "from"])
async def test_what_somebody_else_put_back_is_theirs(
    known: bool, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    name = await asyncio.to_thread(_killed, gameday, tmp_path)
    kube.write_as("platform-team")
    await kube.patch(DEPLOYMENT, {"spec": {"replicas": 2}}, "merge")
    how = ["--run", name, "--reports", gameday.reports] if known else ["--from", gameday.reports / name]
    ended = await asyncio.to_thread(gameday, "recover", "--force", *how)
    assert ended.code == 0, ended.output
    assert "as before already: spec.replicas is platform-team's" in ended.output
    assert "platform-team" in (gameday.reports / name / "report.md").read_text()
