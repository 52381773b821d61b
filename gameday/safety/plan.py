"""The plan of a run: every step with its targets, resolved once, approved, and then executed as it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday.experiment.model import Experiment, Step
from gameday.experiment.quantity import format_duration
from gameday.experiment.text import some
from gameday.extend import Fault, FaultPlan, PlanError
from gameday.faults.lost import check_losses, not_restored, with_dependents, with_losses
from gameday.platform.effect import Effect, NodeState, of_victim
from gameday.platform.errors import ConfigError, Failure
from gameday.platform.shield import or_leave
from gameday.platform.world import Approved, Victim, World
from gameday.safety.cluster import Cluster, cluster_of, systems_of
from gameday.safety.held import with_claims
from gameday.safety.installed import fault_of
from gameday.safety.remediators import foresee

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.safety.approvals.approval import Approval

VERSION = 6  # another one for each change of what a plan holds, or of its words
VALID_FOR = 3600.0  # seconds for which a kept plan may be run
CHANGED = "the plan was changed after it was made, or is damaged: make it again"
OTHER_VERSION = (
    f"the plan was written by another version of gameday (its format is {{}}, and {VERSION} is read here): "
    "make it again with `gameday plan -o`, and have it approved again where approvals are required"
)
NO_PLAN = "is no plan; expected what `gameday plan -o` writes"


@dataclass(frozen=True)
class Place:
    """A step's place in the method: its path (2, 2.1), and how often `repeat` runs it."""

    path: str
    step: Step
    times: int = 1


@dataclass(frozen=True)
class StepPlan:
    """One fault of the method, planned."""

    path: str
    name: str
    kind: str
    hold: float | None
    times: int
    fault: FaultPlan[Any]


@dataclass
class Plan:
    """All faults of a run. `problems` holds what could not be planned: (path, text)."""

    seed: int
    experiment: str = ""  # the digest of what it was made for
    steps: dict[str, StepPlan] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    cluster: Cluster = field(default_factory=Cluster)
    systems: dict[str, str] = field(default_factory=dict)  # the addresses of those beside the cluster
    made: float = 0.0  # seconds since the epoch, by the clock of who made it
    expires: float = 0.0
    kept: bool = False  # whether it comes from a file, and things may have changed since
    approvals: tuple[
        Approval, ...
    ] = ()  # that were seen while its run waited for them; no part of its digest

    def to_data(self) -> dict[str, Any]:
        """Plain data; its digest covers all of it, and so what an approval is given for."""
        steps = [
            {
                "path": s.path,
                "name": s.name,
                "kind": s.kind,
                "for": s.hold,
                "times": s.times,
                **s.fault.to_data(),
            }
            for s in self.steps.values()
        ]
        made_for = {
            "version": VERSION,
            "seed": self.seed,
            "experiment": self.experiment,
            "cluster": self.cluster.to_data(),
            "systems": self.systems,
            "made": self.made,
            "expires": self.expires,
            "steps": steps,
        }
        return {**made_for, "digest": digest_of(made_for)}

    @property
    def digest(self) -> str:
        """The name of a plan in approvals: SHA-256 over all of it."""
        return str(self.to_data()["digest"])

    @classmethod
    def from_data(cls, data: Any, experiment: Experiment) -> Plan:
        """The plan of a file. Raises PlanError when it is damaged, or is not of this experiment."""
        if not isinstance(data, dict):
            raise PlanError(CHANGED)
        _check_whole(data)
        if data.get("experiment") != digest_of(experiment.model_dump(mode="json")):
            raise PlanError("the plan was made for another experiment, or for other variables: make it again")
        try:
            return cls._read(data, experiment)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"{CHANGED} ({type(error).__name__}: {error})") from error

    @classmethod
    def _read(cls, data: dict[str, Any], experiment: Experiment) -> Plan:
        places = {p.path: p for p in places_of(experiment.spec.method) if p.step.is_fault}
        plan = cls(
            seed_of(data),
            data["experiment"],
            cluster=Cluster.from_data(data["cluster"]),
            systems={str(name): str(address) for name, address in data["systems"].items()},
            made=float(data["made"]),
            expires=float(data["expires"]),
            kept=True,
        )
        for step in data["steps"]:
            place = places[step["path"]]
            fault: FaultPlan[Any] = FaultPlan.from_data(place.step.spec, step)
            plan.steps[place.path] = _step(place, fault)
        if plan.steps.keys() != places.keys():
            raise ValueError("the plan does not hold all steps of the method")
        return plan

    def other_systems(self, world: World) -> list[str]:
        """Where systems beside the cluster are others than the plan was made with: a sentence each."""
        systems = systems_of(world, self.steps.values())
        return [
            f"the plan was made for {name} at {self.systems.get(name, 'no address')}, and this run would use "
            f"{systems.get(name, 'none')}"
            for name in sorted({*systems, *self.systems})
            if systems.get(name) != self.systems.get(name)
        ]

    def expired(self) -> str:
        """Why the plan is too old to run, or ""."""
        if not self.kept or time.time() < self.expires:
            return ""
        ago = format_duration(round(time.time() - self.expires))
        return f"the plan expired {ago} ago: make it again, or longer-lived with --valid-for"


