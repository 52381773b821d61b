"""Which nodes and which job of Slurm the `slurm` fault means, and what of Kubernetes is touched with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.experiment.selector import Selector
from gameday.experiment.values import picked
from gameday.faults.base import PlanError
from gameday.platform.objects import gpus
from gameday.platform.world import Victim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.faults.slurm import SlurmNodes
    from gameday.platform.slurm.client import Slurm as Client
    from gameday.platform.slurm.model import Job, Node
    from gameday.platform.world import World


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
    return sorted(world.sample(nodes, picked(pick.pick, len(nodes))), key=lambda n: n.name)


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


async def victim(node: Node, world: World) -> Victim:
    """The Kubernetes node of that name, so that the blast radius counts it once; else Slurm's own."""
    from gameday.faults.nodes import node_ref, node_victim
    from gameday.ledger.slurm import slurm_ref

    allowed = Selector.parse(world.node_selector)
    found = await world.kube.find(node_ref(node.name))
    if not allowed.matches(((found or {}).get("metadata") or {}).get("labels")):
        where = (
            "outside the target's nodes" if found else "not in Kubernetes, so not among the target's nodes"
        )
        raise PlanError(f"Slurm node {node.name}: {where} ({world.node_selector})")
    if found is None:
        return Victim(slurm_ref("Node", node.name), "node", node.name, node.gpus)
    known = node_victim(found)
    return Victim(known.ref, "node", node.name, gpus(found) or node.gpus)


def named(nodes: Sequence[Node]) -> str:
    names = [n.name for n in nodes]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
