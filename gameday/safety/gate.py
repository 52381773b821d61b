"""The gate: what is to be done, held against what was approved, what is allowed, and what is protected.

The gate speaks when a plan is made, when a kept plan is about to run, and before each look on the spot and
each injection, on what is there then. What was approved runs, or less, and never more. The last word is at
the ledger: an operation of a step that is not let in, or on an object outside of its effects, is not even
written down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gameday.experiment.model import Experiment
from gameday.experiment.text import plain, plural, some
from gameday.extend import Already, FaultError, FaultPlan
from gameday.faults.lost import with_dependents, with_losses
from gameday.ledger.ledger import IDENTITY
from gameday.ledger.locks import Lock, acquire, lock_of
from gameday.ledger.operations import Refused, touched
from gameday.ledger.store import NAMESPACE
from gameday.platform import fallback
from gameday.platform.claims import Devices, held
from gameday.platform.effect import LOOSE, Effect, Kind, Touch, of_victim
from gameday.platform.errors import Failure
from gameday.platform.objects import Ref
from gameday.platform.world import Victim, World
from gameday.safety.blast import not_allowed, outside, outside_nodes
from gameday.safety.installed import fault_of
from gameday.safety.lever import why_pulled
from gameday.safety.plan import Plan, StepPlan, planned_again, with_effects, without_vanished
from gameday.safety.protection import protected
from gameday.safety.targets import locks_of

if TYPE_CHECKING:
    from gameday.ledger.operations import Operation

MOST = 5  # sentences of one refusal
_ROLES = ("node", "workload")  # the roles of victims that nothing takes the place of


@dataclass
class Admission:
    """The bounds of one step: its effects, and as many pods as were approved."""

    path: str
    effects: tuple[Effect, ...]
    pods: int  # that may be touched, whichever they are
    gpus: int  # that these pods may hold
    namespaces: frozenset[str]  # of these pods
    program_namespace: str = NAMESPACE
    held: Mapping[str, Devices] = field(default_factory=dict)  # by claims, by pod UID
    _seen: set[Ref] = field(default_factory=set)  # pods that changes were admitted for
    _chosen: set[str] = field(default_factory=set)  # nodes that a fault's pods have come to since
    _looked_at: set[Ref] = field(default_factory=set)  # pods that a fault has chosen since

    def __post_init__(self) -> None:
        self._looked_at |= {e.ref for e in _pods(self.effects)}

    def victims(self, victims: Iterable[Victim]) -> None:
        """Admit what a fault has chosen now. Raises FaultError for more pods, or for other lasting things.

        A node where a program follows a pod is not lost, and need not be one that was approved: the gate
        holds it against the target, and locks it.
        """
        victims = list(victims)
        pods = [v for v in victims if v.role == "pod"]
        known = {e.ref.identity for e in self.effects}
        if others := [v for v in victims if v.role in _ROLES and v.ref.identity not in known]:
            raise FaultError(f"{others[0]} was not approved: plan again")
        if len(pods) > self.pods:
            raise FaultError(f"{len(pods)} pods match now, but {self.pods} were approved: plan again")
        claimed = (self.held.get(v.ref.uid or "", Devices()).gpus for v in pods)
        if sum(v.gpus for v in pods) + sum(claimed) > self.gpus:
            raise FaultError("the pods that match now hold more GPUs than were approved: plan again")
        self._chosen |= {v.ref.name for v in victims if of_victim(v).on_node}
        self._looked_at |= {v.ref for v in pods}

    def operations(self, operations: Iterable[Operation]) -> None:
        """Admit changes before they are written down. Raises Refused for one outside of what was approved."""
        for operation in operations:
            for touch in touched(operation):
                if not self._admits(touch):
                    change = f"{operation.summary} of {operation.ref}"
                    also = f", which touches {touch.ref}," if touch.ref != operation.ref else ""
                    raise Refused(f"step {self.path}: {change}{also} is outside of what was approved")

    def _admits(self, touch: Touch) -> bool:
        if touch.runs_on:
            place = (touch.ref.kind, touch.ref.namespace) == ("Pod", self.program_namespace)
            return place and touch.made and (touch.runs_on in self._chosen or self._covers(touch))
        if touch.ref.kind == "Pod" and not touch.made:
            return self._counts(touch)
        return self._covers(touch)

    def _covers(self, touch: Touch) -> bool:
        return any(e.covers(touch) for e in self.effects)

    def _counts(self, touch: Touch) -> bool:
        """A pod that the gate has looked at, by UID, may take an approved one's place, up to their number.

        What a fault reads anew, and lets nobody look at, may be protected, or a pod that nothing makes again.
        """
        if touch.ref not in self._looked_at or (
            touch.ref.namespace not in self.namespaces and not self._covers(touch)
        ):
            return False
        self._seen.add(touch.ref)
        return len(self._seen) <= self.pods


class LetIn(NamedTuple):
    """A step that may begin: its plan as things are now, the world in which it may choose pods for approved
    ones, and all its effects, those approved and those that it has now.
    """

    fault: FaultPlan[Any]
    world: World
    effects: tuple[Effect, ...]


class Gate:
    """The gate of one run, or of one plan."""

    def __init__(self, experiment: Experiment, plan: Plan, world: World) -> None:
        self._spec = experiment.spec
        self._plan, self._world = plan, world
        self._admitted: dict[str, Admission] = {}  # steps that may change something now
        self._begun: set[str] = set()  # steps that were admitted to their injection
        self.identity: frozenset[Ref] = frozenset()  # what the run's own identity is made of

    async def planned(self) -> list[str]:
        """Reasons against the plan, whoever approves it: a sentence each."""
        effects = [e for s in self._plan.steps.values() for e in s.fault.effects]
        return await self._allowed(effects)

    async def unchanged(self) -> tuple[list[str], list[str]]:
        """Where a kept plan would now be another one, or none: a sentence each; and what it warns of anew."""
        found: list[str] = []
        warnings: list[str] = []
        for step in self._plan.steps.values():
            try:
                left, _ = await without_vanished(step, self._world.kube)
                if left is None:
                    continue  # less than was approved: its step is skipped, and the report says so
                now = await planned_again(left, self._world)
            except Failure as error:
                found.append(f"step {step.path}: {error}")
                continue
            beyond = [*_moved_on(step.fault, now.fault), *self._beyond(step, now.fault.effects)]
            found += [f"step {step.path}: {text}" for text in beyond]
            new = [w for w in now.fault.warnings if w not in step.fault.warnings]
            warnings += [f"step {step.path}: {text}" for text in new]
        return found, warnings

    @asynccontextmanager
    async def looking(self, step: StepPlan, world: World) -> AsyncIterator[LetIn]:
        """Let a step look on the spot, by things that it makes there, while the block lasts.

        Raises FaultError as `admit` does.
        """
        let_in = await self._let_in(step, world, ())
        try:
            yield let_in
        finally:
            del self._admitted[step.path]

    async def admit(self, step: StepPlan, world: World, in_force: Collection[str]) -> LetIn:
        """Let a step begin.

        Raises FaultError where the step would now do more than was approved for it, or something else.
        `in_force` are the steps in force beside it. The lever is looked at last, so that nothing comes
        between the look and the injection.
        """
        let_in = await self._let_in(step, world, in_force)
        self._begun.add(step.path)
        return let_in

    async def _let_in(self, step: StepPlan, world: World, in_force: Collection[str]) -> LetIn:
        approved, beside = self._plan.steps[step.path], tuple(in_force)
        try:
            planned = (await planned_again(step, world)).fault
        except Already:
            if not self._met(step, beside) or any(v.role == "pod" for v in step.fault.victims):
                raise
            # What stands there is this run's own doing, and was so meant: only effects are asked anew.
            anew = replace(step.fault, effects=())
            planned = await with_effects(fault_of(step.kind, anew.spec), anew, world)
        now = planned.effects
        together = {*beside, *in_force}
        ours = self._met(step, together) or self._went_on(step)
        by_us = {what for path in together for what in self._plan.steps[path].fault.basis}
        changed = [] if ours else _moved_on(approved.fault, planned, by_us)
        if beyond := [*changed, *self._beyond(approved, now)]:
            raise FaultError(f"{'; '.join(beyond[:MOST])}: plan again")
        if problems := await self._allowed(now):
            raise FaultError("; ".join(problems[:MOST]))
        await self._lock({e.ref for e in now if e.on_node}, world)
        if pulled := await why_pulled(world.kube):
            raise FaultError(f"not begun: {pulled}")
        admission = self._admitted[step.path] = self._admission(approved, now)

        async def choose(victims: Iterable[Victim]) -> None:
            chosen = list(victims)
            if any(v.role == "pod" for v in chosen):
                admission.held = await held(world.kube, admission.namespaces)
            effects, _ = await with_dependents([_chosen_for(v, now) for v in chosen], world)
            effects, _ = await with_losses(effects, world.kube)
            if problems := [*_lost(approved, effects), *await self._allowed(effects)]:
                raise FaultError("; ".join(problems[:MOST]))
            admission.victims(chosen)  # the last word: from here on the ledger takes changes of them
            await self._lock({v.ref for v in chosen}, world)

        return LetIn(planned, replace(world, admit=choose), admission.effects)

    def check(self, path: str, operations: Sequence[Operation]) -> None:
        """The ledger's question before anything is written down. Raises Refused."""
        if path == IDENTITY and self.identity.issuperset(t.ref for o in operations for t in touched(o)):
            return
        if path in self._plan.steps:
            admission = self._admitted.get(path)
            if admission is None:
                raise Refused(f"step {path}: the gate has not let it in")
        else:  # what runs when all ends, as the rollbacks of a Chaos Toolkit experiment
            effects = tuple(
                e for s in self._plan.steps.values() for e in s.fault.effects if e.ref.kind == "Activity"
            )
            admission = Admission(path, effects, 0, 0, frozenset())
        admission.operations(operations)

    # ----------------------------------------------------------------------------------------------

    async def _lock(self, refs: Iterable[Ref], world: World) -> None:
        """Lock what the run has no lock on yet: nodes to which an approved pod has moved."""
        if more := {lock_of(ref) for ref in refs} - set(locks_of(self._plan)):
            with fallback.to_ourselves():  # the run's own identity holds no locks
                await acquire(world.kube, world.run, more)

    def _met(self, step: StepPlan, in_force: Collection[str]) -> bool:
        """Whether a step that is in force touches something lasting that this one touches, too."""
        others = (self._plan.steps[path] for path in in_force if path != step.path)
        return bool(_lasting(step) & {lock for other in others for lock in _lasting(other)})

    def _went_on(self, step: StepPlan) -> bool:
        """Whether an earlier step of this kind moved the same thing on, and that can't be taken back."""
        earlier = (self._plan.steps[path] for path in self._begun)
        return any(
            e.kind == step.kind and e.fault.irreversible and _lasting(e) & _lasting(step) for e in earlier
        )

    async def _allowed(self, effects: Sequence[Effect]) -> list[str]:
        """Target, blast radius by name, and protected things."""
        target = self._spec.target
        return [
            *outside(effects, target),
            *await outside_nodes(effects, self._world),
            *not_allowed(effects, self._spec.blast_radius),
            *await protected(effects, self._world, target.allow_protected),
        ]

    def _admission(self, step: StepPlan, now: Sequence[Effect]) -> Admission:
        approved = _pods(step.fault.effects)
        moved = self._moved(step)
        program = self._spec.target.node_program.namespace
        return Admission(
            step.path,
            (*now, *step.fault.effects),
            len(approved) + len(moved),
            sum(e.gpus for e in (*approved, *moved)),
            frozenset(e.ref.namespace or "" for e in (*approved, *moved)),
            program,
        )

    def _moved(self, step: StepPlan) -> list[Effect]:
        """Pods that earlier steps end: where these steps' own come with nodes, they may have moved there."""
        if not any(e.comes for e in step.fault.effects) and not any(
            e.kind is Kind.NODE for e in step.fault.effects
        ):
            return []
        steps = list(self._plan.steps.values())
        return [e for s in steps[: steps.index(step)] for e in _pods(s.fault.effects) if e.ends]

    def _beyond(self, step: StepPlan, now: Sequence[Effect]) -> list[str]:
        """The effects among these that were not approved for a step: a sentence each."""
        approved = {(e.kind, e.ref.identity): e for e in step.fault.effects}
        may_move = bool(_pods(step.fault.effects))  # and a program on the pod's node with it
        found = []
        for effect in now:
            if effect.kind in LOOSE or (effect.on_node and effect.kind is Kind.OBJECT and may_move):
                continue
            known = approved.get((effect.kind, effect.ref.identity))
            if known is None:
                found.append(f"{effect} was not approved")
            elif known.ref.uid and effect.ref.uid and known.ref.uid != effect.ref.uid:
                found.append(f"{effect.ref} is another one than was approved")
            elif effect.pods > known.pods or effect.gpus > known.gpus:
                found.append(
                    f"{effect.ref} would lose {plural(effect.pods, 'pod')} and {plural(effect.gpus, 'GPU')}, "
                    f"but {known.pods} and {known.gpus} were approved"
                )
            elif effect.ends and not known.ends:
                found.append(f"{effect} would end, which was not approved")
        return [*found, *self._more_pods(step, now), *self._other_objects(step, now)]

    def _more_pods(self, step: StepPlan, now: Sequence[Effect]) -> list[str]:
        pods, allowed = _pods(now), self._admission(step, ())
        if len(pods) > allowed.pods:
            return [f"{plural(len(pods), 'pod')} would be touched now, but {allowed.pods} were approved"]
        times, approved = (sum(e.times for e in _pods(effects)) for effects in (now, step.fault.effects))
        if times > max(approved, allowed.pods):
            return [f"pods would be ended {plural(times, 'time')} now, but {approved} times were approved"]
        if sum(e.gpus for e in pods) > allowed.gpus:
            return ["the pods that would be touched now hold more GPUs than were approved"]
        if lost := _lost(step, now):
            return lost
        elsewhere = sorted({e.ref.namespace or "" for e in pods} - allowed.namespaces)
        return [f"pods in namespace {', '.join(elsewhere)} were not approved"] if elsewhere else []

    def _other_objects(self, step: StepPlan, now: Sequence[Effect]) -> list[str]:
        made = {e.ref.type_in_place for e in step.fault.effects if e.kind is Kind.CREATED}
        return [
            f"{e.ref} was not approved"
            for e in now
            if e.kind is Kind.CREATED and e.ref.type_in_place not in made
        ]


