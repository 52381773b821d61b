"""Faults: each is planned from its part of the file, inspected, injected, held, and seen to be in and out.

A fault has no state. What one of its methods must know of another goes through plain data: from `plan`
through the FaultPlan, from `inject` and `hold` through the Injected, which holds what they recorded and
what the ledger has of the step. So whatever is cut off half-way, what comes after knows what was done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from gameday import states
from gameday.experiment.model import Spec
from gameday.extend.plain import freeze
from gameday.platform.effect import Effect, NodeState
from gameday.platform.errors import Failure
from gameday.platform.objects import Ref
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.extend.step import Step

S = TypeVar("S", bound=Spec)

SETTLE_WITHIN = 120.0  # seconds in which a fault is to be seen in, or out, unless its spec says otherwise


class PlanError(Failure):
    """A fault cannot be planned; the text says what is wrong with which target and what to do."""


class Already(PlanError):
    """Nothing would change: the state that a fault is to bring about is there."""


class FaultError(Failure):
    """A fault could not be put in force."""


@dataclass(frozen=True)
class FaultPlan(Generic[S]):
    """The changes and the targets of one fault. Plain data but for the spec, so that a plan can be kept.

    `victims` that last are fixed by UID; pods are resolved again when their step comes. `changes`
    and `irreversible` are sentences for people; `needs` are RBAC permissions as `Permission.parse`
    takes them ("create pods/eviction inference": verb, resource.group/subresource, namespace; then the name,
    where it is known: "patch nodes - gpu-0"; see platform.permission);
    `ends_pods` says that the victims, or the pods on them, are gone once it is in, so that a repetition
    meets others; `data` is the fault's own. `effects` is everything that is touched, ended or made to fail,
    the victims included: a plan that knows them already names them, else `make_plan` asks the fault's
    `effects`. Sentences on the pods that end are added to `irreversible` from these. `basis` is what the plan
    was made from and what must be so still when the fault goes in, in words with its value ("Deployment a/b:
    spec.replicas": 3). Nothing of it can be changed.
    """

    spec: S
    victims: tuple[Victim, ...]
    changes: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    ends_pods: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    basis: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", freeze(self.data))
        object.__setattr__(self, "basis", freeze(self.basis))

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
            "basis": self.basis,
            "effects": [e.to_data() for e in self.effects],
        }

    @classmethod
    def from_data(cls, spec: S, data: dict[str, Any]) -> FaultPlan[S]:
        victims = tuple(
            Victim(Ref.from_data(v["ref"]), v["role"], v["node"], v["gpus"], v["pods"])
            for v in data["victims"]
        )
        texts = {k: tuple(data[k]) for k in ("changes", "irreversible", "warnings", "needs")}
        effects = tuple(Effect.from_data(e) for e in data["effects"])
        own, basis = data["data"], data["basis"]
        return cls(spec, victims, ends_pods=data["endsPods"], data=own, effects=effects, basis=basis, **texts)


@dataclass(frozen=True)
class Made:
    """One change of a step as the ledger has it: its operation as recorded, its state, what was learned."""

    operation: dict[str, Any]  # frozen
    state: str
    learned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The operation's kind, under which it is registered."""
        return str(self.operation["op"])

    @property
    def ref(self) -> Ref:
        """The object that was changed."""
        return Ref.from_data(self.operation["ref"])


@dataclass(frozen=True)
class Injected:
    """An injection as far as it is known, however far it came; nothing of it can be changed.

    `made` is what the ledger has of this step, intended changes included: known even of an injection that
    never returned. `data` is what the fault recorded besides, as far as it came.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    made: tuple[Made, ...] = ()

    def of(self, kind: str) -> list[Made]:
        """The changes by one kind of operation, but for those that were refused for certain."""
        return [m for m in self.made if m.kind == kind and m.state != states.Change.NOT_MADE]


@dataclass(frozen=True)
class Evidence:
    """A look at the data plane. `state`: in, out, partial, over. Raises ValueError for others.

    Over: it was in, and nothing of it is left to take back, since the platform put it right by itself, say.
    `noted` is what the next look must know of this one; it is found in the Injected's data then.
    """

    state: str  # a Presence from then on
    facts: tuple[str, ...] = ()
    noted: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", states.Presence(self.state))


class Fault(ABC, Generic[S]):
    """One way to break something. `Spec` is its part of the experiment file, `example` one as YAML."""

    Spec: ClassVar[type[Spec]]
    example: ClassVar[str] = ""
    instant: ClassVar[bool] = False  # over once injected (a killed pod): there is nothing to hold or to undo
    heals: ClassVar[bool] = False  # the platform is to notice it and to put it right: that is no deviation
    ends_by_hand: ClassVar[bool] = False  # what it ends has a change in the ledger, or was ended by others
    loses_by: ClassVar[str] = "force"  # the option that allows it to end pods that nothing makes again
    asks_cluster: ClassVar[bool] = True  # an experiment in which nothing does needs no kubeconfig
    needs_slurm: ClassVar[bool] = False  # preflight sees that Slurm answers, and the plan is for that one

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"{type(self).__name__} keeps no state ({name}): what comes later reads step.record")

    def of(self, spec: S) -> Fault[S]:
        """The fault that a spec means: this one. (A family gives the one that is chosen: see OneOf.)"""
        return self

    @abstractmethod
    async def plan(self, spec: S, world: World) -> FaultPlan[S]:
        """Read only; names every target. Raises PlanError for whatever speaks against it.

        Asked again for a kept plan and before the injection, then with `world.approved`: what was approved is
        chosen again as far as it is there, and the injection gets this last plan.
        """

    async def effects(self, plan: FaultPlan[S], world: World) -> tuple[Effect, ...]:
        """All that it would touch, end or make fail as things are now, beside its victims. Read only.

        Asked when it is planned, and again before it is injected.
        """
        return ()

    def leaves(self, plan: FaultPlan[S]) -> frozenset[NodeState]:
        """How it leaves nodes, which may make others act on them; by default as they were."""
        return frozenset()

    def may_lose(self, spec: S) -> bool:
        """Whether it may end pods that nothing makes again; by default where its option `force` says so."""
        return bool(getattr(spec, "force", False))

    async def inspect(self, plan: FaultPlan[S], step: Step) -> list[str]:
        """Reasons against it, looked for on the spot before any fault begins; by default none.

        A change that a look needs goes through the ledger, and is undone before the run goes on.
        """
        return []

    @abstractmethod
    async def inject(self, plan: FaultPlan[S], step: Step) -> None:
        """Put it in force; changes only through `step.ledger`. Raises FaultError.

        May be cut off at any await, and has half a second for its own end then: what it would change later,
        the ledger refuses. What `settled` has to know beyond the ledger's changes goes to `step.record`,
        before the change that it belongs to.
        """

    async def hold(self, plan: FaultPlan[S], step: Step, seconds: float) -> None:
        """Keep it in force; by default wait. One that has something to do meanwhile may end it sooner."""
        import asyncio  # not loaded to check a file

        await asyncio.sleep(seconds)

    @abstractmethod
    async def settled(self, plan: FaultPlan[S], injected: Injected, world: World) -> Evidence:
        """Read back from the data plane whether it is in or out; asked until it is what it should be.

        Asked every few seconds while it is held, too: out means then that somebody else ended it, and over
        that it ended by itself.
        Also asked whether it is out after an injection that failed, or never began. Raises FaultError for
        what will never settle.
        """

    def settle_within(self, spec: S) -> float:
        """Seconds that it may take to be seen in, and as many to be seen out."""
        return SETTLE_WITHIN

    @classmethod
    def inspects(cls) -> bool:
        """Whether it has anything to look for on the spot."""
        return cls.inspect is not Fault.inspect
