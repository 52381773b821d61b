"""Hooks of another package that hang, and go on when they are cancelled, hold up no undo and outlive none."""

from __future__ import annotations

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
from tests.support.packages import package
from tests.support.polling import until
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about hooks of another package")

MARKED = Ref("v1", "ConfigMap", "marked", "platform")
AS_IT_WAS = {"mark": "none"}
MODULE = """
import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gameday.extend import RESTORED, Edit, Evidence, Fault, FaultPlan, Operation, Patch, Ref, Refused, Spec
from gameday.extend import Probe, Touch, Undone, Victim

MARKED = Ref("v1", "ConfigMap", "marked", "platform")
SAID = Path(os.environ["ACME_SAID"])
TASKS = []  # that nobody but this package knows


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


class StubbornSpec(Spec):
    hook: str


class Stubborn(Fault[StubbornSpec]):
    '''Goes on changing things when it is told to end.'''
    Spec: ClassVar = StubbornSpec
    example: ClassVar = "acmeStubborn: {hook: inject}"

    async def plan(self, spec, world):
        return FaultPlan(spec, (Victim(MARKED, "object"),), changes=("a mark",))

    async def inspect(self, plan, step):
        if plan.spec.hook == "inspect":
            await go_on(step)
        return []

    async def inject(self, plan, step):
        if plan.spec.hook == "task":
            TASKS.append(asyncio.create_task(go_on(step)))
        await step.ledger.perform([await Patch.of(step.kube, MARKED, Edit(("data", "mark"), "x"))])
        if plan.spec.hook == "inject":
            await go_on(step)

    async def hold(self, plan, step, seconds):
        if plan.spec.hook == "hold":
            await go_on(step)
        await super().hold(plan, step, seconds)

    async def settled(self, plan, injected, world):
        return Evidence("in" if await is_marked(world) else "out")


async def go_on(step):
    begun = asyncio.create_task(step.ledger.perform([Late(MARKED)]))
    while True:
        try:
            if TASKS or asyncio.current_task().cancelling():
                await step.ledger.perform([Late(MARKED)])
            else:
                await asyncio.sleep(0.1)
        except Refused as refused:
            SAID.write_text(str(refused))
        except asyncio.CancelledError:
            pass


@dataclass(frozen=True)
class Late(Operation):
    '''Takes longer than anybody waits for a hook.'''
    kind: ClassVar = "acme-late"
    summary: ClassVar = "late"
    ref: Ref

    def touches(self): return (Touch(self.ref),)

    def to_data(self): return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data): return cls(Ref.from_data(data["ref"]))

    async def make(self, kube):
        if not SAID.exists():
            SAID.write_text("begun")
        await asyncio.sleep(2)
        await kube.patch(self.ref, {"data": {"late": "x"}}, "merge")

    async def undo(self, kube):
        await kube.patch(self.ref, {"data": {"late": None}}, "merge")
        return RESTORED

    async def audit(self, kube):
        late = (await kube.get(self.ref)).get("data", {}).get("late")
        return Undone("failed", "it is there") if late else RESTORED


class Deaf(Probe):
    '''Never answers, and takes no notice of its time-out.'''
    Spec: ClassVar = Spec

    async def measure(self, spec, world):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
"""
ENTRIES = """[gameday.probes]
acmeDeaf = acme_hung:Deaf
[gameday.faults]
acmeHung = acme_hung:Hung
acmeStubborn = acme_hung:Stubborn
[gameday.operations]
acme-late = acme_hung:Late
"""


@pytest.fixture
async def acme(gameday: Program, kube: Kube, tmp_path: Path) -> AsyncIterator[Elsewhere]:
    """gameday with the package, and what its fault marks."""
    there = Elsewhere(gameday.platform, tmp_path, Path(sys.executable))
    there.environment |= package(tmp_path / "packages", "acme_hung", MODULE, ENTRIES)
    there.environment |= {"ACME_SAID": str(tmp_path / "said")}
    meta = {"name": MARKED.name, "namespace": MARKED.namespace}
    async with made(kube, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": AS_IT_WAS}):
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


def test_a_run_ends_though_nobody_answers_whether_a_fault_is_out(
    acme: Elsewhere, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with acme.started(write(tmp_path, method=[{"acmeHung": {"after": -1}, "for": "1s"}])) as run:
        run.until(lambda e: e["type"] == "verdict", "a verdict")
        ended = run.ended()
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "not seen out within 1 s: the look was not answered" in " ".join(ended.output.split())


def test_a_command_ends_though_a_probe_does_not(acme: Elsewhere, tmp_path: Path) -> None:
    deaf = {"name": "deaf", "acmeDeaf": {}, "is": ">= 1", "timeout": "1s"}
    file = write(tmp_path, method=[{"acmeHung": {"after": 0}, "for": "1s"}], steadyState=[deaf])
    ended = acme("plan", file)
    assert "could not be asked (did not answer within 1 s)" in " ".join(ended.output.split())
    assert ended.code == 0, ended.output


@pytest.mark.parametrize("hook", ["inspect", "inject", "hold", "task"])
async def test_an_undo_waits_for_no_hook_and_takes_back_what_the_hook_had_begun(
    hook: str, acme: Elsewhere, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A change under way is undone when it was made, and none begins afterwards, from whatever task."""
    said = tmp_path / "said"
    with acme.started(write(tmp_path, method=[{"acmeStubborn": {"hook": hook}, "for": "120s"}])) as run:
        until(said.exists, "a hook has begun a change")
        if hook in ("hold", "task"):
            run.fault_is("in")
        run.signal(signal.SIGINT)
        ended = run.ended()
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    assert "its undo has begun, and the step may change nothing more" in said.read_text()
    assert (await kube.get(MARKED))["data"] == AS_IT_WAS
    late = [c["state"] for c in ended.of("change") if c["operation"] == "acme-late"]
    assert late[-1] == "undone", late
    assert "asyncio" not in ended.output
