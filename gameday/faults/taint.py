"""Taint: nodes repel the pods that do not tolerate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gameday.experiment.model import EndingSpec, Spec
from gameday.experiment.values import LabelValue, QualifiedName
from gameday.faults.nodes import NodeEdit, NodeEditSpec
from gameday.ledger.edits import Edit
from gameday.platform.effect import NodeState

if TYPE_CHECKING:
    from gameday.extend import FaultPlan
    from gameday.platform.effect import Effect
    from gameday.platform.world import World


class TaintSpec(NodeEditSpec, EndingSpec):
    """Which nodes, and the taint."""

    key: QualifiedName = Field(description="The taint's key.")
    value: LabelValue = Field("", description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        description="What it does to pods."
    )


class Taint(NodeEdit[TaintSpec]):
    """Nodes get a taint; with NoExecute, pods that do not tolerate it are evicted by the cluster."""

    Spec: ClassVar[type[Spec]] = TaintSpec
    example: ClassVar[str] = (
        "taint: {nodes: {names: [gpu-0]}, key: gameday.dev/broken, value: 'true', effect: NoExecute}"
    )

    def words(self, spec: TaintSpec) -> str:
        value = f"={spec.value}" if spec.value else ""
        return f"taint {spec.key}{value}:{spec.effect}"

    async def effects(self, plan: FaultPlan[TaintSpec], world: World) -> tuple[Effect, ...]:
        """The pods that the taint ends, by their tolerations."""
        from gameday.faults.losing import by_taint

        spec = plan.spec
        if spec.effect != "NoExecute":
            return ()
        taint = {"key": spec.key, "value": spec.value, "effect": spec.effect}
        nodes = [v.ref.name for v in plan.victims if v.ref.name not in plan.data["already"]]
        return await by_taint(nodes, taint, "ends: the taint is not tolerated", world)

    def leaves(self, plan: FaultPlan[TaintSpec]) -> frozenset[NodeState]:
        states = {"NoExecute": NodeState.EMPTY, "NoSchedule": NodeState.UNSCHEDULABLE}
        return frozenset({states[plan.spec.effect]} if plan.spec.effect in states else ())

    def edit(self, spec: TaintSpec) -> Edit:
        taint = {"key": spec.key, "value": spec.value, "effect": spec.effect}
        item = (("effect", spec.effect), ("key", spec.key))
        return Edit(("spec", "taints"), {k: v for k, v in taint.items() if v}, item=item)
