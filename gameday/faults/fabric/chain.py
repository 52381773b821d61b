"""From what users know of a network interface to the interface: pod → attachment → VF → PF → node.

Everything is read from the API: the pods' network-status, and the SR-IOV operator's SriovNetworkNodeState.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gameday.experiment.values import picked
from gameday.extend import PlanError
from gameday.faults.nodes import pick_nodes
from gameday.faults.pods import check_namespaces, pick_pods
from gameday.platform import sriov
from gameday.platform.objects import Object, is_finished
from gameday.platform.resources import PODS
from gameday.platform.sriov import Function

if TYPE_CHECKING:
    from gameday.faults.fabric.target import FabricTarget, PodTarget
    from gameday.platform.world import Approved, World

NO_OPERATOR = (
    "no SriovNetworkNodeState tells of {node}: without the SR-IOV operator, name a node and an interface"
)


@dataclass(frozen=True)
class Port:
    """One interface of a node, or one VF of it (`vf` not negative); `chain` says how it was found."""

    node: str
    interface: str = ""  # of the node itself: the PF's, for a VF
    pci: str = ""
    vf: int = -1
    vf_pci: str = ""
    pod: str = ""  # namespace/name of who uses the VF
    chain: str = ""

    @property
    def name(self) -> str:
        """A VF for people, wherever it is used."""
        return f"VF {self.vf} of {self.interface} on node {self.node}"

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def place(self) -> tuple[str, str, int]:
        """What tells an interface or a VF from all others."""
        return self.node, self.interface, self.vf

    @property
    def options(self) -> dict[str, Any]:
        """How the program on the node is told of it."""
        told: dict[str, Any] = {"interface": self.interface, "pciAddress": self.pci}
        if self.vf >= 0:
            told |= {"vf": self.vf, "vfPciAddress": self.vf_pci}
        return told


@dataclass(frozen=True)
class Fabric:
    """The network hardware that the cluster knows of: VFs by node, and who uses each."""

    functions: dict[str, list[Function]]
    pods: dict[tuple[str, str], Object]

    @classmethod
    async def read(cls, world: World, nodes: Iterable[str]) -> Fabric:
        """Of these nodes; on a large cluster everything would be a lot."""

        async def one(node: str) -> tuple[dict[str, Object], list[Object]]:
            states = await sriov.node_states(world.kube, node)
            on_it = {"spec.nodeName": node}
            return states, await world.kube.list(PODS, fields=on_it) if states else []

        read = await asyncio.gather(*(one(node) for node in dict.fromkeys(nodes)))
        found = {name: sriov.functions(s) for states, _ in read for name, s in states.items()}
        return cls(found, sriov.users([pod for _, pods in read for pod in pods]))

    def of(self, node: str) -> list[Function]:
        """The VFs of a node. Raises PlanError when nobody tells of them."""
        if node not in self.functions:
            raise PlanError(NO_OPERATOR.format(node=node))
        return self.functions[node]

    def user(self, vf: Function) -> Object | None:
        return self.pods.get((vf.node, vf.pci))

    def tell(self, vf: Function) -> str:
        """A VF with its pod, for people."""
        pod = self.user(vf)
        return f"VF {vf.number} ({name_of(pod) if pod else 'no pod uses it'})"

    def on(self, node: str, interface: str, pci: str = "") -> list[Function]:
        """The VFs of one PF; none where nobody tells of them."""
        vfs = self.functions.get(node, ())
        return [v for v in vfs if (pci and v.pf_pci == pci) or (interface and v.pf == interface)]

    def port(self, vf: Function) -> Port:
        pod = self.user(vf)
        name, links = "", [_told("VF", vf.number, vf.pci), _told("PF", vf.pf, vf.pf_pci), f"node {vf.node}"]
        if pod is not None:
            name = name_of(pod)
            used = [a for a in sriov.attachments(pod) if a.pci == vf.pci]
            links = [f"pod {name}", *(f"{a.interface} ({a.network})" for a in used), *links]
        return Port(vf.node, vf.pf, vf.pf_pci, vf.number, vf.pci, name, " → ".join(links))


async def functions_of(spec: FabricTarget, world: World) -> tuple[list[Function], Fabric]:
    """The VFs that are meant: `pick` of those that match, on each node or of each pod. Raises PlanError."""
    pods = await pods_of(spec.pod, world) if spec.pod else []
    found, fabric = await matching(spec, pods, world)
    chosen: list[Function] = []
    for vfs in found:
        count, place = picked(spec.pick, len(vfs)), f"VFs of {vfs[0].node} from {vfs[0].pci}"
        if spec.pod:  # the pods are those that were approved, and have these
            chosen += world.sample(vfs, count, place)
        else:
            chosen += world.choose(vfs, count, _was_meant, f"VFs of {vfs[0].node} that match", place)
    return chosen, fabric


async def matching(
    spec: FabricTarget, pods: list[Object], world: World
) -> tuple[list[list[Function]], Fabric]:
    """The VFs that match, on each node, or of each of these pods. Raises PlanError where one has none."""
    if spec.pod is not None:
        fabric = await Fabric.read(world, [pod["spec"].get("nodeName", "") for pod in pods])
        return [_of_pod(pod, spec.pod, fabric) for pod in pods], fabric
    assert spec.nodes is not None
    names = [n["metadata"]["name"] for n in await pick_nodes(spec.nodes, world)]
    fabric = await Fabric.read(world, names)
    return [_of_node(node, spec, fabric) for node in names], fabric


def _was_meant(vf: Function, approved: Approved) -> bool:
    return was_meant(Port(vf.node, vf.pf, vf=vf.number), approved)


def was_meant(port: Port, approved: Approved) -> bool:
    """Whether an interface or a VF is one of those that were approved."""
    return port.place in {Port(**data).place for data in approved.data["ports"]}


async def pods_of(target: PodTarget, world: World) -> list[Object]:
    """The pods that are meant. Raises PlanError when there are none."""
    if target.name is None:
        return await pick_pods(target, world, started=True)  # its network is attached as it starts
    check_namespaces([target.namespace], world)
    found = await world.kube.list(PODS, target.namespace, fields={"metadata.name": target.name})
    if not found or is_finished(found[0]):
        raise PlanError(f"there is no running pod {target.namespace}/{target.name}")
    return found


def _of_pod(pod: Object, target: PodTarget, fabric: Fabric) -> list[Function]:
    name, node = name_of(pod), pod["spec"].get("nodeName", "")
    wanted = [a for a in sriov.attachments(pod) if _same_network(a.network, target)]
    if not wanted:
        if pod["status"].get("phase") == "Pending":
            raise PlanError(f"pod {name} has not started: which VFs it gets is known once it runs")
        which = f" of the network {target.network}" if target.network else ""
        raise PlanError(
            f"pod {name} uses no VF{which}: its {sriov.STATUS} names no PCI device; choose a pod that asks "
            "for an SR-IOV resource"
        )
    known = {vf.pci: vf for vf in fabric.of(node)}
    unknown = [a for a in wanted if a.pci not in known]
    if unknown:
        raise PlanError(
            f"pod {name} uses the PCI device {unknown[0].pci}, but SriovNetworkNodeState {node} knows no "
            "such VF: the operator has not seen it yet, or does not manage that device"
        )
    return [known[a.pci] for a in wanted]


def _of_node(node: str, spec: FabricTarget, fabric: Fabric) -> list[Function]:
    number = getattr(spec, "number", None)
    if number is not None and spec.interface:  # named outright: nobody need tell of it
        known = [v for v in fabric.on(node, spec.interface) if v.number == number]
        return known or [Function(node, spec.interface, "", number, "")]
    vfs = fabric.of(node)
    if spec.resource:
        prefix, _, resource = spec.resource.rpartition("/")
        found = [v for v in vfs if v.resource == resource]
        there = sorted({f"{prefix}/{v.resource}" for v in vfs if v.resource})
        what = f"no VF of {node} serves {spec.resource}; there is {', '.join(there) or 'none at all'}"
    elif spec.pci_address:
        found = [v for v in vfs if v.pci == spec.pci_address]
        what = f"{node} has no VF {spec.pci_address}; it has {', '.join(v.pci for v in vfs) or 'none at all'}"
    else:
        found = [v for v in vfs if v.pf == spec.interface]
        there = sorted({v.pf for v in vfs})
        what = f"{spec.interface} of {node} has no VFs; {', '.join(there) or 'no interface'} has"
    if not found:
        raise PlanError(what)
    return found


def shared(vfs: Iterable[Function], fabric: Fabric) -> list[str]:
    """Sentences on what else lives on the same PFs."""
    chosen = list(vfs)
    found = []
    for node, pf in dict.fromkeys((v.node, v.pf) for v in chosen):
        others = [v for v in fabric.on(node, pf) if v not in chosen]
        if others:
            found.append(f"{pf} of {node} also carries {', '.join(fabric.tell(v) for v in others)}")
    return found


def _same_network(name: str, target: PodTarget) -> bool:
    wanted = target.network
    return wanted is None or name in (wanted, f"{target.namespace}/{wanted}")


def _told(what: str, name: int | str, pci: str) -> str:
    return f"{what} {name}" + (f" ({pci})" if pci else "")


def name_of(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
