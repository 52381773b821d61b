"""The `slurm` probe: what Slurm says of its nodes, its jobs, one job, or what a partition can still run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Line, Spec
from gameday.experiment.text import plural
from gameday.experiment.values import SlurmName
from gameday.extend import Measurement, Probe
from gameday.platform.errors import PlatformError

if TYPE_CHECKING:
    from gameday.platform.slurm.client import Slurm as Client
    from gameday.platform.slurm.model import Job, Node
    from gameday.platform.world import World


class SlurmNodesAsked(Spec):
    """Which nodes. Without `state` the value is each node's state; with it, the number of nodes in it."""

    names: list[SlurmName] | None = Field(None, min_length=1, description="Slurm's names; else all nodes.")
    partition: SlurmName | None = Field(None, description="Only the nodes of this partition.")
    state: Line | None = Field(
        None,
        description="As sinfo says it: `idle`, `allocated`, `drained`, …; `out` is all that get no jobs.",
    )


class SlurmJobsAsked(Spec):
    """Which jobs are counted."""

    state: Line = Field("PENDING", description="As squeue says it: `PENDING`, `RUNNING`, …")
    reason: Line | None = Field(None, description="Only those with this reason: `Resources`, `Priority`, …")
    partition: SlurmName | None = Field(None, description="Only those of this partition.")


class SlurmProbeSpec(Spec):
    """Exactly one of `nodes`, `jobs`, `job`, `restarts` and `partition`."""

    nodes: SlurmNodesAsked | None = Field(None, description="The nodes' states, or how many are in one.")
    jobs: SlurmJobsAsked | None = Field(None, description="The number of jobs, `PENDING` ones by default.")
    job: int | Line | None = Field(None, description="A job, by number or name: its state, as `RUNNING`.")
    restarts: int | Line | None = Field(None, description="A job: how often it was requeued.")
    partition: SlurmName | None = Field(
        None, description="A partition: how many of its nodes can run jobs; 0 where it is not UP."
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        ways = (self.nodes, self.jobs, self.job, self.restarts, self.partition)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("expected exactly one of `nodes`, `jobs`, `job`, `restarts` and `partition`")
        return self


class Slurm(Probe[SlurmProbeSpec]):
    """States of Slurm's nodes and jobs, the number of pending jobs, what a partition can run."""

    Spec: ClassVar = SlurmProbeSpec
    needs_slurm: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: the training job runs
slurm: {job: trainer}
is: RUNNING
"""

    async def measure(self, spec: SlurmProbeSpec, world: World) -> Measurement:
        client = client_of(world)
        if spec.nodes is not None:
            return _nodes(spec.nodes, await client.nodes())
        if spec.jobs is not None:
            return _jobs(spec.jobs, await client.jobs())
        if spec.partition is not None:
            return await _capacity(spec.partition, client)
        wanted = spec.job if spec.job is not None else spec.restarts
        job = _latest(wanted, await client.jobs())
        if job is None:
            return Measurement((), f"Slurm has no job {wanted}")
        where = f" on {', '.join(job.nodes)}" if job.nodes else ""
        why = f" ({job.reason})" if job.reason else ""
        message = f"{job} is {job.state}{where}{why}, restarted {plural(job.restarts, 'time')}"
        return Measurement((("", job.state if spec.job is not None else float(job.restarts)),), message)


def client_of(world: World) -> Client:
    """The run's Slurm. Raises PlatformError when none is configured."""
    if world.slurm is None:
        raise PlatformError("no Slurm is configured: name one in spec.target.slurm, or with --slurm URL")
    return world.slurm


def _nodes(asked: SlurmNodesAsked, found: list[Node]) -> Measurement:
    missing = sorted(set(asked.names or ()) - {n.name for n in found})
    if missing:
        return Measurement((), f"Slurm has no node {', '.join(missing)}")
    nodes = [
        n
        for n in found
        if (asked.names is None or n.name in asked.names)
        and (asked.partition is None or asked.partition in n.partitions)
    ]
    reasons = "; ".join(f"{n.name} is {n.word} ({n.reason})" for n in nodes if n.out and n.reason)
    if asked.state is None:
        return Measurement(tuple((n.name, n.word) for n in nodes), reasons)
    wanted = asked.state.lower()
    count = sum(n.out if wanted == "out" else n.word == wanted for n in nodes)
    return Measurement((("", float(count)),), reasons or f"of {plural(len(nodes), 'node')}")


def _jobs(asked: SlurmJobsAsked, found: list[Job]) -> Measurement:
    jobs = [
        j
        for j in found
        if j.state == asked.state.upper()
        and (asked.reason is None or j.reason == asked.reason)
        and (asked.partition is None or j.partition == asked.partition)
    ]
    reasons = Counter(j.reason or "no reason" for j in jobs)
    return Measurement((("", float(len(jobs))),), ", ".join(f"{n} {r}" for r, n in reasons.most_common()))


async def _capacity(name: str, client: Client) -> Measurement:
    partition = await client.partition(name)
    nodes = [n for n in await client.nodes() if n.name in partition.nodes or name in n.partitions]
    able = [n for n in nodes if not n.out]
    message = f"{partition.state}, {len(able)} of {len(nodes)} nodes can run jobs"
    return Measurement((("", float(len(able)) if partition.state == "UP" else 0.0),), message)


def _latest(wanted: int | str | None, jobs: list[Job]) -> Job | None:
    """The job of that number; else of that name the one that has not ended, or the newest."""
    found = [j for j in jobs if str(j.number) == str(wanted)] or [j for j in jobs if j.name == wanted]
    return max(found, key=lambda j: (not j.ended, j.number), default=None)
