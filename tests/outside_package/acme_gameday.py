"""A fault for gameday: one of acme's feature flags is switched, and switched back.

A service's flags are one JSON text in a ConfigMap. Patch, the operation for fields, would write the whole
text, and take back with it what others changed there meanwhile; so this package brings an operation of its
own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.extend import (
    RESTORED,
    Case,
    DNSLabel,
    Evidence,
    Fault,
    FaultPlan,
    Findings,
    Injected,
    Object,
    ObjectName,
    Operation,
    PlanError,
    Ref,
    Refused,
    Spec,
    Step,
    Touch,
    Undone,
    Victim,
    World,
    ok,
    refused,
    write_if,
)

if TYPE_CHECKING:
    from gameday.extend import Kube

TEXT = "flags.json"
FROZEN = "acme.example/frozen"  # the annotation by which acme's people say why no flag is to be switched now
SWITCHED = "acme.example/switched-"  # with a flag: the annotation that says which run switched it


class FlagSpec(Spec):
    """Which flag of which service, and what it is to be."""

    service: ObjectName = Field(description="The ConfigMap that holds the service's flags.")
    namespace: DNSLabel = Field(description="Its namespace.")
    flag: str = Field(description="The flag.")
    value: bool = Field(description="What it is to be.")


class Flag(Fault[FlagSpec]):
    """A feature flag is switched; switched back where it is still as this run left it."""

    Spec: ClassVar[type[Spec]] = FlagSpec
    example: ClassVar[str] = "acmeFlag: {service: shop, namespace: platform, flag: cache, value: false}"

    async def plan(self, spec: FlagSpec, world: World) -> FaultPlan[FlagSpec]:
        ref = Ref("v1", "ConfigMap", spec.service, spec.namespace)
        if spec.namespace not in world.namespaces:
            raise PlanError(f"{ref} is outside the target: add {spec.namespace} to spec.target.namespaces")
        found = await world.kube.find(ref)
        if found is None:
            raise PlanError(f"there is no {ref} in {world.kube.context}")
        before = flags(found).get(spec.flag)
        if before is spec.value:
            raise PlanError(f"{ref}: {spec.flag} is {before} already: nothing would change")
        return FaultPlan(
            spec,
            (Victim(Ref.of(found), "object"),),
            changes=(f"{ref}: {spec.flag} from {before} to {spec.value}",),
            needs=(f"patch configmaps {spec.namespace}",),
            data={"before": before},
        )

    async def inject(self, plan: FaultPlan[FlagSpec], step: Step) -> None:
        spec, ref = plan.spec, plan.victims[0].ref
        switch = SwitchFlag(ref, step.world.run, spec.flag, plan.data["before"], spec.value)
        await step.ledger.perform([switch])

    async def settled(self, plan: FaultPlan[FlagSpec], injected: Injected, world: World) -> Evidence:
        """In while the flag is as it was asked for. (Acme's replicas could be asked what they go by.)"""
        ref, spec = plan.victims[0].ref, plan.spec
        found = await world.kube.find(ref)
        if found is None:
            return Evidence("out", (f"{ref} is gone",))
        now = flags(found).get(spec.flag)
        return Evidence("in" if now is spec.value else "out", (f"{ref}: {spec.flag} is {now}",))


@dataclass(frozen=True)
class SwitchFlag(Operation):
    """One flag of the text becomes another; undone if nobody has switched that flag since."""

    kind: ClassVar[str] = "acme-flag"
    ref: Ref
    run: str
    flag: str
    before: bool | None  # None: it was not there
    after: bool

    @property
    def summary(self) -> str:
        return f"{self.flag}: {self.before} → {self.after}"

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        data = {"run": self.run, "flag": self.flag, "before": self.before, "after": self.after}
        return {"op": self.kind, "ref": self.ref.to_data(), **data}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> SwitchFlag:
        ref = Ref.from_data(data["ref"])
        return cls(ref, data["run"], data["flag"], data["before"], data["after"])

    async def make(self, kube: Kube) -> None:
        """Raises Refused when the flag is not what it was when the run was planned."""
        while True:
            found = await kube.get(self.ref)
            if self._ours(found):  # the answer to an earlier attempt was lost
                return
            if (now := flags(found).get(self.flag)) is not self.before:
                raise Refused(f"{self.ref}: {self.flag} was {self.before} when planned, but now it is {now}")
            if await self._write(kube, found, self.after, self.run):
                return

    async def undo(self, kube: Kube) -> Undone:
        while True:
            found = await kube.find(self.ref)
            if found is None:
                return Undone("kept", "the ConfigMap is gone, so there is nothing to switch back")
            if not self._ours(found) or await self._write(kube, found, self.before, None):
                return await self.audit(kube)

    async def audit(self, kube: Kube) -> Undone:
        found = await kube.find(self.ref)
        if found is None:
            return Undone("kept", "the ConfigMap is gone")
        if self._ours(found):
            return Undone("failed", f"still switched: {self.summary}")
        now = flags(found).get(self.flag)
        return RESTORED if now is self.before else Undone("kept", f"{self.flag} is {now} by someone else")

    def _ours(self, found: Object) -> bool:
        """By the mark, and not by the value alone: somebody else may have wanted just that value."""
        mark = (found["metadata"].get("annotations") or {}).get(SWITCHED + self.flag)
        return mark == self.run and flags(found).get(self.flag) is self.after

    async def _write(self, kube: Kube, found: Object, value: bool | None, run: str | None) -> bool:
        """Write exactly the version that was read; False when somebody was faster."""
        new = {k: v for k, v in (flags(found) | {self.flag: value}).items() if v is not None}
        mark = {"annotations": {SWITCHED + self.flag: run}}
        body = {"metadata": mark, "data": {TEXT: json.dumps(new)}}
        return await write_if(kube, found, body) is not None


def flags(found: Object) -> dict[str, Any]:
    """The flags in a ConfigMap."""
    return dict(json.loads((found.get("data") or {}).get(TEXT) or "{}"))


async def frozen(case: Case) -> Findings:
    """No run switches flags that acme's people have frozen."""
    planned = [s.fault for s in case.plan.steps.values() if s.kind == "acmeFlag"]
    if not planned:
        return []
    found = [await case.world.kube.get(plan.victims[0].ref) for plan in planned]
    for flag in found:
        if why := (flag["metadata"].get("annotations") or {}).get(FROZEN):
            return [refused("acme", f"the flags of {Ref.of(flag)} are frozen: {why}", "wait, or ask acme")]
    return [ok("acme", "no flags are frozen")]
