"""Slurm's nodes go out of service, or back into it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.extend import Already, Effect, Evidence, FaultPlan, Injected, Step
from gameday.faults.slurm_targets import (
    SlurmFault,
    check_able,
    client_of,
    job_effect,
    named,
    needs,
    pick_nodes,
    victim,
)
from gameday.platform.effect import Kind
from gameday.platform.effect import named as by_name
from gameday.platform.slurm.transport import SlurmError

if TYPE_CHECKING:
    from gameday.faults.slurm import SlurmNodes, SlurmSpec
    from gameday.ledger.operations import Operation
    from gameday.platform.slurm.model import Node
    from gameday.platform.world import World


class _Nodes(SlurmFault):
    """Nodes of Slurm change their state."""

    takes_out: ClassVar[bool] = True
    to_jobs: ClassVar[str] = ""  # what happens to those that run there
    irreversible: ClassVar[tuple[str, ...]] = ()

    async def plan(self, spec: SlurmSpec, world: World) -> FaultPlan[SlurmSpec]:
        from gameday.platform.slurm.hosts import hosts

        client = client_of(world)
        pick: SlurmNodes = getattr(spec, spec.way)
        nodes = await pick_nodes(pick, client, world)
        already = [n for n in nodes if n.out == self.takes_out]
        if len(already) == len(nodes):
            state = f"{'out of' if self.takes_out else 'in'} service"
            raise Already(f"{named(nodes)}: {state} in Slurm already, nothing would change")
        await check_able(client, "node")
        on = await hosts(nodes, world.kube)
        every = await asyncio.gather(*(victim(n, on[n.name], world) for n in nodes))
        victims = {v.ref: v for v in every}  # several Slurm nodes may share one host
        return FaultPlan(
            spec,
            tuple(victims.values()),
            changes=tuple(
                f"{spec.way} Slurm node {n.name}{_on(n.name, on)} ({n.word})"
                for n in nodes
                if n not in already
            ),
            irreversible=self.irreversible,
            warnings=tuple(
                f"Slurm node {n.name} is {n.word} already ({n.reason or 'no reason given'}), and is left so"
                for n in already
            ),
            needs=needs(client),
            basis={
                f"Slurm node {n.name}": f"out of service ({n.reason})" if n.out else "in service"
                for n in nodes
            },
            data={
                "before": {n.name: [n.word, n.reason, sorted(n.states)] for n in nodes if n not in already},
                "hosts": on,
            },
        )

    async def effects(self, plan: FaultPlan[SlurmSpec], world: World) -> tuple[Effect, ...]:
        """The Slurm nodes that Kubernetes knows by other names, and the jobs to which something happens."""
        on, way = plan.data.get("hosts", {}), plan.spec.way
        others = tuple(
            by_name(Kind.JOB, name, f"{way} in Slurm{_on(name, on)}", what="SlurmNode")
            for name in _still(plan)
            if _on(name, on)
        )
        jobs = [j for j in await client_of(world).jobs() if j.state == "RUNNING"]
        here = _still(plan).keys()
        lost = (job_effect(j, self.to_jobs) for j in jobs if self.to_jobs and here & set(j.nodes))
        return (*others, *lost)

    async def inject(self, plan: FaultPlan[SlurmSpec], step: Step) -> None:
        before = _still(plan)
        await step.ledger.perform([self.operation(n, before[n], plan.spec, step) for n in before])

    @abstractmethod
    def operation(self, name: str, before: list[Any], spec: SlurmSpec, step: Step) -> Operation:
        """The change of one node; `before` has its state in a word, why, and all its states."""

    async def settled(self, plan: FaultPlan[SlurmSpec], injected: Injected, world: World) -> Evidence:
        names = _still(plan)
        nodes = [n for n in await client_of(world).nodes() if n.name in names]
        states = [self.state(n, plan.spec, world.run) for n in nodes]
        facts = tuple(self.fact(n, state) for n, state in zip(nodes, states, strict=True))
        return Evidence(states[0] if len(set(states)) == 1 else "partial" if states else "out", facts)

    @abstractmethod
    def state(self, node: Node, spec: SlurmSpec, run: str) -> str:
        """Whether a node is in: as Evidence has it."""

    def fact(self, node: Node, state: str) -> str:
        """A node as it is now, in words."""
        why = f" ({node.reason})" if node.reason and node.out else ""
        return f"Slurm node {node.name} is {node.word}{why}"


class Drain(_Nodes):
    """Nodes get no new jobs."""

    word: ClassVar[str] = "DRAIN"
    to_jobs: ClassVar[str] = "runs on, and nothing follows it on its nodes"

    def operation(self, name: str, before: list[Any], spec: SlurmSpec, step: Step) -> Operation:
        from gameday.ledger.slurm import OutOfService

        return OutOfService(
            client_of(step.world).via, name, self.word, step.world.run, spec.reason, before[0]
        )

    def state(self, node: Node, spec: SlurmSpec, run: str) -> str:
        from gameday.ledger.slurm import marker

        ours = node.reason.startswith(marker(run)) and node.out
        if not ours or self.word not in node.states:
            return "partial" if ours else "out"
        return "partial" if spec.wait_for_jobs and node.word == "draining" else "in"


class Down(Drain):
    """Nodes are down for Slurm, and their jobs are lost."""

    word: ClassVar[str] = "DOWN"
    to_jobs: ClassVar[str] = "is requeued or lost"
    irreversible = ("jobs on nodes that go down are requeued or lost",)

    async def plan(self, spec: SlurmSpec, world: World) -> FaultPlan[SlurmSpec]:
        planned = await super().plan(spec, world)
        try:
            returns = await client_of(world).setting("ReturnToService") == "2"
        except SlurmError:
            returns = False  # then nobody knows, and whoever brings a node back is somebody else
        if not returns:
            return planned
        warning = (
            "ReturnToService=2: a node that is down comes back when it registers, and the step ends then"
        )
        return replace(planned, warnings=(*planned.warnings, warning), data={**planned.data, "returns": True})

    async def settled(self, plan: FaultPlan[SlurmSpec], injected: Injected, world: World) -> Evidence:
        """Over where Slurm itself brings nodes back, though it does not say whether it was an admin."""
        seen = await super().settled(plan, injected, world)
        if seen.state == "in":
            return replace(seen, noted={"was in": True})
        if seen.state != "out" or not (plan.data.get("returns") and injected.data.get("was in")):
            return seen
        names = _still(plan)
        out = any(n.out for n in await client_of(world).nodes() if n.name in names)
        return seen if out else replace(seen, state="over")

    def fact(self, node: Node, state: str) -> str:
        text = super().fact(node, state)
        if state == "out":
            text += "; where ReturnToService=2, a node that answers comes back by itself"
        return text


class Resume(_Nodes):
    """Nodes that are drained or down go back into service."""

    takes_out: ClassVar[bool] = False

    def operation(self, name: str, before: list[Any], spec: SlurmSpec, step: Step) -> Operation:
        from gameday.ledger.slurm import BackInService

        _, reason, states = before
        state = "DRAIN" if "DRAIN" in states else "DOWN"
        return BackInService(client_of(step.world).via, name, state, reason)

    def state(self, node: Node, spec: SlurmSpec, run: str) -> str:
        return "out" if node.out else "in"


def _still(plan: FaultPlan[SlurmSpec]) -> dict[str, Any]:
    """The nodes to change, by name: those of the plan without what vanished or is left as it is."""
    here, on = {v.node for v in plan.victims}, plan.data.get("hosts", {})
    return {name: b for name, b in plan.data["before"].items() if (on.get(name) or name) in here}


def _on(name: str, hosts: dict[str, str]) -> str:
    """Where a Slurm node runs, said where its own name does not tell."""
    host = hosts.get(name)
    return f", on node {host}" if host and host != name else ""
