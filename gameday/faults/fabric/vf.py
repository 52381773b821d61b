"""`vf`: the virtual function that a pod uses loses its link, its speed or its rights, through the PF."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Spec
from gameday.faults.base import FaultPlan, PlanError
from gameday.faults.fabric import chain
from gameday.faults.fabric.chain import Fabric
from gameday.faults.fabric.programs import on_each_node, ports_of
from gameday.faults.fabric.target import FabricTarget
from gameday.faults.fabric.units import Rate, megabits
from gameday.faults.nodes import node_ref, node_victim
from gameday.faults.on_node import NodeProgramFault, OnNode, check_management, needs
from gameday.faults.pods import check_namespaces, pod_victim, pods_now
from gameday.platform.objects import Ref
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.sriov import Function

_ONE = "expected one of `state`, `maxTxRate`, `vlan`, `spoofCheck` and `trust`"


class VfSpec(FabricTarget):
    """Which virtual functions, and what they become."""

    number: int | None = Field(None, ge=0, le=4095, description="The VF's number, with `interface` its PF.")
    state: Literal["disable", "auto", "enable"] | None = Field(
        None, description="Its link: `disable` is down, `auto` follows the PF's, `enable` is up regardless."
    )
    max_tx_rate: Rate | None = Field(None, description="The most that it may send, as 100mbit or 1gbit.")
    vlan: int | None = Field(None, ge=0, le=4094, description="Its VLAN; 0 is none.")
    spoof_check: bool | None = Field(None, description="Whether what it sends from a foreign MAC is dropped.")
    trust: bool | None = Field(None, description="Whether it may change its MAC or be promiscuous.")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if not self.settings:
            raise ValueError(_ONE)
        if self.number is not None and self.interface is None:
            raise ValueError("`number` needs its PF in `interface`")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """As `ip link set PF vf N` takes them."""
        onoff = {True: "on", False: "off", None: None}
        all_of_them = {
            "state": self.state,
            "max_tx_rate": None if self.max_tx_rate is None else megabits(self.max_tx_rate),
            "vlan": self.vlan,
            "spoofchk": onoff[self.spoof_check],
            "trust": onoff[self.trust],
        }
        return {key: value for key, value in all_of_them.items() if value is not None}


class VirtualFunction(NodeProgramFault):
    """A virtual function changes through its PF, wherever its own interface is; the node puts it back."""

    Spec: ClassVar[type[Spec]] = VfSpec
    example: ClassVar[str] = (
        "vf: {pod: {selector: app=trainer, namespace: training, pick: 1}, state: disable}"
    )

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        check_management(spec.allow_management, world)
        vfs, fabric = await chain.functions_of(spec, world)
        ports = [fabric.port(v) for v in vfs]
        words = ", ".join(f"{key} {value}" for key, value in spec.settings.items())
        return FaultPlan(
            spec,
            tuple(dict.fromkeys([await _victim(v, fabric, world) for v in vfs])),
            changes=tuple(f"{words}: {port.chain}" for port in ports),
            warnings=tuple(chain.shared(vfs, fabric)),
            needs=needs(world),
            data={"ports": [port.to_data() for port in ports]},
        )

    def programs(self, plan: FaultPlan) -> list[OnNode]:
        return on_each_node(plan, "vf", set=plan.spec.settings)

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        if plan.spec.pod is not None and plan.spec.pod.selector:
            plan = await _where_they_are(plan, world)
        await super().inject(plan, world, ledger)


async def _where_they_are(plan: FaultPlan, world: World) -> FaultPlan:
    """The plan with the VFs of the pods as they are now; of those approved that still run, the same VFs."""
    pods = await pods_now(replace(plan, spec=plan.spec.pod), world)
    if not pods:
        raise PlanError(f"no pod that matches {plan.spec.pod.selector} runs any more")
    approved = {v.ref.uid for v in plan.victims}
    new = [p for p in pods if p["metadata"]["uid"] not in approved]
    still = {chain.name_of(p) for p in pods if p not in new}
    ports = [p for p in ports_of(plan) if p.pod in still]
    if new:
        vfs, fabric = await chain.of_pods(new, plan.spec, world)
        ports += [fabric.port(v) for v in vfs]
    data = plan.data | {"ports": [port.to_data() for port in ports]}
    return replace(plan, victims=tuple(pod_victim(p) for p in pods), data=data)


async def _victim(vf: Function, fabric: Fabric, world: World) -> Victim:
    """The pod that uses it. One that nobody uses is nobody's loss; one that nobody tells of is the node's."""
    pod = fabric.user(vf)
    if pod is not None:
        check_namespaces([pod["metadata"]["namespace"]], world)
        return pod_victim(pod)
    if not vf.pci:
        return node_victim(await world.kube.get(node_ref(vf.node)))
    return Victim(Ref("v1", "Node", vf.node), "object", vf.node)
