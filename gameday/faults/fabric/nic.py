"""`nic`: a node's link is down, flaps, gets slow or lossy, or takes another MTU."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Duration, NodePick, PositiveDuration, Spec
from gameday.experiment.quantity import format_duration
from gameday.experiment.text import plural
from gameday.experiment.values import picked
from gameday.extend import FaultPlan
from gameday.faults.fabric import chain
from gameday.faults.fabric.chain import Fabric, Port
from gameday.faults.fabric.programs import on_each_node
from gameday.faults.fabric.target import FabricTarget
from gameday.faults.fabric.units import Percentage, Rate, bucket, tc_time
from gameday.faults.nodes import node_victim, pick_nodes
from gameday.faults.on_node import NodeProgramFault, OnNode, check_management, needs
from gameday.platform.objects import Object
from gameday.platform.world import World

LATENCY = "50ms"  # the longest that a packet waits for its turn under `rate`, before it is dropped
NETEM = ("delay", "jitter", "loss", "corrupt", "duplicate", "reorder")
_FOLLOW = "whether they follow it is up to its driver and firmware (to be sure: `vf`)"
_BYPASS = (
    "{pf} of {node} has VFs: `tc` slows what the node's kernel sends through it; RDMA and what its VFs send "
    "pass it by (for those: `vf` with `maxTxRate`)"
)


class Flap(Spec):
    """How a link flaps."""

    period: PositiveDuration = Field(description="From one loss of the link to the next; half of it is down.")
    count: int = Field(ge=1, le=1000, description="How often; after that it stays up.")


class NicSpec(FabricTarget):
    """Which links, and what is wrong with them. With `pod` and `interface`, of the nodes the pods run on."""

    beside_pods: ClassVar[bool] = True

    state: Literal["down"] | None = Field(None, description="The link is taken down.")
    flap: Flap | None = Field(None, description="The link goes down and up again, several times.")
    rate: Rate | None = Field(None, description="The most that it sends, as 100mbit or 1gbit.")
    delay: PositiveDuration | None = Field(None, description="Added to each packet that it sends.")
    jitter: Duration | None = Field(None, description="How much `delay` varies.")
    loss: Percentage | None = Field(None, description="Packets that get lost.")
    corrupt: Percentage | None = Field(None, description="Packets that arrive with a wrong bit.")
    duplicate: Percentage | None = Field(None, description="Packets that arrive twice.")
    reorder: Percentage | None = Field(None, description="Packets that overtake the delayed ones.")
    mtu: int | None = Field(None, ge=1280, le=65535, description="Its MTU in bytes; IPv6 needs 1280.")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        netem = [key for key in NETEM if getattr(self, key) is not None]
        others = [key for key in ("state", "flap", "rate", "mtu") if getattr(self, key) is not None]
        if len(others) + bool(netem) != 1:
            raise ValueError(
                "expected one of `state: down`, `flap`, `rate`, `mtu`, or netem's "
                f"{', '.join(f'`{key}`' for key in NETEM)}; found {', '.join([*others, *netem]) or 'none'}"
            )
        if self.delay is None and (self.reorder or self.jitter):
            raise ValueError("`reorder` and `jitter` need a `delay`")
        return self

    @property
    def tbf(self) -> list[str]:
        """As `tc` takes it."""
        rate = self.rate or ""
        return ["tbf", "rate", rate, "burst", bucket(rate), "latency", LATENCY]

    @property
    def netem(self) -> list[str]:
        """As `tc` takes it."""
        words = ["netem"]
        if self.delay is not None:
            words += ["delay", tc_time(self.delay)]
            words += [tc_time(self.jitter)] if self.jitter else []
        for key in NETEM[2:]:
            words += [key, value] if (value := getattr(self, key)) else []
        return words


class Nic(NodeProgramFault[NicSpec]):
    """A link of a node is down, flaps, is slow or lossy, or has another MTU; the node puts it back itself."""

    Spec: ClassVar[type[Spec]] = NicSpec
    example: ClassVar[str] = "nic: {nodes: {names: [gpu-0]}, interface: ens1f0, state: down}"

    async def plan(self, spec: NicSpec, world: World) -> FaultPlan[NicSpec]:
        check_management(spec.allow_management, world)
        pods = await chain.pods_of(spec.pod, world) if spec.pod else []
        ports, nodes, fabric = await _ports(spec, pods, world)
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{_words(spec)}: {port.chain}" for port in ports),
            warnings=tuple(_warnings(spec, ports, fabric, world)),
            needs=needs(world),
            data={
                "ports": [port.to_data() for port in ports],
                "foundBy": [p["metadata"]["uid"] for p in pods],
            },
        )

    def programs(self, plan: FaultPlan[NicSpec]) -> list[OnNode]:
        spec = plan.spec
        if spec.flap:
            return on_each_node(plan, "link-flap", period=spec.flap.period, count=spec.flap.count)
        if spec.state:
            return on_each_node(plan, "link-down")
        if spec.mtu:
            return on_each_node(plan, "link-mtu", mtu=spec.mtu)
        return on_each_node(plan, "link-shape", qdisc=spec.tbf if spec.rate else spec.netem)


async def _ports(spec: NicSpec, pods: list[Object], world: World) -> tuple[list[Port], list[Object], Fabric]:
    """The links that are meant, their nodes, and what else is there. Raises PlanError."""
    if spec.resource is None and (spec.nodes or spec.interface):
        choice = spec.nodes or NodePick(names=sorted({p["spec"]["nodeName"] for p in pods}))
        nodes = await pick_nodes(choice, world)
        names = [n["metadata"]["name"] for n in nodes]
        fabric = await Fabric.read(world, names)
        return [_port(name, spec, fabric) for name in names], nodes, fabric
    found, fabric = await chain.matching(spec, pods, world)
    links = {(v.node, v.pf): fabric.port(v) for vfs in found for v in vfs}
    ports: list[Port] = []
    for node in dict.fromkeys(node for node, _ in links):
        mine = [Port(p.node, p.interface, p.pci, chain=p.chain) for p in links.values() if p.node == node]
        count, place = picked(spec.pick, len(mine)), f"links of {node}"
        ports += world.choose(mine, count, chain.was_meant, f"{place} that match", place)
    nodes = await pick_nodes(NodePick(names=list(dict.fromkeys(p.node for p in ports))), world)
    return ports, nodes, fabric


def _port(node: str, spec: NicSpec, fabric: Fabric) -> Port:
    """A link that was named; the node itself says whether it is there."""
    name, pci = spec.interface or "", spec.pci_address or ""
    known = fabric.on(node, name, pci)
    what = f"interface {known[0].pf}" if known else f"interface {name}" if name else f"PCI device {pci}"
    return Port(node, name, pci, chain=f"{what} → node {node}")


def _words(spec: NicSpec) -> str:
    if spec.flap:
        return f"flap {plural(spec.flap.count, 'time')}, once each {format_duration(spec.flap.period)}"
    if spec.state:
        return "take down"
    if spec.mtu:
        return f"MTU {spec.mtu}"
    return f"at most {spec.rate}" if spec.rate else " ".join(spec.netem[1:])


def _warnings(spec: NicSpec, ports: list[Port], fabric: Fabric, world: World) -> list[str]:
    found = []
    for port in ports:
        vfs = fabric.on(port.node, port.interface, port.pci)
        if not vfs:
            continue
        pf = vfs[0].pf
        if spec.rate or len(spec.netem) > 1:
            found.append(_BYPASS.format(pf=pf, node=port.node))
        else:
            others = ", ".join(fabric.tell(v) for v in vfs)
            found.append(f"{pf} of {port.node} also carries {others}: {_FOLLOW}")
    if spec.flap and world.hold is not None and world.hold < spec.flap.period * spec.flap.count:
        lasts = format_duration(spec.flap.period * spec.flap.count)
        found.append(f"all flaps take {lasts}, but the step ends after {format_duration(world.hold)}")
    return found
