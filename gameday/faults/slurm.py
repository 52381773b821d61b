"""The `slurm` fault: nodes drained, down or resumed, a job requeued, a partition held, all in Slurm."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Pick, PositiveDuration, Spec, Text
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.faults.slurm_targets import named, one_job, pick_nodes, victim
from gameday.platform.world import Victim

if TYPE_CHECKING:
    from gameday.ledger.ledger import StepLedger
    from gameday.ledger.operations import Operation
    from gameday.platform.slurm.client import Slurm as Client
    from gameday.platform.slurm.model import Node
    from gameday.platform.world import World

_STATES = {"drain": "DRAIN", "down": "DOWN"}


class SlurmNodes(Spec):
    """Slurm's nodes: by name, those of a partition, or those that a job runs on; and how many of them."""

    names: list[Text] | None = Field(None, min_length=1, description="Slurm's names of the nodes.")
    partition: Text | None = Field(None, description="The nodes of this partition.")
    job: int | Text | None = Field(None, description="The nodes that this job runs on: its number or name.")
    pick: Pick = Field("all", description="How many of them: a number, a share such as 20%, or `all`.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.names, self.partition, self.job)) != 1:
            raise ValueError("expected exactly one of `names`, `partition` and `job`")
        return self


class SlurmPartition(Spec):
    """A partition, and what it is set to."""

    name: Text = Field(description="The partition.")
    state: Literal["DOWN", "DRAIN", "INACTIVE"] = Field(
        "DOWN", description="DOWN takes jobs and starts none; DRAIN takes no new ones; INACTIVE does neither."
    )


class SlurmSpec(Spec):
    """Exactly one of `drain`, `down`, `resume`, `requeue` and `holdPartition`."""

    drain: SlurmNodes | None = Field(None, description="Nodes that are to get no new jobs.")
    down: SlurmNodes | None = Field(None, description="Nodes that are down for Slurm: their jobs are lost.")
    resume: SlurmNodes | None = Field(None, description="Drained nodes that go back into service.")
    requeue: int | Text | None = Field(None, description="A job, by number or name, that is to start again.")
    hold_partition: SlurmPartition | None = Field(None, description="A partition that is to start no jobs.")
    reason: Text = Field("game day", description="Why, as `sinfo -R` shows it; the run's name comes before.")
    wait_for_jobs: bool = Field(
        False, description="A drain is in force only when the jobs have left (drained, not draining)."
    )
    settle_within: PositiveDuration = Field(
        180.0,
        description="How long it may take to get in, and out; a requeued job waits two minutes by itself.",
    )

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        ways = ("drain", "down", "resume", "requeue", "hold_partition")
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError(
                "expected exactly one of `drain`, `down`, `resume`, `requeue` and `holdPartition`"
            )
        return self

    @property
    def action(self) -> str:
        ways = ("drain", "down", "resume", "requeue", "hold_partition")
        return next(way for way in ways if getattr(self, way) is not None)


class Slurm:
    """Nodes, a job or a partition of Slurm change their state, and get it back where it is still ours."""

    Spec: ClassVar[type[Spec]] = SlurmSpec
    instant: ClassVar[bool] = False
    example: ClassVar[str] = "slurm: {drain: {job: trainer, pick: 1}, reason: fabric maintenance}"

    def __init__(self) -> None:
        self._was_requeued = False  # a job may run again before anybody has looked: it was in, then it is out

    # -- planning ------------------------------------------------------------------------------

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        client = _client(world)
        if spec.action == "requeue":
            return await self._plan_requeue(spec, client)
        if spec.action == "hold_partition":
            return await self._plan_partition(spec.hold_partition, spec, client)
        return await self._plan_nodes(spec, client, world)

    async def _plan_nodes(self, spec: SlurmSpec, client: Client, world: World) -> FaultPlan:
        pick: SlurmNodes = getattr(spec, spec.action)
        nodes = await pick_nodes(pick, client, world)
        wanted_out = spec.action != "resume"
        already = [n for n in nodes if n.out == wanted_out]
        state = f"{'out of' if wanted_out else 'in'} service"
        if len(already) == len(nodes):
            raise PlanError(f"{named(nodes)}: {state} in Slurm already, nothing would change")
        await _check_able(client, "node")
        victims = await asyncio.gather(*(victim(n, world) for n in nodes))
        return FaultPlan(
            spec,
            tuple(victims),
            changes=tuple(f"{spec.action} Slurm node {n.name} ({n.word})" for n in nodes if n not in already),
            irreversible=("jobs on nodes that go down are requeued or lost",)
            if spec.action == "down"
            else (),
            warnings=tuple(
                f"Slurm node {n.name} is {n.word} already ({n.reason or 'no reason given'}), and is left so"
                for n in already
            ),
            needs=_needs(client),
            data={
                "before": {n.name: [n.word, n.reason, sorted(n.states)] for n in nodes if n not in already}
            },
        )

    async def _plan_requeue(self, spec: SlurmSpec, client: Client) -> FaultPlan:
        from gameday.ledger.slurm import slurm_ref

        assert spec.requeue is not None
        job = await one_job(client, spec.requeue)
        if job.state != "RUNNING":
            raise PlanError(f"{job} is {job.state}: only a job that runs is requeued here")
        if not job.requeue:
            raise PlanError(f"{job} was submitted with --no-requeue: it can't be requeued")
        await _check_able(client, "requeue")
        return FaultPlan(
            spec,
            (Victim(slurm_ref("Job", str(job)), "workload", gpus=job.gpus),),
            changes=(f"requeue {job}, which runs on {', '.join(job.nodes)}",),
            irreversible=(f"{job} starts again, from its last checkpoint if it has one",),
            needs=_needs(client),
            data={"job": job.number, "restarts": job.restarts},
        )

    async def _plan_partition(self, hold: SlurmPartition, spec: SlurmSpec, client: Client) -> FaultPlan:
        from gameday.ledger.slurm import slurm_ref

        partition = await client.partition(hold.name)
        if partition.state != "UP":
            raise PlanError(
                f"partition {hold.name} is {partition.state} already: only one that is UP is held"
            )
        await _check_able(client, "partition")
        return FaultPlan(
            spec,
            (Victim(slurm_ref("Partition", hold.name), "object"),),
            changes=(f"set partition {hold.name} from {partition.state} to {hold.state}",),
            needs=_needs(client),
            data={"before": partition.state},
        )

    # -- injecting -----------------------------------------------------------------------------

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        from gameday.ledger import slurm as operations

        spec, via = plan.spec, _client(world).via
        made: list[Operation]
        if spec.action == "requeue":
            job = plan.data["job"]
            made = [operations.Requeue(via, plan.victims[0].ref.name, job)]
        elif spec.action == "hold_partition":
            hold = spec.hold_partition
            made = [operations.HoldPartition(via, hold.name, hold.state, plan.data["before"])]
        else:
            made = []
            for name, (word, reason, states) in _still(plan).items():
                if spec.action == "resume":
                    state = "DRAIN" if "DRAIN" in states else "DOWN"
                    made.append(operations.BackInService(via, name, state, reason))
                else:
                    state = _STATES[spec.action]
                    made.append(operations.OutOfService(via, name, state, ledger.run, spec.reason, word))
        await ledger.perform(made)

    # -- evidence ------------------------------------------------------------------------------

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        spec, client = plan.spec, _client(world)
        if spec.action == "requeue":
            return await self._requeued(plan, client)
        if spec.action == "hold_partition":
            hold, partition = spec.hold_partition, await client.partition(spec.hold_partition.name)
            fact = f"partition {hold.name} is {partition.state}"
            return Evidence("in" if partition.state == hold.state else "out", (fact,))
        names = _still(plan)
        nodes = [n for n in await client.nodes() if n.name in names]
        states = [_state(n, spec, world.run) for n in nodes]
        facts = tuple(_fact(n, spec, state) for n, state in zip(nodes, states, strict=True))
        return Evidence(states[0] if len(set(states)) == 1 else "partial" if states else "out", facts)

    async def _requeued(self, plan: FaultPlan, client: Client) -> Evidence:
        job = next((j for j in await client.jobs() if j.number == plan.data["job"]), None)
        if job is None:
            return Evidence("out", (f"Slurm no longer knows job {plan.data['job']}",))
        again = job.restarts > plan.data["restarts"]
        why = f": {job.reason}" if job.reason else ""
        where = f" on {', '.join(job.nodes)}" if job.state == "RUNNING" else ""
        facts = (f"{job} is {job.state}{where}{why}, restarted {job.restarts} times",)
        if (job.ended or (again and job.state == "RUNNING")) and self._was_requeued:
            return Evidence("out", facts)
        self._was_requeued = again or job.state in ("PENDING", "REQUEUED")
        return Evidence("in" if self._was_requeued else "partial", facts)


def _client(world: World) -> Client:
    if world.slurm is None:
        raise PlanError("no Slurm is configured: name one in spec.target.slurm, or with --slurm URL")
    return world.slurm


async def _check_able(client: Client, change: Literal["node", "partition", "requeue"]) -> None:
    if why := await client.cannot(change):
        raise PlanError(why)


def _needs(client: Client) -> tuple[str, ...]:
    space = client.via.namespace
    return (f"list pods {space}", f"create pods/exec {space}") if space else ()


def _still(plan: FaultPlan) -> dict[str, Any]:
    """The nodes to change, by name: those of the plan without what vanished or is left as it is."""
    here = {v.node for v in plan.victims}
    return {name: before for name, before in plan.data["before"].items() if name in here}


def _state(node: Node, spec: SlurmSpec, run: str) -> str:
    from gameday.ledger.slurm import marker

    if spec.action == "resume":
        return "out" if node.out else "in"
    ours = node.reason.startswith(marker(run)) and node.out
    if not ours or _STATES[spec.action] not in node.states:
        return "partial" if ours else "out"
    return "partial" if spec.wait_for_jobs and node.word == "draining" else "in"


def _fact(node: Node, spec: SlurmSpec, state: str) -> str:
    text = f"Slurm node {node.name} is {node.word}" + (
        f" ({node.reason})" if node.reason and node.out else ""
    )
    if spec.action == "down" and state == "out":
        text += "; where ReturnToService=2, a node that answers comes back by itself"
    return text
