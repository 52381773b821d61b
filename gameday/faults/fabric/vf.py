"""`vf`: the virtual function that a pod uses loses its link, its speed or its rights, through the PF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Spec
from gameday.extend import FaultPlan, PlanError
from gameday.faults.fabric import chain
from gameday.faults.fabric.chain import Fabric
from gameday.faults.fabric.programs import on_each_node
from gameday.faults.fabric.target import FabricTarget
from gameday.faults.fabric.units import Rate, megabits
from gameday.faults.nodes import node_ref, node_victim
from gameday.faults.on_node import NodeProgramFault, OnNode, check_management, needs
from gameday.faults.pods import check_namespaces, pod_victim
from gameday.platform.objects import controller, owner_ref
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
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


class VirtualFunction(NodeProgramFault[VfSpec]):
    """A virtual function changes through its PF, wherever its own interface is; the node puts it back."""

    Spec: ClassVar[type[Spec]] = VfSpec
    example: ClassVar[str] = (
        "vf: {pod: {selector: app=trainer, namespace: training, pick: 1}, state: disable}"
    )

    async def plan(self, spec: VfSpec, world: World) -> FaultPlan[VfSpec]:
        check_management(spec.allow_management, world)
        vfs, fabric = await chain.functions_of(spec, world)
        ports = [fabric.port(v) for v in vfs]
        users = {p.name: _user(v, fabric) for v, p in zip(vfs, ports, strict=True)} if spec.nodes else {}
        _check_users(users, world)
        words = ", ".join(f"{key} {value}" for key, value in spec.settings.items())
        return FaultPlan(
            spec,
            tuple(dict.fromkeys([await _victim(v, fabric, world) for v in vfs])),
            changes=tuple(f"{words}: {port.chain}" for port in ports),
            warnings=tuple(chain.shared(vfs, fabric)),
            needs=needs(world),
            data={"ports": [port.to_data() for port in ports], "users": users},
        )

    def programs(self, plan: FaultPlan[VfSpec]) -> list[OnNode]:
        return on_each_node(plan, "vf", set=plan.spec.settings)


async def _victim(vf: Function, fabric: Fabric, world: World) -> Victim:
    """The pod that uses it. One that nobody uses is nobody's loss; one that nobody tells of is the node's."""
    pod = fabric.user(vf)
    if pod is not None:
        check_namespaces([pod["metadata"]["namespace"]], world)
        return pod_victim(pod)
    if not vf.pci:
        return node_victim(await world.kube.get(node_ref(vf.node)))
    return _on_node(vf.node)


def _user(vf: Function, fabric: Fabric) -> str:
    """Whose pod uses it: of pods of one controller each may take the other's place."""
    if (pod := fabric.user(vf)) is None:
        return "no pod's"
    owner = owner_ref(controller(pod), pod["metadata"]["namespace"])
    return str(owner or pod_victim(pod))


def _check_users(users: dict[str, str], world: World) -> None:
    """Raises PlanError for a VF that is somebody else's by now.

    No step in force beside excuses that, as one may excuse what a `basis` says.
    """
    before = world.approved.data["users"] if world.approved else users
    if others := [
        f"{n} was {before[n]} when it was planned, and is {now} now"
        for n, now in users.items()
        if before.get(n, now) != now
    ]:
        raise PlanError("; ".join(others))


def _on_node(name: str) -> Victim:
    """A node that is changed, and is not lost by that."""
    return Victim(node_ref(name), "object", name)
