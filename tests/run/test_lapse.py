"""The end of a fault that a step holds: seen in two looks in a row, and never where nothing could be seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from tests.e2e.experiments import write
from tests.e2e.test_outside_package import Elsewhere
from tests.safety.test_effects import made
from tests.support.packages import package
from tests.support.platforms import Platform
from tests.support.snapshot import Snapshot

MODULE = """
import os
from dataclasses import dataclass
from typing import ClassVar

from gameday.extend import RESTORED, Evidence, Fault, FaultPlan, Operation, PlatformError, Ref, Spec, Touch
from gameday.extend import Victim

PLACE = Ref("v1", "ConfigMap", "place", "platform")
LOOKS = os.environ["ACME_LOOKS"].split()  # while it is held


class TurnsSpec(Spec):
    pass


class Turns(Fault[TurnsSpec]):
    '''In and out as it is told.'''
    Spec: ClassVar = TurnsSpec
    example: ClassVar = "acmeTurns: {}"

    async def plan(self, spec, world):
        return FaultPlan(spec, (Victim(PLACE, "object"),), changes=("none",))

    async def inject(self, plan, step):
        await step.ledger.perform([Nothing(PLACE)])

    async def settled(self, plan, injected, world):
        if any(made.state == "undone" for made in injected.made):
            return Evidence("out")
        if not injected.data.get("held"):
            return Evidence("in", noted={"held": True})
        return Evidence(LOOKS.pop(0) if LOOKS else "in")


@dataclass(frozen=True)
class Nothing(Operation):
    kind: ClassVar = "acme-nothing"
    summary: ClassVar = "nothing"
    ref: Ref

    def touches(self): return (Touch(self.ref),)

    def to_data(self): return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data): return cls(Ref.from_data(data["ref"]))

    async def make(self, kube): return None

    async def undo(self, kube): return RESTORED

    async def audit(self, kube): return RESTORED

    async def ended_by_others(self, kube):
        if LOOKS[:1] == ["blind"]:
            raise PlatformError(LOOKS.pop(0))
"""
ENTRIES = """[gameday.faults]
acmeTurns = acme_turns:Turns
[gameday.operations]
acme-nothing = acme_turns:Nothing
"""


@pytest.mark.parametrize(
    ("looks", "verdict"), [("out out", "deviated"), ("out in out", "passed"), ("out blind out", "passed")]
)
async def test_two_looks_in_a_row_decide(
    looks: str, verdict: str, platform: Platform, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    env = package(tmp_path / "packages", "acme_turns", MODULE, ENTRIES) | {"ACME_LOOKS": looks}
    place = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "place", "namespace": "platform"}}
    acme = Elsewhere(platform, tmp_path, Path(sys.executable))
    async with made(kube, place):
        ended = acme.run(write(tmp_path, method=[{"acmeTurns": {}, "for": "8s"}]), env=env)
    assert ended.verdict == verdict, ended.output
