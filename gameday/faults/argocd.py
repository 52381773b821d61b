"""The `argocd` fault: an Application is rolled back, or a live object drifts from what git says."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gameday.experiment.model import Spec
from gameday.extend import OneOf, OneOfSpec
from gameday.faults.argocd_drift import Drift, DriftSpec
from gameday.faults.argocd_rollback import Rollback, RollbackSpec


class ArgoCDSpec(OneOfSpec):
    """One of the things that can go wrong with a deployment by GitOps."""

    ways: ClassVar[tuple[str, ...]] = ("rollback", "drift")

    rollback: RollbackSpec | None = Field(
        None, description="Deploy an earlier revision of an Application's history."
    )
    drift: DriftSpec | None = Field(
        None, description="Change a live object by hand, and time how soon Argo CD notices and corrects it."
    )


class ArgoCD(OneOf[ArgoCDSpec]):
    """An Argo CD Application is rolled back, or one of its live objects drifts; through the cluster alone."""

    Spec: ClassVar[type[Spec]] = ArgoCDSpec
    example: ClassVar[str] = "argocd: {rollback: {application: inference}}"
    variants = {"rollback": Rollback, "drift": Drift}  # noqa: RUF012
