"""The `hardwareAgrees` probe: whether everybody who hands out a node's hardware means the same hardware.

Kubernetes' allocatable, the SR-IOV operator's node states, the networks' definitions and Slurm's GRES are
each kept by somebody else; where they disagree, jobs wait for what isn't there, or idle beside what is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, NodePick, Spec
from gameday.experiment.text import plural
from gameday.extend import Measurement, Probe
from gameday.platform import sriov
from gameday.platform.devices import allocatable_gpus, gpu_resources
from gameday.platform.errors import NotServed, PlatformError
from gameday.platform.objects import Object, annotations_of

if TYPE_CHECKING:
    from gameday.platform.world import World


class HardwareSpec(Spec):
    """Which nodes, and which namespaces' networks."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector.")
    namespaces: list[DNSLabel] = Field(
        [], description="Whose NetworkAttachmentDefinitions are looked at; the target's when left out."
    )


class HardwareAgrees(Probe[HardwareSpec]):
    """How many disagreements there are on each node's GPUs and VFs, each of them named."""

    Spec: ClassVar = HardwareSpec
    example: ClassVar[str] = """\
name: everybody means the same hardware
hardwareAgrees: {nodes: {selector: nvidia.com/gpu.present=true}, namespaces: [training]}
is: 0
"""

    async def measure(self, spec: HardwareSpec, world: World) -> Measurement:
        """The number of disagreements for each node and network; the message names each."""
        from gameday.platform.resources import NODES

        listed = await world.kube.list(NODES, labels=spec.nodes.selector)
        nodes = [n for n in listed if spec.nodes.names is None or n["metadata"]["name"] in spec.nodes.names]
        if not nodes:
            raise PlatformError(f"no node is {spec.nodes.selector or ', '.join(spec.nodes.names or ())}")
        states = await sriov.node_states(world.kube)
        gres = await _gres(world)
        found: dict[str, list[str]] = {}
        for node in nodes:
            name = node["metadata"]["name"]
            found[name] = [*of_node(node, states.get(name) if states else {}), *of_slurm(node, gres)]
        offered = {resource for node in nodes for resource in _allocatable(node)}
        for network in await _networks(world, spec.namespaces or list(world.namespaces)):
            meta = network["metadata"]
            found[f"{meta['namespace']}/{meta['name']}"] = list(of_network(network, offered))
        said = [f"{name}: {text}" for name, texts in found.items() for text in texts]
        series = tuple((name, float(len(texts))) for name, texts in found.items())
        return Measurement(series, "; ".join(said) or f"all agree on {plural(len(nodes), 'node')}")


def of_node(node: Object, state: Object | None) -> Iterator[str]:
    """Kubernetes' numbers against the operator's. `state`: {} without an operator, None if it has none."""
    allocatable = _allocatable(node)
    given = gpu_resources(node)
    for resource, count in sorted(gpu_resources(node, "capacity").items()):
        if given.get(resource, 0) != count:
            yield f"{given.get(resource, 0)} of {count} {resource} are allocatable"
    if state is None:
        yield "the SR-IOV operator has no SriovNetworkNodeState for it"
    if not state:
        return
    status = state.get("status") or {}
    asked = (state.get("spec") or {}).get("interfaces") or ()
    if asked and not status.get("syncStatus"):
        yield "the SR-IOV operator does not say whether its sync has succeeded"
    elif status.get("syncStatus") not in (None, "", "Succeeded"):
        why = status.get("lastSyncError") or "no reason given"
        yield f"the SR-IOV operator's sync is {status['syncStatus']} ({why})"
    there = {pf["pciAddress"]: pf for pf in sriov.interfaces(state)}
    for wanted in asked:
        have = len((there.get(wanted["pciAddress"]) or {}).get("Vfs") or ())
        if have != wanted.get("numVfs", 0):
            name = wanted.get("name") or wanted["pciAddress"]
            yield f"{name} has {have} VFs, its policy wants {wanted.get('numVfs', 0)}"
    serving = Counter(vf.resource for vf in sriov.functions(state) if vf.resource)
    for resource, vfs in sorted(serving.items()):
        known = [key for key in allocatable if key.rpartition("/")[2] == resource]
        if not known:
            yield f"{vfs} VFs serve {resource}, which is not allocatable at all"
        elif int(allocatable[known[0]]) != vfs:
            yield f"{vfs} VFs serve {known[0]}, but {allocatable[known[0]]} are allocatable"


def of_network(network: Object, offered: set[str]) -> Iterator[str]:
    """A network's resource must be one that some node has."""
    resource = annotations_of(network).get(sriov.RESOURCE_NAME)
    if resource and resource not in offered:
        yield f"it takes {resource}, which no node here offers"


def of_slurm(node: Object, gres: dict[str, int]) -> Iterator[str]:
    """Slurm's GRES must count the GPUs that the node has."""
    counted = gres.get(node["metadata"]["name"])
    known = allocatable_gpus(node, "capacity")
    if counted is not None and counted != known:
        yield f"Slurm's GRES counts {plural(counted, 'GPU')}, Kubernetes {known}"


async def _gres(world: World) -> dict[str, int]:
    """Slurm's GPUs by node; {} where the experiment names no Slurm."""
    return {n.name: n.gpus for n in await world.slurm.nodes()} if world.slurm else {}


async def _networks(world: World, namespaces: list[str]) -> list[Object]:
    try:
        return [n for space in namespaces for n in await world.kube.list(sriov.NETWORKS, space)]
    except NotServed:
        return []


def _allocatable(node: Object) -> dict[str, Any]:
    return dict((node.get("status") or {}).get("allocatable") or {})