@dataclass(frozen=True)
class Kept:
    """A plan's file, read once: who changes the file afterwards changes nothing.

    `trouble` is why a plan can't be run. That is said where plans are refused, with a log and a verdict.
    """

    data: Mapping[str, Any]
    trouble: str = ""

    @classmethod
    def read(cls, path: Path) -> Kept:
        """Raises ConfigError for a file that is not there, or no plan at all: the command line is wrong."""
        try:
            return cls(read_plan(path))
        except PlanError as error:
            return cls({}, str(error))

    @property
    def seed(self) -> int | None:
        """The seed it was made with; None where it can't be run."""
        return None if self.trouble else seed_of(self.data)

    def plan(self, experiment: Experiment) -> Plan:
        """Raises PlanError."""
        if self.trouble:
            raise PlanError(self.trouble)
        return Plan.from_data(self.data, experiment)


def read_plan(path: Path) -> dict[str, Any]:
    """The plan of a file as data, whole and unchanged. Raises ConfigError and PlanError."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {NO_PLAN}") from error
    if not isinstance(data, dict) or not {"version", "experiment", "steps", "digest"} <= data.keys():
        raise ConfigError(f"{path}: {NO_PLAN}")
    _check_whole(data)
    seed_of(data)
    return data


def _check_whole(data: Mapping[str, Any]) -> None:
    """Raises PlanError for a plan that this version can't read, or that is not what it was."""
    version, rest = data.get("version"), {k: v for k, v in data.items() if k != "digest"}
    if isinstance(version, int) and version != VERSION:
        raise PlanError(OTHER_VERSION.format(version))
    if version != VERSION or data.get("digest") != digest_of(rest):
        raise PlanError(CHANGED)


def seed_of(data: Any) -> int:
    """The seed of a kept plan. Raises PlanError where there is none."""
    seed = data.get("seed") if isinstance(data, dict) else None
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise PlanError(CHANGED)
    return seed


def _step(place: Place, fault: FaultPlan[Any]) -> StepPlan:
    step = place.step
    return StepPlan(place.path, name_of(step, place.path), step.kind, step.for_, place.times, fault)


def name_of(step: Step, path: str) -> str:
    """A step's name without its number, which is shown beside it."""
    return (step.name or step.kind).removeprefix(f"{path} ")


def places_of(steps: list[Step] | tuple[Step, ...], prefix: str = "", times: int = 1) -> Iterator[Place]:
    """Every step of the method, outer before inner."""
    for number, step in enumerate(steps, 1):
        path = f"{prefix}{number}"
        yield Place(path, step, times)
        inner = times * (step.repeat.times if step.repeat else 1)
        yield from places_of(step.steps, path + ".", inner)


