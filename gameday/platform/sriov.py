"""SR-IOV as its operator and Multus tell of it: which virtual functions (VFs) there are, and who uses which.

Sources: api/v1 of github.com/k8snetworkplumbingwg/sriov-network-operator, and the network-status annotation
of the Network Plumbing Working Group's multi-network specification.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday.platform.errors import NotServed
from gameday.platform.objects import Object, Resource, annotations_of, is_finished

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

NODE_STATES = Resource("sriovnetwork.openshift.io/v1", "SriovNetworkNodeState", "sriovnetworknodestates")
NETWORKS = Resource("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "network-attachment-definitions")
OLD_STATUS = "k8s.v1.cni.cncf.io/networks-status"  # as Multus before 3.7 wrote it
STATUS = "k8s.v1.cni.cncf.io/network-status"  # on a pod: its attachments, as Multus made them
RESOURCE_NAME = "k8s.v1.cni.cncf.io/resourceName"  # on a network: the resource that its pods take


@dataclass(frozen=True)
class Function:
    """One VF of a node, with the physical function (PF) that it is part of. `resource` has no prefix."""

    node: str
    pf: str
    pf_pci: str
    number: int
    pci: str
    resource: str = ""

    def __str__(self) -> str:
        return f"VF {self.number} ({self.pci})"


@dataclass(frozen=True)
class Attachment:
    """One interface of a pod that is a PCI device. `network` is namespace/name of its definition."""

    network: str
    interface: str
    pci: str


async def node_states(kube: Kube, node: str | None = None) -> dict[str, Object]:
    """The operator's view of each node, or of one, by its name; {} on a cluster without the operator."""
    fields = {"metadata.name": node} if node else None
    try:
        return {s["metadata"]["name"]: s for s in await kube.list(NODE_STATES, fields=fields)}
    except NotServed:
        return {}


def interfaces(state: Object) -> list[dict[str, Any]]:
    """The PFs of a node."""
    return list((state.get("status") or {}).get("interfaces") or ())


def functions(state: Object) -> list[Function]:
    """All VFs of a node that are there, by PF and number."""
    wanted = {i["pciAddress"]: i for i in (state.get("spec") or {}).get("interfaces") or ()}
    return [
        Function(
            state["metadata"]["name"],
            pf.get("name", ""),
            pf["pciAddress"],
            int(vf["vfID"]),
            vf["pciAddress"],
            _resource(wanted.get(pf["pciAddress"], {}), int(vf["vfID"])),
        )
        for pf in interfaces(state)
        for vf in sorted(pf.get("Vfs") or (), key=lambda v: int(v["vfID"]))
    ]


def _resource(wanted: dict[str, Any], number: int) -> str:
    for group in wanted.get("vfGroups") or ():
        if number in in_range(group.get("vfRange", "")):
            return str(group.get("resourceName", ""))
    return ""


def in_range(text: str) -> range:
    """The VFs of a group: `0-3` is 0, 1, 2 and 3; nothing when it can't be read."""
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        return range(0)
    return range(int(first), int(last or first) + 1)


def attachments(pod: Object) -> list[Attachment]:
    """A pod's interfaces that are PCI devices, in the order in which they were made."""
    try:
        annotations = annotations_of(pod)
        listed = json.loads(annotations.get(STATUS) or annotations.get(OLD_STATUS) or "[]")
        return list(_attachments(listed))
    except (ValueError, TypeError, AttributeError):
        return []  # damaged by whoever else may write annotations


def _attachments(listed: list[dict[str, Any]]) -> Iterator[Attachment]:
    for entry in listed:
        # A vDPA device stands on a VF, which its device-info names in the same way (Device Information Spec).
        info = entry.get("device-info") or {}
        pci = next((a for kind in ("pci", "vdpa") if (a := (info.get(kind) or {}).get("pci-address"))), None)
        if pci:
            yield Attachment(str(entry.get("name", "")), str(entry.get("interface", "")), str(pci))


def users(pods: list[Object]) -> dict[tuple[str, str], Object]:
    """The pod that uses each VF, by node and PCI address."""
    return {
        (pod["spec"].get("nodeName", ""), attachment.pci): pod
        for pod in pods
        if not is_finished(pod)
        for attachment in attachments(pod)
    }
