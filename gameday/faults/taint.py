"""Taint: nodes repel the pods that do not tolerate them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from gameday.experiment.model import NodePick, Spec, Text
from gameday.faults.nodes import NodeEdit
from gameday.ledger.operations import Edit


class TaintSpec(Spec):
    """Which nodes, and the taint."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    key: Text = Field(description="The taint's key.")
    value: str = Field("", description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        description="What it does to pods."
    )


class Taint(NodeEdit):
    """Nodes get a taint; with NoExecute, pods that do not tolerate it are evicted by the cluster."""

    Spec: ClassVar[type[Spec]] = TaintSpec
    example: ClassVar[str] = (
        "taint: {nodes: {names: [gpu-0]}, key: gameday.dev/broken, value: 'true', effect: NoExecute}"
    )

    def words(self, spec: Any) -> str:
        value = f"={spec.value}" if spec.value else ""
        return f"taint {spec.key}{value}:{spec.effect}"

    def edit(self, spec: Any) -> Edit:
        taint = {"key": spec.key, "value": spec.value, "effect": spec.effect}
        item = (("effect", spec.effect), ("key", spec.key))
        return Edit(("spec", "taints"), {k: v for k, v in taint.items() if v}, item=item)
