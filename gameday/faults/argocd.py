"""The `argocd` fault: an Application is rolled back, or a live object drifts from what git says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Spec
from gameday.faults.argocd_drift import Drift, DriftSpec
from gameday.faults.argocd_rollback import Rollback, RollbackSpec
from gameday.faults.base import Evidence, FaultPlan
from gameday.platform.world import World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger


class ArgoCDSpec(Spec):
    """One of the things that can go wrong with a deployment by GitOps."""

    rollback: RollbackSpec | None = Field(
        None, description="Deploy an earlier revision of an Application's history."
    )
    drift: DriftSpec | None = Field(
        None, description="Change a live object by hand, and time how soon Argo CD notices and corrects it."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.rollback is None) == (self.drift is None):
            raise ValueError("expected either `rollback` or `drift`")
        return self

    @property
    def settle_within(self) -> float:
        return self.rollback.settle_within if self.rollback else 60.0


class ArgoCD:
    """An Argo CD Application is rolled back, or one of its live objects drifts; through the cluster alone."""

    Spec: ClassVar[type[Spec]] = ArgoCDSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "argocd: {rollback: {application: inference}}"

    def __init__(self) -> None:
        self._rollback, self._drift = Rollback(), Drift()

    def _for(self, spec: Any) -> Rollback | Drift:
        return self._rollback if spec.rollback else self._drift

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        return await self._for(spec).plan(spec, world)

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        await self._for(plan.spec).inject(plan, world, ledger)

    async def hold(self, plan: FaultPlan, world: World, seconds: float) -> None:
        await self._for(plan.spec).hold(plan, world, seconds)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        return await self._for(plan.spec).settled(plan, world)
