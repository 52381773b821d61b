"""Node shutdown: nodes' kubelets stop, so that the cluster loses the nodes while their pods run on."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, ClassVar

from pydantic import Field

from gameday.experiment.model import EndingSpec, NodePick, PositiveDuration, Spec
from gameday.experiment.text import describe
from gameday.experiment.values import checked
from gameday.extend import Already, Evidence, FaultPlan, Injected
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.faults.on_node import NodeProgramFault, OnNode, needs
from gameday.platform.effect import Effect
from gameday.platform.objects import condition, is_ready
from gameday.platform.world import World

LOST_WITHIN = 300.0  # seconds in which a cluster calls a silent node lost; its controller manager decides


def _unit(text: str) -> None:
    """A name as systemd.unit(5) has it: `*`, `?` and `[` would mean several units, a dash an option."""
    if not re.fullmatch(r"[A-Za-z0-9_][-A-Za-z0-9:_.@]{0,200}", text):
        raise ValueError(f"is no systemd unit such as kubelet or k3s-agent, found {describe(text)}")


class NodeShutdownSpec(EndingSpec):
    """Which nodes' kubelets stop."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")
    unit: Annotated[str, checked(_unit)] = Field(
        "kubelet", description="The kubelet's systemd unit; k3s-agent or rke2-agent, say."
    )
    settle_within: PositiveDuration = Field(
        "5m",
        validate_default=True,
        description="How long the cluster may take to call the nodes lost, and to find them again.",
    )


class NodeShutdown(NodeProgramFault[NodeShutdownSpec]):
    """A node's kubelet stops and is started again; until then the cluster sees a lost node."""

    Spec: ClassVar[type[Spec]] = NodeShutdownSpec
    spare: ClassVar[float] = LOST_WITHIN  # the hold begins once the cluster has noticed
    silences: ClassVar[bool] = True
    example: ClassVar[str] = "nodeShutdown: {nodes: {names: [gpu-0]}}"

    async def plan(self, spec: NodeShutdownSpec, world: World) -> FaultPlan[NodeShutdownSpec]:
        nodes = await pick_nodes(spec.nodes, world)
        lost = [n["metadata"]["name"] for n in nodes if not is_ready(n)]
        if lost:
            raise Already(f"{', '.join(lost)}: not Ready already, nothing would change: choose other nodes")
        programs = [OnNode(v.ref, "kubelet-stop", {"unit": spec.unit}) for v in map(node_victim, nodes)]
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"stop the kubelet on {n['metadata']['name']}" for n in nodes),
            needs=needs(world),
            data={"programs": [p.to_data() for p in programs]},
        )

    async def effects(self, plan: FaultPlan[NodeShutdownSpec], world: World) -> tuple[Effect, ...]:
        """The pods that the cluster gives up, where the nodes stay lost for longer than they tolerate."""
        from gameday.faults.losing import UNREACHABLE, by_taint

        names = [v.ref.name for v in plan.victims]
        return await by_taint(names, UNREACHABLE, "ends: its node is lost for too long", world)

    def programs(self, plan: FaultPlan[NodeShutdownSpec]) -> list[OnNode]:
        return [OnNode.from_data(p) for p in plan.data["programs"]]

    def settle_within(self, spec: NodeShutdownSpec) -> float:
        return spec.settle_within

    async def settled(self, plan: FaultPlan[NodeShutdownSpec], injected: Injected, world: World) -> Evidence:
        """In when the cluster calls the nodes lost, out when they are Ready and their programs have ended."""
        programs = await super().settled(plan, injected, world)
        nodes = await asyncio.gather(*(world.kube.get(v.ref) for v in plan.victims))
        ready = {n["metadata"]["name"]: condition(n, "Ready") for n in nodes}
        facts = tuple(
            f"{name}: Ready is {c.get('status')} ({c.get('reason', '')})" for name, c in ready.items()
        )
        states = {c.get("status") == "True" for c in ready.values()}
        if states == {False} and programs.state != "out":
            return Evidence("in", facts)
        return Evidence(
            "out" if states == {True} and programs.state == "out" else "partial", (*facts, *programs.facts)
        )
