"""A job of Slurm starts again, or a partition starts none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.experiment.text import plural
from gameday.extend import Effect, Evidence, FaultPlan, Injected, Kind, PlanError, Step, Victim
from gameday.faults.slurm_targets import SlurmFault, check_able, client_of, job_effect, needs, one_job
from gameday.platform.effect import named

if TYPE_CHECKING:
    from gameday.faults.slurm import SlurmPartition, SlurmSpec
    from gameday.platform.world import World


class Requeue(SlurmFault):
    """A job that runs is requeued, and starts again by itself."""

    async def plan(self, spec: SlurmSpec, world: World) -> FaultPlan[SlurmSpec]:
        from gameday.ledger.slurm import slurm_ref

        assert spec.requeue is not None
        client = client_of(world)
        job = await one_job(client, spec.requeue)
        if job.state != "RUNNING":
            raise PlanError(f"{job} is {job.state}: only a job that runs is requeued here")
        if not job.requeue:
            raise PlanError(f"{job} was submitted with --no-requeue: it can't be requeued")
        await check_able(client, "requeue")
        return FaultPlan(
            spec,
            (Victim(slurm_ref("Job", str(job)), "workload", gpus=job.gpus),),
            changes=(f"requeue {job}, which runs on {', '.join(job.nodes)}",),
            irreversible=(f"{job} starts again, from its last checkpoint if it has one",),
            needs=needs(client),
            data={"job": job.number, "restarts": job.restarts},
        )

    async def inject(self, plan: FaultPlan[SlurmSpec], step: Step) -> None:
        from gameday.ledger.slurm import Requeue as RequeueJob

        name, via = plan.victims[0].ref.name, client_of(step.world).via
        await step.ledger.perform([RequeueJob(via, name, plan.data["job"], plan.data["restarts"])])

    async def settled(self, plan: FaultPlan[SlurmSpec], injected: Injected, world: World) -> Evidence:
        """In once the job waits or was started again; over when it runs again, or has ended, after that."""
        job = next((j for j in await client_of(world).jobs() if j.number == plan.data["job"]), None)
        if job is None:
            return Evidence("out", (f"Slurm no longer knows job {plan.data['job']}",))
        again = job.restarts > plan.data["restarts"]
        why = f": {job.reason}" if job.reason else ""
        where = f" on {', '.join(job.nodes)}" if job.state == "RUNNING" else ""
        facts = (f"{job} is {job.state}{where}{why}, restarted {plural(job.restarts, 'time')}",)
        # A job may run again before anybody has looked: it was in, then it is over.
        if injected.data.get("requeued") and (job.ended or (again and job.state == "RUNNING")):
            return Evidence("over", facts)
        requeued = again or job.state in ("PENDING", "REQUEUED")
        if not (requeued or injected.made):
            return Evidence("out", facts)
        return Evidence("in" if requeued else "partial", facts, {"requeued": requeued})


class HoldPartition(SlurmFault):
    """A partition starts no jobs."""

    async def plan(self, spec: SlurmSpec, world: World) -> FaultPlan[SlurmSpec]:
        from gameday.ledger.slurm import slurm_ref

        hold, client = _hold(spec), client_of(world)
        partition = await client.partition(hold.name)
        if partition.state != "UP":
            raise PlanError(
                f"partition {hold.name} is {partition.state} already: only one that is UP is held"
            )
        await check_able(client, "partition")
        return FaultPlan(
            spec,
            (Victim(slurm_ref("Partition", hold.name), "object"),),
            changes=(f"set partition {hold.name} from {partition.state} to {hold.state}",),
            needs=needs(client),
            data={"before": partition.state},
        )

    async def effects(self, plan: FaultPlan[SlurmSpec], world: World) -> tuple[Effect, ...]:
        """The partition, which must be allowed by name, and the jobs that run or wait in it."""
        hold, client = _hold(plan.spec), client_of(world)
        partition = await client.partition(hold.name)
        known = {n.name: n for n in await client.nodes()}
        gpus = sum(known[n].gpus for n in partition.nodes if n in known)
        size = f"{plural(len(partition.nodes), 'node')} with {plural(gpus, 'GPU')}"
        text = f"{hold.state}: no job starts on its {size}"
        jobs = [j for j in await client.jobs() if not j.ended and hold.name in j.partition.split(",")]
        meets = {True: "runs on", False: "waits until the partition is up"}
        return (
            named(Kind.PARTITION, hold.name, text),
            *(job_effect(j, meets[j.state == "RUNNING"]) for j in jobs),
        )

    async def inject(self, plan: FaultPlan[SlurmSpec], step: Step) -> None:
        from gameday.ledger.slurm import HoldPartition as Hold

        hold, via = _hold(plan.spec), client_of(step.world).via
        await step.ledger.perform([Hold(via, hold.name, hold.state, plan.data["before"])])

    async def settled(self, plan: FaultPlan[SlurmSpec], injected: Injected, world: World) -> Evidence:
        hold = _hold(plan.spec)
        partition = await client_of(world).partition(hold.name)
        fact = f"partition {hold.name} is {partition.state}"
        return Evidence("in" if partition.state == hold.state else "out", (fact,))


def _hold(spec: SlurmSpec) -> SlurmPartition:
    assert spec.hold_partition is not None
    return spec.hold_partition
