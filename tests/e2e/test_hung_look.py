"""A look that hangs, and hangs on when it is cancelled, holds up no undo."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import write
from tests.e2e.test_outside_package import Elsewhere
from tests.safety.test_effects import made
from tests.support.platforms import ROOT
from tests.support.polling import until
from tests.support.program import Program
from tests.support.snapshot import Snapshot

MARKED = Ref("v1", "ConfigMap", "marked", "platform")
MODULE = """
import asyncio
import os
from pathlib import Path
from typing import ClassVar

from gameday.extend import Edit, Evidence, Fault, FaultPlan, Patch, Ref, Spec, Victim

MARKED = Ref("v1", "ConfigMap", "marked", "platform")
SAID = Path(os.environ["ACME_SAID"])


class HungSpec(Spec):
    after: int


class Hung(Fault[HungSpec]):
    '''Hangs in a look after so many that did not, until its change is undone; gives up after a while.'''
    Spec: ClassVar = HungSpec
    example: ClassVar = "acmeHung: {after: 1}"

    async def plan(self, spec, world):
        return FaultPlan(spec, (Victim(MARKED, "object"),), changes=("a mark",))

    async def inject(self, plan, step):
        await step.ledger.perform([await Patch.of(step.kube, MARKED, Edit(("data", "mark"), "x"))])

    async def settled(self, plan, injected, world):
        looks = injected.data.get("looks", 0)
        if not await is_marked(world):
            await (nobody_answers() if plan.spec.after < 0 else asyncio.sleep(0))
            return Evidence("out")
        if looks >= plan.spec.after >= 0:
            await hang(world)
        return Evidence("in", noted={"looks": looks + 1})

    def settle_within(self, spec):
        return 1.0 if spec.after < 0 else 60.0

    async def hold(self, plan, step, seconds):
        try:
            await super().hold(plan, step, seconds)
        finally:
            await asyncio.sleep(1)  # longer than a look may take to end
            SAID.with_suffix(".held").write_text(str(await is_marked(step.world)))


async def hang(world):
    SAID.write_text("hangs")
    try:
        await asyncio.Event().wait()
    finally:
        for _ in range(100):
            if not await is_marked(world):
                raise RuntimeError("nobody is interested in that any more")
            await asyncio.sleep(0.2)
        SAID.write_text("in vain")


async def nobody_answers():
    try:
        await asyncio.sleep(90)
    finally:
        await asyncio.sleep(90)


async def is_marked(world):
    return (await world.kube.get(MARKED)).get("data", {}).get("mark") == "x"
"""


@pytest.fixture
async def acme(gameday: Program, kube: Kube, tmp_path: Path) -> AsyncIterator[Elsewhere]:
    """gameday with the package, and what its fault marks."""
    info = tmp_path / "packages/acme_hung-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-hung\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[gameday.faults]\nacmeHung = acme_hung:Hung\n")
    (info.parent / "acme_hung.py").write_text(MODULE)
    there = Elsewhere(gameday.platform, tmp_path, Path(sys.executable))
    there.environment |= {
        "PYTHONPATH": f"{info.parent}{os.pathsep}{ROOT}",
        "ACME_SAID": str(tmp_path / "said"),
    }
    meta = {"name": MARKED.name, "namespace": MARKED.namespace}
    async with made(kube, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}):
        yield there


@pytest.mark.parametrize("after", [0, 1])
def test_an_undo_does_not_wait_for_a_look(
    after: int, acme: Elsewhere, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Neither for the one that shows whether the fault is in, nor for one while the fault is held."""
    said = tmp_path / "said"
    with acme.started(write(tmp_path, method=[{"acmeHung": {"after": after}, "for": "120s"}])) as run:
        until(said.exists, "a look hangs")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert said.read_text() == "hangs"
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    assert "never retrieved" not in ended.output
    if after:  # the fault's own end of its hold comes before the undo
        assert said.with_suffix(".held").read_text() == "True"


def test_a_run_ends_though_nobody_answers_whether_a_fault_is_out(
    acme: Elsewhere, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with acme.started(write(tmp_path, method=[{"acmeHung": {"after": -1}, "for": "1s"}])) as run:
        run.until(lambda e: e["type"] == "verdict", "a verdict")
        ended = run.ended()
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "not seen out within 1 s: the look was not answered" in " ".join(ended.output.split())
