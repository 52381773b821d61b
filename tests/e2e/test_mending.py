"""What may be broken while a fault is in, but only for so long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.experiments import REPLICAS, SCALE, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot


@pytest.mark.parametrize(("within", "verdict"), [("60s", "passed"), ("1s", "deviated")])
def test_a_probe_may_be_broken_for_as_long_as_it_says(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot, within: str, verdict: str
) -> None:
    probe = {**REPLICAS, "within": within}
    del probe["during"]
    ended = gameday.run(write(tmp_path, steadyState=[probe], method=[{**SCALE, "for": "4s"}]))
    assert ended.verdict == verdict, ended.output
    broken = [e for e in ended.of("probed") if e.get("during") and e["state"] in ("broken", "no-data")]
    assert broken[0].get("ignored")
    assert broken[-1].get("ignored", False) == (verdict == "passed")


def test_it_says_so_when_nobody_ever_asks(gameday: Program, tmp_path: Path) -> None:
    probe = {**REPLICAS, "within": "60s"}
    path = write(tmp_path, steadyState=[probe], method=[SCALE])
    ended = gameday("validate", str(path))
    assert ended.code == 2
    assert "`during: ignore` never asks" in ended.output
