"""Targets of Slurm's faults: the way to it, which nodes and jobs are meant, and their nodes in Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gameday.experiment.selector import Selector
from gameday.experiment.text import plural, some
from gameday.experiment.values import picked
from gameday.extend import Fault, PlanError
from gameday.platform.devices import gpus
from gameday.platform.effect import Effect, Kind
from gameday.platform.effect import named as by_name
from gameday.platform.objects import labels_of
from gameday.platform.world import Victim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.faults.slurm import SlurmNodes, SlurmSpec
    from gameday.platform.slurm.client import Slurm as Client
    from gameday.platform.slurm.model import Job, Node
    from gameday.platform.world import Approved, World


class SlurmFault(Fault["SlurmSpec"]):
    """A fault in Slurm."""

    needs_slurm: ClassVar[bool] = True

    def settle_within(self, spec: SlurmSpec) -> float:
        return spec.settle_within


def client_of(world: World) -> Client:
    """Slurm, as the run reaches it. Raises PlanError when none is configured."""
    if world.slurm is None:
        raise PlanError("no Slurm is configured: name one in spec.target.slurm, or with --slurm URL")
    return world.slurm


async def check_able(client: Client, change: Literal["node", "partition", "requeue"]) -> None:
    """Raises PlanError where this Slurm, or the way to it, can't make such a change."""
    if why := await client.cannot(change):
        raise PlanError(why)


def needs(client: Client) -> tuple[str, ...]:
    """The RBAC permissions that the way to Slurm needs."""
    space = client.via.namespace
    return (f"list pods {space}", f"create pods/exec {space}") if space else ()


def job_effect(job: Job, text: str) -> Effect:
    """The effect on a job."""
    return by_name(Kind.JOB, str(job), f"{text} ({job.state.lower()}, {plural(job.gpus, 'GPU')})")


async def pick_nodes(pick: SlurmNodes, client: Client, world: World) -> list[Node]:
    """The nodes that are meant, by name. Raises PlanError for one that is not there."""
    found = {n.name: n for n in await client.nodes()}
    if pick.names is not None:
        names: Sequence[str] = pick.names
    elif pick.partition is not None:
        names = (await client.partition(pick.partition)).nodes
    else:
        assert pick.job is not None
        job = await one_job(client, pick.job)
        if job.state != "RUNNING":
            raise PlanError(f"{job} is {job.state}, so it has no nodes")
        names = job.nodes
    missing = sorted(set(names) - found.keys())
    if missing:
        raise PlanError(f"there is no Slurm node {', '.join(missing)}, only {named(list(found.values()))}")
    nodes = sorted((found[n] for n in set(names)), key=lambda n: n.name)
    meant = f"Slurm nodes {some(sorted(names))}"
    chosen = world.choose(nodes, picked(pick.pick, len(nodes)), _was_meant, meant)
    return sorted(chosen, key=lambda n: n.name)


def _was_meant(node: Node, approved: Approved) -> bool:
    hosts = approved.data["hosts"]
    return node.name in hosts and (hosts[node.name] or node.name) in approved.nodes


async def one_job(client: Client, wanted: int | str) -> Job:
    """The job of that number, or the one of that name that has not ended. Raises PlanError."""
    jobs = await client.jobs()
    found = [j for j in jobs if str(j.number) == str(wanted)]
    found = found or [j for j in jobs if j.name == wanted and not j.ended]
    if not found:
        gone = next((f": {j} is {j.state}" for j in jobs if j.name == wanted), "")
        raise PlanError(f"Slurm has no job {wanted} that waits or runs{gone}")
    if len(found) > 1:
        numbers = ", ".join(str(j.number) for j in found)
        raise PlanError(f"{len(found)} jobs are called {wanted} ({numbers}): name one by its number")
    return found[0]


async def victim(node: Node, host: str, world: World) -> Victim:
    """The Kubernetes node that it is, so that the blast radius counts it once; else Slurm's own."""
    from gameday.faults.nodes import node_ref, node_victim
    from gameday.ledger.slurm import slurm_ref

    allowed = Selector.parse(world.node_selector)
    found = await world.kube.find(node_ref(host)) if host else None
    if not allowed.matches(labels_of(found or {})):
        where = (
            "outside the target's nodes" if found else "not in Kubernetes, so not among the target's nodes"
        )
        which = f"{node.name} (on {host})" if host and host != node.name else node.name
        raise PlanError(f"Slurm node {which}: {where} ({world.node_selector})")
    if found is None:
        return Victim(slurm_ref("Node", node.name), "node", node.name, node.gpus)
    known = node_victim(found)
    return Victim(known.ref, "node", known.node, gpus(found) or node.gpus)


def named(nodes: Sequence[Node]) -> str:
    return some([n.name for n in nodes])
