"""The operation that lets a node's GPUd see an XID; undo tells it that the component is healthy.

GPUd holds a fatal XID against a node until the node restarts or somebody says so, wherever it read of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import RESTORED, Undone
from gameday.platform import gpud
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube


@dataclass(frozen=True)
class GpudInject:
    """One XID on one node, whose GPUd was healthy before; 0 where it reads of one by itself."""

    kind: ClassVar[str] = "gpud"
    ref: Ref
    url: str
    xid: int

    @property
    def summary(self) -> str:
        return (
            f"GPUd is told of XID {self.xid}"
            if self.xid
            else "GPUd reads of an XID, and is told to forget it"
        )

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, "ref": self.ref.to_data(), "url": self.url, "xid": self.xid}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> GpudInject:
        return cls(Ref.from_data(data["ref"]), data["url"], data["xid"])

    async def make(self, kube: Kube) -> None:
        if self.xid:
            await gpud.inject(self.url, self.xid)

    async def undo(self, kube: Kube) -> Undone:
        if await gpud.health(self.url, gpud.XID_COMPONENT) != "Healthy":
            await gpud.set_healthy(self.url, gpud.XID_COMPONENT)
        return RESTORED

    async def audit(self, kube: Kube) -> Undone:
        health = await gpud.health(self.url, gpud.XID_COMPONENT)
        if health == "Healthy":
            return RESTORED
        return Undone("failed", f"GPUd says {gpud.XID_COMPONENT} is {health}")
