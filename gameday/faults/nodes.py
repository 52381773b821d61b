"""Which nodes a fault means, and the faults that are one edit of a node's spec have in common."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from gameday.experiment.model import NodePick, Spec
from gameday.experiment.selector import Selector
from gameday.experiment.text import some
from gameday.extend import Already, Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.devices import gpus
from gameday.platform.objects import Object, Ref, labels_of
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from collections.abc import Sequence


async def pick_nodes(choice: NodePick, world: World) -> list[Object]:
    """The nodes that are meant, by name. Raises PlanError when there are none, or one may not be touched.

    Planned again these are the approved ones that are left: nothing takes the place of a node.
    """
    from gameday.platform.resources import NODES

    approved = world.approved.nodes if world.approved else frozenset()
    if choice.names:
        names = [n for n in choice.names if n in approved] or choice.names
        found = [n for n in await asyncio.gather(*(world.kube.find(node_ref(n)) for n in names)) if n]
        missing = sorted(set(names) - {n["metadata"]["name"] for n in found})
        if missing:
            raise PlanError(f"there is no node {', '.join(missing)} in {world.kube.context}")
    else:
        found = await world.kube.list(NODES, labels=choice.selector)
        if not found:
            raise PlanError(f"no node matches {choice.selector} in {world.kube.context}: see their labels")
    found.sort(key=lambda n: str(n["metadata"]["name"]))
    chosen = world.choose(
        found,
        choice.count(len(found)),
        lambda n, was: n["metadata"]["name"] in was.nodes,
        f"nodes {some(choice.names) if choice.names else f'that match {choice.selector}'}",
    )
    allowed = Selector.parse(world.node_selector)
    meant = chosen if world.approved else found  # a fault may be meant for all, whomever the seed chooses
    outside = [n["metadata"]["name"] for n in meant if not allowed.matches(labels_of(n))]
    if outside:
        raise PlanError(f"{some(outside)}: outside the target's nodes ({world.node_selector})")
    return sorted(chosen, key=lambda n: str(n["metadata"]["name"]))


def node_ref(name: str, uid: str | None = None) -> Ref:
    return Ref("v1", "Node", name, uid=uid)


def node_victim(node: Object) -> Victim:
    name = node["metadata"]["name"]
    return Victim(node_ref(name, node["metadata"]["uid"]), "node", name, gpus(node))


class NodeEditSpec(Spec):
    """Options of a fault that edits nodes."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")


N = TypeVar("N", bound=NodeEditSpec)


class NodeEdit(Fault[N]):
    """A fault that is one edit of each node's spec; says what the edit is by `edit`."""

    @abstractmethod
    def words(self, spec: Any) -> str:
        """The change to a node, as an imperative: "cordon", "taint with …"."""

    @abstractmethod
    def edit(self, spec: Any) -> Edit:
        """The edit that this fault makes of a node."""

    async def plan(self, spec: N, world: World) -> FaultPlan[N]:
        nodes = await pick_nodes(spec.nodes, world)
        edit, words = self.edit(spec), self.words(spec)
        already = [n["metadata"]["name"] for n in nodes if edit.read(n) == edit.after]
        check_not_all(already, nodes, words)
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{words} on {n['metadata']['name']}" for n in nodes),
            needs=tuple(f"patch nodes - {n['metadata']['name']}" for n in nodes),
            warnings=tuple(f"{n}: {words} is in force already, and will be left so" for n in already),
            data={"already": already},
        )

    async def inject(self, plan: FaultPlan[N], step: Step) -> None:
        await edit_nodes(plan.victims, self.edit(plan.spec), step)

    async def settled(self, plan: FaultPlan[N], injected: Injected, world: World) -> Evidence:
        edit = self.edit(plan.spec)
        nodes = await asyncio.gather(*(world.kube.find(v.ref) for v in plan.victims))
        states = {n["metadata"]["name"]: edit.read(n) == edit.after for n in nodes if n}
        ours = {n: state for n, state in states.items() if n not in plan.data["already"]}
        return judge(ours, self.words(plan.spec))


def check_not_all(already: Sequence[str], nodes: Sequence[Object], words: str) -> None:
    """Raises Already where nothing would change: such a fault could not be told from its absence."""
    if len(already) == len(nodes):
        raise Already(
            f"{some(already)}: {words} is in force already, nothing would change: choose other nodes"
        )


def judge(states: dict[str, bool], what: str) -> Evidence:
    """Evidence from a yes or no for each object."""
    facts = tuple(f"{name}: {what if yes else 'no longer ' + what}" for name, yes in states.items())
    if not any(states.values()):
        return Evidence("out", facts)
    return Evidence("in" if all(states.values()) else "partial", facts)


async def edit_nodes(victims: Iterable[Victim], edit: Edit, step: Step) -> None:
    """Edit all nodes at the same time; those that are so already stay what they are."""
    patches = await asyncio.gather(*(Patch.of(step.kube, v.ref, edit) for v in victims))
    await step.ledger.perform(patches)
