"""Cordon: nodes take no new pods."""

from __future__ import annotations

from typing import ClassVar

from gameday.extend import FaultPlan, NodeState, Spec
from gameday.faults.nodes import NodeEdit, NodeEditSpec
from gameday.ledger.edits import Edit

UNSCHEDULABLE = Edit(("spec", "unschedulable"), True)


class Cordon(NodeEdit[NodeEditSpec]):
    """Nodes take no new pods, as by `kubectl cordon`; undone for those that we cordoned."""

    Spec: ClassVar[type[Spec]] = NodeEditSpec
    example: ClassVar[str] = "cordon: {nodes: {selector: nvidia.com/gpu.present=true, pick: 1}}"

    def words(self, spec: NodeEditSpec) -> str:
        return "cordon"

    def leaves(self, plan: FaultPlan[NodeEditSpec]) -> frozenset[NodeState]:
        return frozenset({NodeState.UNSCHEDULABLE})

    def edit(self, spec: NodeEditSpec) -> Edit:
        return UNSCHEDULABLE
