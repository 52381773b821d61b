"""The operation that puts a value into a node's DCGM; undo puts back the one before, if ours is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import RESTORED, Refused, Undone
from gameday.platform import dcgm
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

GONE = Undone("undone", "no DCGM pod is on the node any more, and the value went with it")


@dataclass(frozen=True)
class DcgmInject:
    """One field of one GPU; `ref` is the node, since pods come and go."""

    kind: ClassVar[str] = "dcgm"
    ref: Ref
    gpu: int
    field: int
    after: float
    before: float = 0.0  # also where DCGM had no value: there is no way to take one out again

    @classmethod
    async def of(cls, kube: Kube, node: Ref, gpu: int, field: int, after: float) -> DcgmInject:
        """The operation, with the value before read from DCGM. Raises Refused when it is so already."""
        before = await dcgm.value(kube, node.name, gpu, field) or 0.0
        if before == after:
            raise Refused(f"{node} GPU {gpu}: DCGM field {field} is {after:g} already, nothing would change")
        return cls(node, gpu, field, after, before)

    @property
    def summary(self) -> str:
        return f"DCGM field {self.field} of GPU {self.gpu}: {self.before:g} → {self.after:g}"

    def to_data(self) -> dict[str, Any]:
        numbers = {"gpu": self.gpu, "field": self.field, "after": self.after, "before": self.before}
        return {"op": self.kind, "ref": self.ref.to_data(), **numbers}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> DcgmInject:
        return cls(Ref.from_data(data["ref"]), data["gpu"], data["field"], data["after"], data["before"])

    async def make(self, kube: Kube) -> None:
        engine = await dcgm.engine(kube, self.ref.name)
        if engine is None:
            raise Refused(f"{self.ref}: its DCGM pod is gone")
        await dcgm.inject(kube, engine, self.gpu, self.field, self.after)

    async def undo(self, kube: Kube) -> Undone:
        engine = await dcgm.engine(kube, self.ref.name)
        if engine is None:
            return GONE
        now = await dcgm.read(kube, engine, self.gpu, self.field)
        if now == self.after:
            await dcgm.inject(kube, engine, self.gpu, self.field, self.before)
            return RESTORED
        return self._judge(now)

    async def audit(self, kube: Kube) -> Undone:
        engine = await dcgm.engine(kube, self.ref.name)
        if engine is None:
            return GONE
        now = await dcgm.read(kube, engine, self.gpu, self.field)
        return Undone("failed", f"still so: {self.summary}") if now == self.after else self._judge(now)

    def _judge(self, now: float | None) -> Undone:
        if now in (None, self.before):
            return RESTORED
        return Undone("kept", f"DCGM field {self.field} of GPU {self.gpu} is {now:g} by now, and was left so")
