"""The operations that change Slurm, each recorded with the way to it and without its token.

A node's reason marks it as ours, since Slurm keeps one reason for whoever drains a node: what an admin did
before or meanwhile stays so, and is reported.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gameday.experiment.text import plural
from gameday.ledger.operations import RESTORED, Operation, Refused, Undone
from gameday.platform.effect import Touch
from gameday.platform.errors import Unreachable
from gameday.platform.objects import Ref
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import SlurmError, Via

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.slurm.model import Node

API = "slurm.schedmd.com"  # stands where an object of Kubernetes has its apiVersion


def slurm_ref(kind: str, name: str) -> Ref:
    """A node, job or partition of Slurm, for records and for people."""
    return Ref(API, f"Slurm{kind}", name)


def marker(run: str) -> str:
    """How the reasons of a run's drains begin."""
    return f"gameday {run}"


@dataclass(frozen=True)
class _SlurmOperation(Operation):
    """Changes of Slurm: `name` is the node's, the partition's or the job's."""

    kind: ClassVar[str]
    one_request: ClassVar[bool] = True
    about: ClassVar[str]
    via: Via
    name: str

    @property
    def ref(self) -> Ref:
        return slurm_ref(self.about, self.name)

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, **vars(self), "via": self.via.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        return cls(**{k: v for k, v in data.items() if k != "op"} | {"via": Via.from_data(data["via"])})

    def clash(self, other: Operation) -> str:
        """A node that a run both drains and resumes can't be put back one by one: Slurm keeps one reason."""
        kinds = {self.kind, other.kind}
        return f"its undo would undo {other.summary}" if kinds == {"slurm-node", "slurm-resume"} else ""

    async def make(self, kube: Kube) -> None:
        await self._make(Slurm.of(self.via, kube))

    async def undo(self, kube: Kube) -> Undone:
        try:
            return await self._undo(Slurm.of(self.via, kube))
        except SlurmError as error:  # an Unreachable one is tried again by the ledger
            return Undone("failed", str(error))

    async def audit(self, kube: Kube) -> Undone:
        return await self._audit(Slurm.of(self.via, kube))

    @abstractmethod
    async def _make(self, slurm: Slurm) -> None: ...

    @abstractmethod
    async def _undo(self, slurm: Slurm) -> Undone: ...

    @abstractmethod
    async def _audit(self, slurm: Slurm) -> Undone: ...


@dataclass(frozen=True)
class OutOfService(_SlurmOperation):
    """Drain a node, or set it down; undo resumes it where the reason is still ours."""

    kind: ClassVar[str] = "slurm-node"
    about: ClassVar[str] = "Node"
    state: str  # DRAIN, DOWN
    run: str
    reason: str
    before: str  # the node's state, in sinfo's word

    @property
    def summary(self) -> str:
        return f"{self.before} → {self.state}"

    async def _make(self, slurm: Slurm) -> None:
        node = await slurm.node(self.name)
        if node.out:
            raise Refused(f"{self.ref}: it was in service when it was planned, but now it is {_seen(node)}")
        await slurm.update_node(self.name, self.state, f"{marker(self.run)}: {self.reason}")

    async def _undo(self, slurm: Slurm) -> Undone:
        judged = await self._audit(slurm)
        if judged.state != "failed":
            return judged
        node = await slurm.node(self.name)
        # RESUME would also bring back a node that died while it was drained; UNDRAIN leaves that to Slurm.
        died = self.state == "DRAIN" and "DOWN" in node.states
        try:
            await slurm.update_node(self.name, "UNDRAIN" if died else "RESUME")
        except SlurmError as no:
            return await self._said_no(slurm, node, no)
        return Undone("undone", f"no longer drained; it is {node.word} by itself") if died else RESTORED

    async def _said_no(self, slurm: Slurm, node: Node, no: SlurmError) -> Undone:
        """A slurmctld that has just started refuses to resume a node, though at times it does it, too."""
        judged = await self._audit(slurm)
        if judged.state == "failed" and "UNKNOWN" in node.states:
            raise Unreachable(f"{no} (it has not registered since slurmctld started)") from no
        return Undone("failed", str(no)) if judged.state == "failed" else judged

    async def _audit(self, slurm: Slurm) -> Undone:
        node = next((n for n in await slurm.nodes() if n.name == self.name), None)
        if node is None:
            return Undone("kept", "Slurm has no such node any more, so there is nothing to restore")
        if "DRAIN" not in node.states and (self.state == "DRAIN" or not node.out):
            return RESTORED
        if not node.reason.startswith(marker(self.run)):
            return Undone("kept", f"it is {_seen(node)} by someone else, and left so")
        return Undone("failed", f"still {_seen(node)}")


