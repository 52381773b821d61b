"""The surroundings of a fault or a probe: the clients, the target, and the run's seed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gameday.platform.errors import Failure

if TYPE_CHECKING:
    from gameday.events import Emit, Event
    from gameday.experiment.model import NodeProgram
    from gameday.platform.kube import Kube
    from gameday.platform.objects import Ref
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.shared import Shared
    from gameday.platform.slurm.client import Slurm

T = TypeVar("T")


@dataclass(frozen=True)
class Victim:
    """One thing that a fault touches. `role`: node, pod, workload, object.

    `gpus` counts the GPUs that are lost with it; `node` is where it runs, so that a pod on a node
    that is touched anyway is not counted twice; `owner` is a pod's controller and `co_owners` its other
    owners, which no kept plan holds.
    """

    ref: Ref
    role: str
    node: str = ""
    gpus: int = 0
    pods: int = 0  # pods lost with a workload
    owner: Ref | None = field(default=None, compare=False)
    co_owners: tuple[Ref, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return str(self.ref)


class Gone(Failure):
    """Nothing that was approved is left to choose again."""


@dataclass(frozen=True)
class Approved:
    """What was approved of a step that is planned again: its targets, and its fault's own data.

    A fault chooses among the targets that are left (`World.choose`); only pods may be others, as many as were
    approved. Where pods led to the targets, and are none themselves, the data has their UIDs as `foundBy`.
    """

    victims: tuple[Victim, ...]
    data: Mapping[str, Any]

    @property
    def uids(self) -> frozenset[str]:
        """Of all targets that have one."""
        return frozenset(v.ref.uid for v in self.victims if v.ref.uid)

    @property
    def nodes(self) -> frozenset[str]:
        """The names of nodes that are targets, or where targets ran."""
        return frozenset(v.ref.name if v.ref.kind == "Node" else v.node for v in self.victims)

    @property
    def pods(self) -> int:
        """How many pods are targets."""
        return sum(v.role == "pod" for v in self.victims)

    @property
    def found_by(self) -> frozenset[str]:
        """The UIDs of the pods that led to the targets."""
        return frozenset(self.data.get("foundBy", ()))


def _ignore(_: Event) -> None:
    """An emitter for callers that keep no log."""


async def _admit_none(victims: Iterable[Victim]) -> None:
    """The admission while a run is planned: only the gate lets a step touch anything."""
    raise RuntimeError(f"no gate has admitted the step that would touch {', '.join(map(str, victims))}")


@dataclass(frozen=True)
class World:
    """Surroundings of one run. `step` is the path of the step that asks, "" outside the method.

    `approved` is there where a step is planned again: for a kept plan, and before its injection.
    """

    kube: Kube
    prometheus: Prometheus | None = None
    slurm: Slurm | None = None
    run: str = ""
    seed: int = 0
    namespaces: tuple[str, ...] = ()
    node_selector: str = ""
    step: str = ""
    sandbox: bool = False  # our own simulated platform: the target's context need not match
    hold: float | None = None  # seconds the step will keep the fault in force; None: not said
    node_program: NodeProgram | None = None  # how programs run on nodes; None: as by default
    require_consent: bool = False  # whether only namespaces that say so may be touched
    folder: Path = Path()  # where relative paths in the experiment start
    shared: Shared | None = None
    emit: Emit = _ignore
    approved: Approved | None = None
    # Raises for pods beyond the plan, and for protected ones; the ledger takes changes of no others.
    admit: Callable[[Iterable[Victim]], Awaitable[None]] = field(default=_admit_none)

    async def once(self, what: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives; while a plan is made and checked, what it gave before."""
        return await (read() if self.shared is None else self.shared.once(what, read))

    def at(self, step: str, hold: float | None = None) -> World:
        """The same world as one step sees it."""
        return replace(self, step=step, hold=hold)

    def choose(
        self, items: Sequence[T], count: int, was: Callable[[T, Approved], bool], what: str, place: str = ""
    ) -> list[T]:
        """`count` of the items, as `sample`; planned again, all that were approved (`was`) and are left.

        Nothing takes the place of what is gone. `what` says in a refusal what the items are. Raises Gone
        where none of what was approved is left.
        """
        if self.approved is None:
            return self.sample(items, count, place)
        if left := [item for item in items if was(item, self.approved)]:
            return left
        raise Gone(f"none of what was approved is left of the {what}: plan again")

    def sample(
        self, items: Sequence[T], count: int, place: str = "", first: Callable[[T], bool] | None = None
    ) -> list[T]:
        """`count` items, the same ones for the same seed, step, place and items.

        Those that are `first` come before all others. A step that chooses more than once names each `place`:
        with one key for two choices, the same items would always be chosen at both.
        """
        key = "/".join((str(self.seed), self.step, *filter(None, (place,))))
        ahead = [item for item in items if first and first(item)][:count]
        others = [item for item in items if not (first and first(item))]
        return ahead + random.Random(key).sample(others, min(count - len(ahead), len(others)))