async def make_plan(experiment: Experiment, world: World, valid_for: float = VALID_FOR) -> Plan:
    """Resolve every fault's targets. What can't be planned is collected, to be seen all at once."""
    now = time.time()
    plan = Plan(
        world.seed,
        digest_of(experiment.model_dump(mode="json")),
        cluster=await cluster_of(world.kube),
        made=now,
        expires=now + valid_for,
    )
    for place in places_of(experiment.spec.method):
        step = place.step
        if not step.is_fault:
            continue
        fault, here = fault_of(step.kind, step.spec), world.at(place.path, step.for_)
        try:
            made = await with_effects(fault, await or_leave(fault.plan(step.spec, here)), here)
        except Failure as error:
            plan.problems.append((place.path, str(error)))
            continue
        plan.steps[place.path] = _step(place, made)
    plan.systems = systems_of(world, plan.steps.values())
    return plan


async def planned_again(step: StepPlan, world: World) -> StepPlan:
    """A step as it would be planned now for what was approved of it. Read only. Raises PlanError."""
    spec, approved = step.fault.spec, Approved(step.fault.victims, step.fault.data)
    fault, here = fault_of(step.kind, spec), replace(world.at(step.path, step.hold), approved=approved)
    return replace(step, fault=await with_effects(fault, await or_leave(fault.plan(spec, here)), here))


async def with_effects(fault: Fault[Any], made: FaultPlan[Any], world: World) -> FaultPlan[Any]:
    """A plan with all its effects as things are now, those on its victims first, and what goes with them.

    Raises PlanError where something is lost for good that it may not lose.
    """
    found = made.effects or await or_leave(fault.effects(made, world))
    every, unlisted = await with_dependents(_with_victims(made, found), world)
    effects, unread = await with_losses(await with_claims(every, world.kube), world.kube)
    if not fault.may_lose(made.spec):
        check_losses(effects, fault.loses_by)
    lost, again = not_restored(effects)
    others, warnings = await foresee(fault, made, effects, world)
    return replace(
        made,
        irreversible=tuple(dict.fromkeys((*lost, *made.irreversible, *again))),
        effects=(*effects, *others),
        warnings=(*made.warnings, *unlisted, *unread, *warnings, *_on_later_pods(fault, made)),
    )


def keeps_pods_off(fault: Fault[Any], plan: FaultPlan[Any]) -> bool:
    """Whether Kubernetes, and not the fault, ends pods on its nodes: also those that come later."""
    left = fault.leaves(plan) & {NodeState.EMPTY, NodeState.NOT_READY}
    return bool(left) and not fault.ends_by_hand


def _on_later_pods(fault: Fault[Any], plan: FaultPlan[Any]) -> tuple[str, ...]:
    """A sentence on the pods that no list of this plan can hold."""
    nodes = [v.ref.name for v in plan.victims if v.role == "node"]
    if not nodes or not keeps_pods_off(fault, plan):
        return ()
    text = "while the fault is in are ended as well where they do not tolerate it, and no bound counts them"
    return (f"pods that come to {some(nodes)} {text}",)


def _with_victims(plan: FaultPlan[Any], more: tuple[Effect, ...]) -> tuple[Effect, ...]:
    touched = [of_victim(v, ends=plan.ends_pods) for v in plan.victims]
    known = {(e.kind, e.ref) for e in more}  # a fault's own words about a victim say more than ours
    return (*(e for e in touched if (e.kind, e.ref) not in known), *more)


async def without_vanished(step: StepPlan, kube: Kube) -> tuple[StepPlan | None, list[Victim]]:
    """The step without the lasting targets that are gone, None where all are; and these.

    Pods don't last: a fault resolves them by itself.
    """
    victims = step.fault.victims
    lasting = [v for v in victims if v.role in ("node", "workload") and v.ref.uid]  # Slurm's have none
    found = await asyncio.gather(*(kube.find(v.ref) for v in lasting))
    gone = [v for v, obj in zip(lasting, found, strict=True) if obj is None]
    if not gone:
        return step, gone
    left = tuple(v for v in victims if v not in gone)
    return replace(step, fault=replace(step.fault, victims=left)) if left else None, gone


def digest_of(data: Any) -> str:
    """SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