def _moved_on(approved: FaultPlan[Any], now: FaultPlan[Any], by_us: Collection[str] = ()) -> list[str]:
    """Where a value that the approved plan was made from (its `basis`) has changed: a sentence each.

    Values that can't be read any more are left out, since their objects are gone. So are those that a step in
    force was planned from too (`by_us`), since that step may have changed them.
    """
    return [
        f"{what} was {plain(before)} when it was planned, and is {plain(now.basis[what])} now"
        for what, before in approved.basis.items()
        if what not in by_us and what in now.basis and now.basis[what] != before
    ]


def _lasting(step: StepPlan) -> set[Lock]:
    return {lock_of(e.ref) for e in step.fault.effects if e.kind not in (*LOOSE, Kind.OTHER)}


def _lost(step: StepPlan, now: Sequence[Effect]) -> list[str]:
    """The pods that nothing would make again, and of which that was not approved; and more claims than were.

    Which claims, nobody asks: successors of the approved pods have other ones.
    """
    before = step.fault.effects
    lost = {e.ref for e in _pods(now) if e.lost} - {e.ref for e in before if e.lost}
    if lost:
        return [f"{some(sorted(map(str, lost)))} would be lost for good, which was not approved"]
    claims, approved = (sum(e.kind is Kind.CLAIM for e in effects) for effects in (now, before))
    return [f"{claims} claims would go now, but {approved} were approved"] if claims > approved else []


def _chosen_for(victim: Victim, now: Iterable[Effect]) -> Effect:
    """The effect on what a fault has chosen: the one foreseen for it, or for a new pod that on any pod."""
    effect, pods = of_victim(victim), _pods(now)
    if victim.role != "pod" or not pods:
        return effect
    same = [e for e in pods if e.ref == victim.ref] or pods
    times = max(e.times for e in same)
    return replace(effect, ends=any(e.ends for e in same), comes=all(e.comes for e in same), times=times)


def _pods(effects: Iterable[Effect]) -> list[Effect]:
    return [e for e in effects if e.kind is Kind.POD]
