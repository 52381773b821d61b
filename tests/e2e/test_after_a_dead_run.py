"""A run after one that died: the verdict names that one, what it left, and how to restore it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

LEFT = {
    "scale": (SCALE, "Deployment platform/job-queue-controller (spec.replicas: 2 → 0)"),
    "cordon": (CORDON, "Node gpu-0 ("),
}


@pytest.mark.parametrize("fault", LEFT)
def test_the_same_experiment_is_refused_for_what_the_dead_run_left(
    fault: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step: dict[str, Any]
    step, left = LEFT[fault]
    # Nothing that is measured decides whether it may begin.
    there = {"name": "it is there", "is": ">= 0", "interval": "500ms", "during": "ignore"}
    there["kubernetes"] = {  # type: ignore[assignment]
        "resource": "deployment/job-queue-controller",
        "namespace": "platform",
        "jsonPath": "{.metadata.generation}",
    }
    file = write(tmp_path, method=[{**step, "for": "60s"}], steadyState=[there])
    with gameday.started(file) as run:
        run.fault_is("in")
        died = run.kill()
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    [verdict] = ended.of("verdict")
    assert verdict["reason"].startswith(f"other runs: run {died} died and left "), verdict
    assert left in verdict["reason"]
    assert f"gameday recover --run {died}" in ended.output
    assert "elsewhere" not in ended.output
    planned = gameday("plan", file)
    assert (planned.code, f"run {died} died and left" in planned.output) == (4, True), planned.output
    assert gameday("recover", "--run", died, "--force").code == 0
