"""The operation that puts a value into a node's DCGM; undo puts back the one before, if ours is there.

An error stays in the health of the host engine, and in the judgement of everyone who asks it, until the
engine is started anew: then the undo deletes the DCGM pod, whose DaemonSet makes another one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import RESTORED, Operation, Refused, Undone
from gameday.platform import dcgm
from gameday.platform.effect import Touch
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

HEALTHY = "Healthy"
RESTARTED_WITHIN = 90.0  # seconds until another engine answers
GONE = Undone("undone", "no DCGM pod is on the node any more, and the value went with it")


@dataclass(frozen=True)
class DcgmInject(Operation):
    """One field of one GPU; `ref` is the node, since pods come and go."""

    kind: ClassVar[str] = "dcgm"
    one_request: ClassVar[bool] = True
    ref: Ref
    gpu: int
    field: int
    after: float
    before: float = 0.0  # also where DCGM had no value: there is no way to take one out again
    also: tuple[float, ...] = ()  # what earlier changes of the run wrote, whose undo went over to this one
    health: str = ""  # what the engine's health watches said before; "" where there are none

    @classmethod
    async def of(cls, kube: Kube, node: Ref, gpu: int, field: int, after: float) -> DcgmInject:
        """The operation, with the value before read from DCGM. Raises Refused when it is so already."""
        engine = await dcgm.engine(kube, node.name)
        if engine is None:
            raise Refused(f"{node}: its DCGM pod is gone")
        before = await dcgm.read(kube, engine, gpu, field) or 0.0
        if before == after:
            raise Refused(f"{node} GPU {gpu}: DCGM field {field} is {after:g} already, nothing would change")
        return cls(node, gpu, field, after, before, health=await dcgm.health(kube, engine))

    @property
    def summary(self) -> str:
        return f"DCGM field {self.field} of GPU {self.gpu}: {self.before:g} → {self.after:g}"

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, **vars(self), "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> DcgmInject:
        return cls(
            Ref.from_data(data["ref"]),
            data["gpu"],
            data["field"],
            data["after"],
            data["before"],
            tuple(data.get("also") or ()),
            data.get("health", ""),
        )

    def over(self, earlier: Operation) -> tuple[None, DcgmInject] | None:
        if not isinstance(earlier, DcgmInject) or (earlier.gpu, earlier.field) != (self.gpu, self.field):
            return None
        if self.before not in (earlier.after, *earlier.also, earlier.before):
            return None  # somebody set it in between: their value is what this one has to bring back
        also = (*earlier.also, earlier.after, *self.also)
        return None, replace(self, before=earlier.before, also=also, health=earlier.health)

    @property
    def carries(self) -> bool:
        return bool(self.also)

    def _is_ours(self, value: float | None) -> bool:
        return value in (self.after, *self.also) and value != self.before

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
        if self._is_ours(now):
            await dcgm.inject(kube, engine, self.gpu, self.field, self.before)
            now = self.before
        if await self._latched(kube, engine):
            return await self._restart(kube, engine)
        return self._judge(now)

    async def audit(self, kube: Kube) -> Undone:
        engine = await dcgm.engine(kube, self.ref.name)
        if engine is None:
            return GONE
        now = await dcgm.read(kube, engine, self.gpu, self.field)
        if self._is_ours(now):
            return Undone("failed", f"still so: {self.summary}")
        if said := await self._latched(kube, engine):
            return Undone("failed", f"the health of {self.ref} in DCGM is {said}, and was {self.health}")
        return self._judge(now)

    async def _latched(self, kube: Kube, engine: dcgm.Engine) -> str:
        """The verdict of the health watches, when they said Healthy before and do not any more; else ""."""
        said = await dcgm.health(kube, engine) if self.health == HEALTHY else HEALTHY
        return "" if said in (HEALTHY, "") else said

    async def _restart(self, kube: Kube, engine: dcgm.Engine) -> Undone:
        """Start the engine anew, and see that it finds nothing by itself."""
        await kube.delete(engine.pod)
        loop = asyncio.get_running_loop()
        deadline, said = loop.time() + RESTARTED_WITHIN, "not answering"
        while loop.time() < deadline:
            found = await dcgm.engine(kube, self.ref.name)
            if found is not None and found.pod.uid != engine.pod.uid:
                try:
                    await dcgm.read(kube, found, self.gpu, self.field)  # it answers; who watched asks again
                    if not (said := await self._latched(kube, found)):
                        return Undone(
                            "undone", f"DCGM was restarted ({engine.pod}): its health was held there"
                        )
                except PlatformError as error:
                    said = str(error)  # it is starting
            await asyncio.sleep(0.5)
        return Undone("failed", f"DCGM was restarted ({engine.pod}), and its health is {said} all the same")

    def _judge(self, now: float | None) -> Undone:
        if now in (None, self.before):
            return RESTORED
        return Undone("kept", f"DCGM field {self.field} of GPU {self.gpu} is {now:g} by now, and was left so")
