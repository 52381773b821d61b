"""A check that can't be made has the name of its findings: others go by that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gameday.experiment import registry
from gameday.platform.world import World
from gameday.safety.plan import Plan
from gameday.safety.preflight import PERMISSIONS, PROMETHEUS, SLURM, preflight, refusals
from gameday.safety.targets import CHECK as OTHER_RUNS
from tests.safety.cases import case
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast


async def test_checks_whose_questions_are_not_answered(tmp_path: Path) -> None:
    async with unruly(tmp_path) as server:
        kube = await connect(server)
    async with kube:
        asked = case(tmp_path, Plan(1, problems=[("1", "no target")]), World(kube))
        away = {f.check for f in refusals(await preflight(asked.experiment, asked.plan, asked.world))}
    assert {"cluster", "namespaces", "plan", "lever", PERMISSIONS, OTHER_RUNS} <= away
    assert (PERMISSIONS, OTHER_RUNS) == ("permissions", "other runs")


def test_the_checks_of_systems_have_the_names_of_those_who_need_the_systems() -> None:
    assert {PROMETHEUS, SLURM} <= set(registry.names(registry.CHECKS))
