"""What users know of a network interface: a node and a name, a PCI address, a resource, a pod that has it."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, LabelSelector, Line, NodePick, ObjectName, Pick, Spec
from gameday.experiment.values import checked


def _pci(text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", text):
        raise ValueError(f"`{text}` is no PCI address; expected one such as 0000:1a:00.2, in lower case")


def _interface(text: str) -> None:
    # Linux' dev_valid_name, for alternative names as well; no option of a tool begins so.
    if not re.fullmatch(r"[^\s/:%-][^\s/:%]{0,126}", text) or text in (".", "..") or not text.isprintable():
        raise ValueError(f"`{text}` is no interface's name, as ens1f0")


def _resource(text: str) -> None:
    if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", text):
        raise ValueError(f"`{text}` is no resource of a node, as openshift.io/mlnx_rdma")


_WAYS = "`interface`, `pciAddress` and `resource`"

PciAddress = Annotated[str, checked(_pci)]
Interface = Annotated[str, checked(_interface)]
NodeResource = Annotated[str, checked(_resource)]


class PodTarget(Spec):
    """Pods whose network is meant."""

    selector: LabelSelector | None = Field(None, description="The pods, by label selector.")
    name: ObjectName | None = Field(None, description="The pod, by name.")
    namespace: DNSLabel = Field(description="Their namespace.")
    pick: Pick = Field(1, description="How many of the pods: a number, a share such as 20%, or `all`.")
    network: Line | None = Field(
        None, description="The NetworkAttachmentDefinition, as `rdma` or `training/rdma`; else any."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.selector is None) == (self.name is None):
            raise ValueError("expected either `selector` or `name`")
        return self


class FabricTarget(Spec):
    """Where a fault of the network is made."""

    beside_pods: ClassVar[bool] = False  # whether `interface` with `pod` is one of the nodes they run on

    nodes: NodePick | None = Field(None, description="The nodes: by name, or by selector and number.")
    interface: Interface | None = Field(None, description="An interface of the nodes, as ens1f0.")
    pci_address: PciAddress | None = Field(None, description="A PCI device of the nodes, as 0000:1a:00.0.")
    resource: NodeResource | None = Field(
        None, description="What serves this resource of the nodes, as openshift.io/mlnx_rdma."
    )
    pod: PodTarget | None = Field(None, description="What these pods use.")
    pick: Pick = Field(
        1, description="How many of those that match on each node, or of each pod: a number, a share, `all`."
    )
    allow_management: bool = Field(
        False,
        description="Even where the node is managed through it; the fault must then hold for less than 2m.",
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        ways = [self.interface, self.pci_address, self.resource]
        named = sum(way is not None for way in ways)
        if (self.nodes is None) == (self.pod is None):
            raise ValueError("expected either `nodes` or `pod`")
        if self.nodes and named != 1:
            raise ValueError(f"expected one of {_WAYS} with `nodes`")
        if self.pod and named > (self.interface is not None and self.beside_pods):
            allowed = "; `interface` alone may be added" if self.beside_pods else ""
            raise ValueError(f"`pod` tells already what is meant, without {_WAYS}{allowed}")
        return self
