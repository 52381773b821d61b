"""What a fault or a probe may know of its surroundings: the clients, the target, and the run's seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gameday.events import Emit, Event
    from gameday.experiment.model import NodeProgram
    from gameday.platform.kube import Kube
    from gameday.platform.objects import Ref
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.slurm.client import Slurm

T = TypeVar("T")


@dataclass(frozen=True)
class Victim:
    """One thing that a fault touches. `role`: node, pod, workload, object.

    `gpus` counts the GPUs that are lost with it; `node` is where it runs, so that a pod on a node
    that is touched anyway is not counted twice.
    """

    ref: Ref
    role: str
    node: str = ""
    gpus: int = 0
    pods: int = 0  # pods lost with a workload

    def __str__(self) -> str:
        return str(self.ref)


def _ignore(_: Event) -> None:
    """An emitter for callers that keep no log."""


def _admit_all(_: Iterable[Victim]) -> None:
    """An admission for callers that only plan."""


@dataclass(frozen=True)
class World:
    """Surroundings of one run. `step` is the path of the step that asks, "" outside the method."""

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
    folder: Path = Path()  # where relative paths in the experiment start
    emit: Emit = _ignore
    admit: Callable[[Iterable[Victim]], None] = field(default=_admit_all)  # raises when beyond the plan

    def at(self, step: str, hold: float | None = None) -> World:
        """The same world as one step sees it."""
        return replace(self, step=step, hold=hold)

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` items, the same ones for the same seed, step and items."""
        return random.Random(f"{self.seed}/{self.step}").sample(list(items), min(count, len(items)))
