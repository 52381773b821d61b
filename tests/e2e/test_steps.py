"""How steps follow one another: beside, after, again, and with steady state between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import SCALE, write
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about the order of steps")


def _cordon(node: str, seconds: str = "1s") -> dict[str, Any]:
    return {"name": f"cordon {node}", "cordon": {"nodes": {"names": [node]}}, "for": seconds}


def _order(ended: Ended) -> list[str]:
    return [f"{e['step']} {e['state']}" for e in ended.of("fault") if e["state"] in ("in", "out")]


def test_steps_in_sequence_and_again(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    method: list[dict[str, Any]] = [
        {"sequence": [_cordon("gpu-0"), {"wait": "500ms"}]},
        {"repeat": {"times": 2, "steps": [_cordon("gpu-1")]}},
    ]
    ended = gameday.run(write(tmp_path, method=method))
    assert ended.code == 0, ended.output
    assert _order(ended) == ["1.1 in", "1.1 out", "2.1 in", "2.1 out", "2.1 in", "2.1 out"]


def test_parallel_steps_are_in_force_together(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(
        write(tmp_path, method=[{"parallel": [_cordon("gpu-0", "2s"), _cordon("gpu-1", "2s")]}])
    )
    assert ended.code == 0, ended.output
    assert sorted(_order(ended)[:2]) == ["1.1 in", "1.2 in"]


def test_a_parallel_step_that_fails_takes_the_others_back(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    failing = {
        "chaostoolkit": {
            "type": "action",
            "name": "fails",
            "provider": {
                "type": "python",
                "module": "os",
                "func": "listdir",
                "arguments": {"path": "/nowhere"},
            },
        }
    }
    ended = gameday.run(
        write(
            tmp_path,
            method=[{"parallel": [_cordon("gpu-0", "30s"), failing]}],
            blastRadius={"nodes": 1, "gpus": 8, "others": ["fails"]},
        )
    )
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert {e["state"] for e in ended.of("audited") if "gpu-0" in e["object"]} <= {"restored"}


def test_steady_state_must_return_between_steps(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=[{**SCALE, "for": "1s"}, _cordon("gpu-0")]))
    assert ended.code == 0, ended.output
    events = ended.events
    second = next(i for i, e in enumerate(events) if e["type"] == "step-started" and e["step"] == "2")
    before = [e for e in events[:second] if e["type"] == "probed"]
    assert before[-1]["state"] == "holds"


def test_the_same_seed_picks_the_same_targets(gameday: Program, tmp_path: Path) -> None:
    nodes = {"selector": "nvidia.com/gpu.present=true", "pick": 2}
    file = write(tmp_path, method=[{"cordon": {"nodes": nodes}}])

    def picked(seed: int) -> list[str]:
        output = gameday("plan", file, "--seed", seed).output
        return [line for line in output.splitlines() if "cordon on gpu-" in line]

    assert picked(7) == picked(7)
    assert len({tuple(picked(seed)) for seed in range(1, 6)}) > 1


def test_a_note_from_another_terminal_is_in_the_log(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[_cordon("gpu-0", "8s")])) as run:
        run.fault_is("in")
        noted = gameday("note", run.folder.name, "the pager rang", "--author", "ada")
        assert noted.code == 0, noted.output
        run.until(lambda e: e["type"] == "note", "the note is in the log")
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert ended.of("note")[0] == {**ended.of("note")[0], "author": "ada", "text": "the pager rang"}
    assert ended.folder is not None
    assert "the pager rang" in (ended.folder / "report.md").read_text()
