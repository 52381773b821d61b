"""The figures of a run's report: of each phase only what was measured in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import SCALE, write
from tests.support.program import Ended, Program
from tests.support.promlike import PrometheusLike
from tests.support.snapshot import Snapshot
from tests.support.threads import LoopThread

HALF = b'{"status":"success","data":{"resultType":"scalar","result":[1,"0.2976"]}}'
LATENCY = {"name": "p99 latency", "prometheus": "latency", "is": "< 300ms", "timeout": "2s"}


@pytest.fixture
def prometheus(gameday: Program) -> Iterator[PrometheusLike]:
    thread, fake = LoopThread("prometheus"), PrometheusLike(value=lambda _, __: 0.2976)
    fake.lie = HALF
    thread.call(fake.start())
    gameday.environment["GAMEDAY_PROMETHEUS_URL"] = fake.url
    yield fake
    thread.call(fake.stop())
    thread.close()


def _row(ended: Ended) -> dict[str, Any]:
    assert ended.folder is not None
    (row,) = json.loads((ended.folder / "report.json").read_text())["hypothesis"]
    assert isinstance(row, dict)
    return row


def test_the_worst_while_a_fault_is_in_was_measured_then_and_against_its_bound(
    gameday: Program, prometheus: PrometheusLike, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A question that was asked before the fault says nothing of later, though its answer comes then."""
    prometheus.delay = 0.5
    probe = LATENCY | {"during": "< 600ms", "interval": "700ms"}
    method = [{**SCALE, "for": "3s"}]
    ended = gameday.run(write(tmp_path, method=method, steadyState=[probe], abortIf="none"))
    assert ended.verdict == "passed", ended.output
    row = _row(ended)
    assert row["worst"]["expected"] == "< 600ms"
    assert row["worst"]["margin"] == pytest.approx(0.504)
    asked = [e for e in ended.of("probed") if e.get("during")]
    assert row["worst"]["at"] >= asked[0]["at"]
    assert row["measured"] >= 2
    assert ended.folder is not None
    told = (ended.folder / "report.md").read_text()
    assert "298 ms at" in told
    assert f"`< 600ms`, of {row['measured']} measurements" in told
    version = json.loads((ended.folder / "plan.json").read_text())["cluster"]["version"]
    assert f"<dt>Kubernetes</dt><dd>{version}</dd>" in (ended.folder / "report.html").read_text()


def test_a_broken_bound_is_told_in_its_own_unit(
    gameday: Program, prometheus: PrometheusLike, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    probe = LATENCY | {"during": "< 200ms", "interval": "700ms"}
    method = [{**SCALE, "for": "3s"}]
    ended = gameday.run(write(tmp_path, method=method, steadyState=[probe], abortIf="none"))
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "p99 latency did not hold while a fault was in force: 297.6 ms is not < 200ms" in " ".join(
        ended.output.split()
    )
