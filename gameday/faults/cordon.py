"""Cordon: nodes take no new pods."""

from __future__ import annotations

from typing import Any, ClassVar

from gameday.faults.nodes import NodeEdit
from gameday.ledger.operations import Edit

UNSCHEDULABLE = Edit(("spec", "unschedulable"), True)


class Cordon(NodeEdit):
    """Nodes take no new pods, as by `kubectl cordon`; undone for those that we cordoned."""

    example: ClassVar[str] = "cordon: {nodes: {selector: nvidia.com/gpu.present=true, pick: 1}}"

    def words(self, spec: Any) -> str:
        return "cordon"

    def edit(self, spec: Any) -> Edit:
        return UNSCHEDULABLE
