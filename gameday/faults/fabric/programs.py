"""One program on each node, whatever it has to do there."""

from __future__ import annotations

from typing import Any

from gameday.extend import FaultPlan
from gameday.faults.fabric.chain import Port
from gameday.faults.nodes import node_ref
from gameday.faults.on_node import OnNode


def ports_of(plan: FaultPlan[Any]) -> list[Port]:
    """The interfaces that a plan is about."""
    return [Port(**data) for data in plan.data["ports"]]


def on_each_node(plan: FaultPlan[Any], action: str, **options: Any) -> list[OnNode]:
    """The action on every port of the plan, with the same options."""
    options |= {"allowManagement": plan.spec.allow_management}
    ports = ports_of(plan)
    found = []
    for node in dict.fromkeys(port.node for port in ports):
        each = [port.options for port in ports if port.node == node]
        what = (action, each[0]) if len(each) == 1 else ("several", {"action": action, "each": each})
        found.append(OnNode(node_ref(node), what[0], {**options, **what[1]}))
    return found
