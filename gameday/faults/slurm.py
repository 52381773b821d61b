"""The `slurm` fault: nodes drained, down or resumed, a job requeued, a partition held, all in Slurm."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Line, Pick, PositiveDuration, Spec
from gameday.experiment.values import SlurmName
from gameday.extend import OneOf, OneOfSpec
from gameday.faults.slurm_nodes import Down, Drain, Resume
from gameday.faults.slurm_work import HoldPartition, Requeue


class SlurmNodes(Spec):
    """Slurm's nodes: by name, those of a partition, or those that a job runs on; and how many of them."""

    names: list[SlurmName] | None = Field(None, min_length=1, description="Slurm's names of the nodes.")
    partition: SlurmName | None = Field(None, description="The nodes of this partition.")
    job: int | Line | None = Field(None, description="The nodes that this job runs on: its number or name.")
    pick: Pick = Field("all", description="How many of them: a number, a share such as 20%, or `all`.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.names, self.partition, self.job)) != 1:
            raise ValueError("expected exactly one of `names`, `partition` and `job`")
        return self


class SlurmPartition(Spec):
    """A partition, and what it is set to."""

    name: SlurmName = Field(description="The partition.")
    state: Literal["DOWN", "DRAIN", "INACTIVE"] = Field(
        "DOWN", description="DOWN takes jobs and starts none; DRAIN takes no new ones; INACTIVE does neither."
    )


class SlurmSpec(OneOfSpec):
    """Exactly one of `drain`, `down`, `resume`, `requeue` and `holdPartition`."""

    ways: ClassVar[tuple[str, ...]] = ("drain", "down", "resume", "requeue", "hold_partition")

    drain: SlurmNodes | None = Field(None, description="Nodes that are to get no new jobs.")
    down: SlurmNodes | None = Field(None, description="Nodes that are down for Slurm: their jobs are lost.")
    resume: SlurmNodes | None = Field(None, description="Drained nodes that go back into service.")
    requeue: int | Line | None = Field(None, description="A job, by number or name, that is to start again.")
    hold_partition: SlurmPartition | None = Field(None, description="A partition that is to start no jobs.")
    reason: Line = Field("game day", description="Why, as `sinfo -R` shows it; the run's name comes before.")
    wait_for_jobs: bool = Field(
        False, description="A drain is in force only when the jobs have left (drained, not draining)."
    )
    settle_within: PositiveDuration = Field(
        180.0,
        description="How long it may take to get in, and out; a requeued job waits two minutes by itself.",
    )


class Slurm(OneOf[SlurmSpec]):
    """Nodes, a job or a partition of Slurm change their state, and get it back where it is still ours."""

    Spec: ClassVar[type[Spec]] = SlurmSpec
    example: ClassVar[str] = "slurm: {drain: {job: trainer, pick: 1}, reason: fabric maintenance}"
    variants = {  # noqa: RUF012
        "drain": Drain,
        "down": Down,
        "resume": Resume,
        "requeue": Requeue,
        "hold_partition": HoldPartition,
    }
