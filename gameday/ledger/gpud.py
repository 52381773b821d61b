"""The operation that lets a node's GPUd see an XID; undo tells it that the component is healthy.

GPUd holds a fatal XID against a node until the node restarts or somebody says so, wherever it read of it.
What it holds against the node for another XID than ours is true, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import RESTORED, Operation, Undone
from gameday.platform import gpud
from gameday.platform.effect import Touch
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube


@dataclass(frozen=True)
class GpudInject(Operation):
    """One XID on one node, whose GPUd was healthy before; with `reads` it reads of it by itself.

    `since`: when GPUd had noted the last XID before ours, in Unix seconds of the node's clock, and `known`
    how many in that second; `times`: how often it will note ours.
    """

    kind: ClassVar[str] = "gpud"
    one_request: ClassVar[bool] = True
    ref: Ref
    url: str
    xid: int
    since: float = 0.0
    times: int = 1
    reads: bool = False
    known: int = 0

    @classmethod
    async def of(cls, ref: Ref, url: str, xid: int, times: int = 1, *, reads: bool = False) -> GpudInject:
        """The operation, with what GPUd has noted before."""
        noted = await gpud.xids_since(url, 0.0)
        since = noted[-1][0] if noted else 0.0
        known = sum(at == since for at, _ in noted)
        return cls(ref, url, xid, since, times, reads, known)

    @property
    def summary(self) -> str:
        if self.reads:
            return f"GPUd reads of XID {self.xid}, and is told to forget it"
        return f"GPUd is told of XID {self.xid}"

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, **vars(self), "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> GpudInject:
        options = {k: data[k] for k in ("since", "times", "reads", "known") if k in data}
        return cls(Ref.from_data(data["ref"]), data["url"], data["xid"], **options)

    async def make(self, kube: Kube) -> None:
        if not self.reads:
            await gpud.inject(self.url, self.xid)

    async def undo(self, kube: Kube) -> Undone:
        judged = await self.audit(kube)
        if judged.state == "failed":
            await gpud.set_healthy(self.url, gpud.XID_COMPONENT)
            return await self.audit(kube)
        return judged

    async def audit(self, kube: Kube) -> Undone:
        health = await gpud.health(self.url, gpud.XID_COMPONENT)
        if health == "Healthy":
            return RESTORED
        if real := await self._real():
            return Undone("kept", f"GPUd holds {real} against the node, which is not of this run")
        return Undone("failed", f"GPUd says {gpud.XID_COMPONENT} is {health}")

    async def _real(self) -> str:
        """An XID that is not ours: of another number, or once more than we had it say ours."""
        noted = [number for _, number in await gpud.xids_since(self.url, self.since)][self.known :]
        others = [n for n in noted if n not in (None, self.xid)]
        if others:
            return f"XID {others[-1]}"
        return f"XID {self.xid}" if len(noted) > self.times else ""
