"""Which nodes a fault means, and the faults that are one edit of a node's spec have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gameday.experiment.model import NodePick, Spec
from gameday.experiment.selector import Selector
from gameday.faults.base import Evidence, FaultPlan, PlanError
from gameday.ledger.operations import Edit, Patch
from gameday.platform.objects import Object, Ref, gpus
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.ledger.ledger import StepLedger


async def pick_nodes(choice: NodePick, world: World) -> list[Object]:
    """The nodes that are meant, by name. Raises PlanError when there are none, or one may not be touched."""
    from gameday.platform.resources import NODES

    if choice.names:
        found = [n for n in await asyncio.gather(*(world.kube.find(node_ref(n)) for n in choice.names)) if n]
        missing = sorted(set(choice.names) - {n["metadata"]["name"] for n in found})
        if missing:
            raise PlanError(f"there is no node {', '.join(missing)} in {world.kube.context}")
    else:
        found = await world.kube.list(NODES, labels=choice.selector)
        if not found:
            raise PlanError(f"no node matches {choice.selector} in {world.kube.context}: see their labels")
    allowed = Selector.parse(world.node_selector)
    outside = [n["metadata"]["name"] for n in found if not allowed.matches(n["metadata"].get("labels"))]
    if outside:
        raise PlanError(f"{_some(outside)}: outside the target's nodes ({world.node_selector})")
    found.sort(key=lambda n: str(n["metadata"]["name"]))
    return sorted(world.sample(found, choice.count(len(found))), key=lambda n: str(n["metadata"]["name"]))


def node_ref(name: str, uid: str | None = None) -> Ref:
    return Ref("v1", "Node", name, uid=uid)


def node_victim(node: Object) -> Victim:
    name = node["metadata"]["name"]
    return Victim(node_ref(name, node["metadata"]["uid"]), "node", name, gpus(node))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class NodeEditSpec(Spec):
    """Options of a fault that edits nodes."""

    nodes: NodePick = Field(description="The nodes: by name, or by selector and number.")


class NodeEdit(ABC):
    """A fault that is one edit of each node's spec; says what the edit is by `edit`."""

    Spec: ClassVar[type[Spec]] = NodeEditSpec
    instant: ClassVar[bool] = False

    @abstractmethod
    def words(self, spec: Any) -> str:
        """What it does to a node, as an imperative: "cordon", "taint with …"."""

    @abstractmethod
    def edit(self, spec: Any) -> Edit:
        """The edit that this fault makes of a node."""

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        nodes = await pick_nodes(spec.nodes, world)
        edit, words = self.edit(spec), self.words(spec)
        already = [n["metadata"]["name"] for n in nodes if edit.read(n) == edit.after]
        check_not_all(already, nodes, words)
        return FaultPlan(
            spec,
            tuple(node_victim(n) for n in nodes),
            changes=tuple(f"{words} on {n['metadata']['name']}" for n in nodes),
            needs=("patch nodes",),
            warnings=tuple(f"{n}: {words} is in force already, and will be left so" for n in already),
            data={"already": already},
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        await edit_nodes(plan.victims, self.edit(plan.spec), world, ledger)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        edit = self.edit(plan.spec)
        nodes = await asyncio.gather(*(world.kube.find(v.ref) for v in plan.victims))
        states = {n["metadata"]["name"]: edit.read(n) == edit.after for n in nodes if n}
        ours = {n: state for n, state in states.items() if n not in plan.data["already"]}
        return judge(ours, self.words(plan.spec))


def check_not_all(already: Sequence[str], nodes: Sequence[Object], words: str) -> None:
    """Raises PlanError where nothing would change: such a fault could not be told from its absence."""
    if len(already) == len(nodes):
        raise PlanError(
            f"{_some(already)}: {words} is in force already, nothing would change: choose other nodes"
        )


def judge(states: dict[str, bool], what: str) -> Evidence:
    """Evidence from a yes or no for each object."""
    facts = tuple(f"{name}: {what if yes else 'no longer ' + what}" for name, yes in states.items())
    if not any(states.values()):
        return Evidence("out", facts)
    return Evidence("in" if all(states.values()) else "partial", facts)


async def edit_nodes(victims: Iterable[Victim], edit: Edit, world: World, ledger: StepLedger) -> None:
    """Edit all nodes at the same time; those that are so already stay what they are."""
    patches = await asyncio.gather(*(Patch.of(world.kube, v.ref, edit) for v in victims))
    await ledger.perform(patches)
