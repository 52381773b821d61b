"""What a fault is: a spec from the file, a plan of its targets, an injection, and evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gameday.platform.objects import Ref
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.experiment.model import Spec as BaseSpec
    from gameday.ledger.ledger import StepLedger


class PlanError(Exception):
    """A fault cannot be planned; the text says what is wrong with which target and what to do."""


class FaultError(Exception):
    """A fault could not be put in force."""


@dataclass(frozen=True)
class FaultPlan:
    """What one fault will do, and to what. Plain data but for the spec, so that a plan can be kept.

    `victims` that last are fixed by UID; pods are resolved again when their step comes. `changes`
    and `irreversible` are sentences for people; `needs` are RBAC permissions as `kubectl auth can-i`
    takes them ("create pods/eviction inference": verb, resource.group/subresource, namespace);
    `ends_pods` says that the victims, or the pods on them, are gone once it is in, so that a repetition
    meets others; `data` is the fault's own.
    """

    spec: Any
    victims: tuple[Victim, ...]
    changes: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    ends_pods: bool = False
    data: dict[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        return {
            "victims": [
                {"role": v.role, "node": v.node, "gpus": v.gpus, "pods": v.pods, "ref": v.ref.to_data()}
                for v in self.victims
            ],
            "changes": list(self.changes),
            "irreversible": list(self.irreversible),
            "warnings": list(self.warnings),
            "needs": list(self.needs),
            "endsPods": self.ends_pods,
            "data": self.data,
        }

    @classmethod
    def from_data(cls, spec: Any, data: dict[str, Any]) -> FaultPlan:
        victims = tuple(
            Victim(Ref.from_data(v["ref"]), v["role"], v["node"], v["gpus"], v["pods"])
            for v in data["victims"]
        )
        texts = {k: tuple(data[k]) for k in ("changes", "irreversible", "warnings", "needs")}
        return cls(spec, victims, ends_pods=data["endsPods"], data=data["data"], **texts)


@dataclass(frozen=True)
class Evidence:
    """What was read back from the data plane. `state`: in, out, partial, over.

    Over: it was in, and nothing of it is left to take back, since the platform put it right by itself, say.
    """

    state: str
    facts: tuple[str, ...] = ()


class Fault(Protocol):
    """One way to break something. `Spec` is its part of the experiment file."""

    Spec: ClassVar[type[BaseSpec]]
    instant: ClassVar[bool]  # over once injected (a killed pod): there is nothing to hold or to undo

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        """Read only; names every target. Raises PlanError."""
        ...

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        """Put it in force; changes only through the ledger. Raises FaultError."""
        ...

    # Optional: `async def hold(self, plan, world, seconds)`, what it does while in force; else it only waits.

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """Read back from the data plane whether it is in or out."""
        ...
