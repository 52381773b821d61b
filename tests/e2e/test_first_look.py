"""Every probe is asked once before anything is touched: plans show values, and refuse what can't be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import REPLICAS, SCALE, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about Prometheus")

QUEUE = {"resource": "deployment/job-queue-controller", "namespace": "platform"}
UNSEEN: dict[str, tuple[dict[str, Any], str]] = {
    "object": (
        {"kubernetes": {**QUEUE, "resource": "deployment/queue", "condition": "Available"}},
        "no Deploy",
    ),
    "field": ({"kubernetes": {**QUEUE, "jsonPath": "{.status.readyReplica}"}}, "{.status.readyReplica}"),
    "metric": ({"prometheus": "sum(inference_request_total)"}, "no data"),
    "query": ({"prometheus": "up * on(nothing) up"}, "many-to-many"),
}


def _words(text: str) -> str:
    return " ".join(text.split())


def test_a_plan_shows_each_value_against_its_bound(gameday: Program, tmp_path: Path) -> None:
    going = {"name": "queue goes", "kubernetes": REPLICAS["kubernetes"], "is": "< 1"}
    high = {"name": "queue is large", "kubernetes": REPLICAS["kubernetes"], "is": ">= 200"}
    file = write(tmp_path, method=[SCALE], steadyState=[REPLICAS, high], abortIf=[going])
    ended = gameday("plan", file)
    assert ended.code == 0, ended.output
    assert "✓ steady state: queue controller: 2, >= 2" in ended.output
    assert "! steady state: queue is large: 2, and not >= 200: a run waits" in ended.output
    assert "✓ abort conditions: queue goes: 2, aborts at < 1" in ended.output


@pytest.mark.parametrize("where", ["steadyState", "abortIf"])
def test_the_baseline_waits_for_a_value_that_is_not_a_number_yet(
    where: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A share of no traffic is 0/0. What is there, and can't be judged, may be judged a moment later."""
    check = {"name": "errors", "prometheus": "vector(0) / vector(0)", "is": "> 5%", "interval": "500ms"}
    file = write(
        tmp_path, method=[SCALE], **{where: [check] if where == "abortIf" else [{**check, "is": "< 5%"}]}
    )
    planned = gameday("plan", file)
    assert planned.code == 0, planned.output
    assert "errors: no data (the value is NaN: 0/0, as of a share of no traffic): a run waits" in _words(
        planned.output
    )
    assert "`… >= 0 or vector(0)`" in _words(planned.output)
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert [e["phase"] for e in ended.of("phase")][:2] == ["preflight", "baseline"]
    assert "the value is NaN: 0/0, as of a share of no traffic" in _words(ended.output)


def test_what_the_message_advises_of_nan_is_judged(gameday: Program, tmp_path: Path) -> None:
    query = "vector(0) / vector(0) >= 0 or vector(0)"
    check = {"name": "errors", "prometheus": query, "is": "< 5%", "interval": "500ms"}
    planned = gameday("plan", write(tmp_path, method=[SCALE], steadyState=[check]))
    assert planned.code == 0, planned.output
    assert "✓ steady state: errors: 0" in planned.output


@pytest.mark.parametrize("where", ["steadyState", "abortIf"])
@pytest.mark.parametrize("what", UNSEEN)
def test_what_can_not_be_seen_is_refused_at_once(
    what: str, where: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    probe, words = UNSEEN[what]
    check = {"name": "unseen", **probe, "is": "< 5", "interval": "500ms"}
    checks = [check] if where == "abortIf" else [REPLICAS, check]
    file = write(tmp_path, method=[SCALE], **{where: checks})
    planned = gameday("plan", file)
    assert planned.code == 4, planned.output
    assert words in _words(planned.output)
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert words in _words(ended.output)
    assert [e["phase"] for e in ended.of("phase")] == ["preflight"]