@dataclass(frozen=True)
class BackInService(_SlurmOperation):
    """Resume a node that is drained or down; undo takes it out again for the reason it had.

    Slurm forgets the reason of a node in service, so nothing can mark it; ours is one that is in service.
    """

    kind: ClassVar[str] = "slurm-resume"
    about: ClassVar[str] = "Node"
    state: str  # DRAIN, DOWN: what it was
    reason: str

    @property
    def summary(self) -> str:
        return f"{self.state} ({self.reason}) → RESUME"

    async def _make(self, slurm: Slurm) -> None:
        node = await slurm.node(self.name)
        if self.state not in node.states or node.reason != self.reason:
            planned = f"{self.state} ({self.reason})"
            raise Refused(f"{self.ref}: it was {planned} when it was planned, but now it is {_seen(node)}")
        await slurm.update_node(self.name, "RESUME")

    async def _undo(self, slurm: Slurm) -> Undone:
        judged = await self._audit(slurm)
        if judged.state == "failed":
            await slurm.update_node(self.name, self.state, self.reason)
            return RESTORED
        return judged

    async def _audit(self, slurm: Slurm) -> Undone:
        node = next((n for n in await slurm.nodes() if n.name == self.name), None)
        if node is None:
            return Undone("kept", "Slurm has no such node any more, so there is nothing to restore")
        if not node.out:
            return Undone("failed", f"still in service, but it was {self.state} ({self.reason})")
        if node.reason == self.reason:
            return RESTORED
        return Undone("kept", f"it is {_seen(node)} by someone else, and left so")


@dataclass(frozen=True)
class HoldPartition(_SlurmOperation):
    """Set a partition's state; undo puts the one before back where ours is still there."""

    kind: ClassVar[str] = "slurm-partition"
    about: ClassVar[str] = "Partition"
    state: str
    before: str
    also: tuple[str, ...] = ()  # what earlier changes of the run set, whose undo went over to this one

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        read = super().from_data(data)
        return replace(read, also=tuple(read.also))

    @property
    def summary(self) -> str:
        return f"{self.before} → {self.state}"

    def over(self, earlier: Operation) -> tuple[None, Self] | None:
        if not isinstance(earlier, HoldPartition):
            return None
        if self.before not in (earlier.state, *earlier.also, earlier.before):
            return None  # somebody set it in between: their state is what this one has to bring back
        return None, replace(self, before=earlier.before, also=(*earlier.also, earlier.state, *self.also))

    @property
    def carries(self) -> bool:
        return bool(self.also)

    async def _make(self, slurm: Slurm) -> None:
        now = (await slurm.partition(self.name)).state
        if now not in (self.before, *self.also):
            raise Refused(f"{self.ref}: it was {self.before} when it was planned, but now it is {now}")
        await slurm.update_partition(self.name, self.state)

    async def _undo(self, slurm: Slurm) -> Undone:
        judged = await self._audit(slurm)
        if judged.state == "failed":
            await slurm.update_partition(self.name, self.before)
            return RESTORED
        return judged

    async def _audit(self, slurm: Slurm) -> Undone:
        now = next((p.state for p in await slurm.partitions() if p.name == self.name), None)
        if now is None:
            return Undone("kept", "Slurm has no such partition any more, so there is nothing to restore")
        if now == self.before:
            return RESTORED
        if now in (self.state, *self.also):
            return Undone("failed", f"still {now}")
        return Undone("kept", f"set to {now} by someone else, and left so")


@dataclass(frozen=True)
class Requeue(_SlurmOperation):
    """Requeue a job. Irreversible: it starts again, from its last checkpoint if it has any."""

    kind: ClassVar[str] = "slurm-requeue"
    past: ClassVar[str] = "requeued"
    about: ClassVar[str] = "Job"
    number: int
    restarts: int | None = None  # before it; None in a record of a version that did not note them

    @property
    def summary(self) -> str:
        return "requeue"

    async def _make(self, slurm: Slurm) -> None:
        await slurm.requeue(self.number)

    async def _audit(self, slurm: Slurm) -> Undone:
        job = next((j for j in await slurm.jobs() if j.number == self.number), None)
        if job is None:
            return Undone("kept", "Slurm no longer knows the job, so there is nothing to restore")
        again = self.restarts is None or job.restarts > self.restarts
        if again or job.state in ("PENDING", "REQUEUED"):  # it ran when it was planned
            return Undone("irreversible", "a requeued job starts again from its last checkpoint, or anew")
        return Undone(
            "undone", f"it was not requeued: {job.state}, restarted {plural(job.restarts, 'time')} as before"
        )

    _undo = _audit


def _seen(node: Node) -> str:
    return f"{node.word} ({node.reason or 'no reason given'})"
