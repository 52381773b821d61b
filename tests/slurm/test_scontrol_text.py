"""scontrol where it gives no JSON: its text is read, whatever words the refusal has."""

from __future__ import annotations

import pytest

from gameday.platform.errors import Unreachable
from gameday.platform.slurm.scontrol import Scontrol

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "words",
    [
        "scontrol: unrecognized option '--json'",
        "scontrol: error: cannot find serializer plugin for serializer/json",
        "scontrol: fatal: JSON plugin is not installed",
        "",
    ],
)
async def test_a_scontrol_without_json_is_read_by_its_text(words: str) -> None:
    asked: list[list[str]] = []

    async def run(arguments: list[str]) -> tuple[int, str, str]:
        asked.append(arguments)
        if "--json" in arguments:
            return 1, "", words
        return 0, "PartitionName=gpu State=UP TotalNodes=2 Nodes=gpu-[0-1]\n", ""

    slurm = Scontrol(run)
    assert [p.name for p in await slurm.partitions()] == ["gpu"]
    await slurm.partitions()
    assert sum("--json" in a for a in asked) == 1  # what it can't do is asked for once


async def test_a_controller_that_is_away_says_so_and_json_is_tried_again() -> None:
    asked: list[list[str]] = []

    async def run(arguments: list[str]) -> tuple[int, str, str]:
        asked.append(arguments)
        return 1, "", "Unable to contact slurm controller (connect failure)"

    slurm = Scontrol(run)
    for _ in range(2):
        with pytest.raises(Unreachable, match="Unable to contact"):
            await slurm.partitions()
    assert sum("--json" in a for a in asked) == 2
