"""An operation of another package that touches more than the plan of its fault names is refused, in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import write
from tests.e2e.test_outside_package import Elsewhere
from tests.safety.test_effects import made
from tests.support.packages import package
from tests.support.program import Program
from tests.support.snapshot import Snapshot

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from gameday.extend import RESTORED, Evidence, Fault, FaultPlan, Operation, Ref, Spec, Touch, Victim

NEAR, FAR = Ref("v1", "ConfigMap", "near", "platform"), Ref("v1", "ConfigMap", "far", "platform")
REACH = {"near": (Touch(NEAR),), "far": (Touch(NEAR), Touch(FAR)), "nothing": (), "name": "ConfigMap near"}


class ReachSpec(Spec):
    says: str


class Reach(Fault[ReachSpec]):
    '''Near is planned.'''
    Spec: ClassVar = ReachSpec
    example: ClassVar = "acmeReach: {says: near}"

    async def plan(self, spec, world):
        return FaultPlan(spec, (Victim(NEAR, "object"),), changes=("near",))

    async def inject(self, plan, step):
        kind = Silent if plan.spec.says == "silent" else Write
        await step.ledger.perform([kind(NEAR, plan.spec.says)])

    async def settled(self, plan, injected, world):
        found = await world.kube.get(NEAR)
        return Evidence("in" if (found.get("data") or {}).get("mark") else "out")


@dataclass(frozen=True)
class Silent(Operation):
    kind: ClassVar = "acme-silent"
    ref: Ref
    says: str

    @property
    def summary(self): return "a mark"

    def to_data(self): return {"op": self.kind, "ref": self.ref.to_data(), "says": self.says}

    @classmethod
    def from_data(cls, data): return cls(Ref.from_data(data["ref"]), data["says"])

    async def make(self, kube):
        for ref in (NEAR, FAR) if self.says != "near" else (NEAR,):
            await kube.patch(ref, {"data": {"mark": "x"}}, "merge")

    async def undo(self, kube):
        await kube.patch(NEAR, {"data": {"mark": None}}, "merge")
        return RESTORED

    async def audit(self, kube): return RESTORED


class Write(Silent):
    kind: ClassVar = "acme-write"

    def touches(self): return REACH[self.says]
"""
ENTRIES = """[gameday.faults]
acmeReach = acme_reach:Reach
[gameday.operations]
acme-silent = acme_reach:Silent
acme-write = acme_reach:Write
"""


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the package is installed."""
    return package(tmp_path / "packages", "acme_reach", MODULE, ENTRIES)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("near", ""),
        ("far", "touches ConfigMap platform/far, is outside of what was approved"),
        ("nothing", "Write does not say what it touches"),
        ("name", "Write does not say what it touches"),
        ("silent", "Silent does not say what it touches: its package has to add `touches`"),
    ],
)
async def test_an_operation_reaches_no_further_than_the_plan(
    says: str,
    words: str,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
    packages: dict[str, str],
) -> None:
    near = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "near", "namespace": "platform"}}
    far = near | {"metadata": {"name": "far", "namespace": "platform"}}
    async with made(kube, near), made(kube, far):
        file = write(tmp_path, method=[{"acmeReach": {"says": says}, "for": "1s"}])
        acme = Elsewhere(gameday.platform, tmp_path, Path(sys.executable))
        ended = acme.run(file, env=packages)
        assert not (await kube.get(Ref("v1", "ConfigMap", "far", "platform"))).get("data")
    if not words:
        assert ended.code == 0, ended.output
        return
    assert ended.code == 3, ended.output
    assert words in " ".join(ended.output.split())
    assert not ended.of("change")
