"""The blast radius: how much the effects of a plan are, and how much they may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gameday.experiment.model import BlastRadius, Bound, Target
from gameday.experiment.selector import Selector
from gameday.experiment.text import plural, some
from gameday.platform.effect import NAMED, Effect, Kind
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Resource, is_ready, labels_of
from gameday.platform.resources import NODES, PODS
from gameday.platform.world import World
from gameday.safety.held import of_nodes
from gameday.safety.plan import Plan
from gameday.safety.protection import found_by_name

_KEYS = {  # the key of spec.blastRadius under which a kind of effect is allowed by name
    Kind.SERVICE: "services",
    Kind.PARTITION: "partitions",
    Kind.NAMESPACE: "namespaces",
    Kind.CLUSTER_SCOPED: "clusterScoped",
    Kind.OTHER: "others",
}


@dataclass(frozen=True)
class Usage:
    """One kind of thing: how many a plan touches, how many it may (None: not bounded), out of how many.

    `down` are those of the target that are lost already, whoever lost them: they are part of what is used.
    """

    what: str
    used: int
    limit: int | None
    total: int | None
    down: int = 0

    @property
    def exceeded(self) -> bool:
        return self.limit is not None and self.used > self.down and self.used > self.limit

    def __str__(self) -> str:
        limit = "they come with their nodes" if self.limit is None else f"at most {self.limit}"
        total = "" if self.total is None else f", of {self.total}"
        down = f", {self.down} of them down already" if self.down else ""
        return f"{plural(self.used, self.what.removesuffix('s'))}{down} ({limit}{total})"


@dataclass(frozen=True)
class Count:
    """The sum of effects. `coming` are pods that come with a node that is touched."""

    nodes: dict[str, int]  # the GPUs of each
    pods: int = 0
    coming: int = 0
    gpus: int = 0


def count(plan: Plan) -> Count:
    """Nodes, pods and GPUs that a plan touches over the whole run.

    Pods that a step ends are others each time, when it is repeated, when another step ends them again, or
    when its own fault does (`times`): by then their successors are there. What a fault only holds is counted
    once, however often.
    """
    nodes: dict[str, int] = {}
    pods: dict[str, Effect] = {}
    again: list[Effect] = []
    ended: set[str] = set()  # pods that a step before this one ends
    lost = lost_gpus = 0
    for step in plan.steps.values():
        ends: set[str] = set()
        for effect in step.fault.effects:
            if effect.kind is Kind.NODE:
                nodes[effect.ref.name] = max(effect.gpus, nodes.get(effect.ref.name, 0))
            elif effect.kind is Kind.POD:
                key = effect.ref.uid or str(effect.ref)
                pods[key] = effect if key not in pods or pods[key].comes else pods[key]
                if effect.ends and key not in ends:
                    again += [effect] * (step.times * effect.times - (key not in ended))
                    ends.add(key)
            elif effect.kind is Kind.WORKLOAD:
                lost += effect.pods * step.times
                lost_gpus += effect.gpus * (step.times if effect.pods else 1)
        ended |= ends
    every = [*pods.values(), *again]
    held = sum(e.gpus for e in every if e.node not in nodes)
    coming = sum(e.comes for e in every)
    return Count(nodes, len(every) - coming + lost, coming, sum(nodes.values()) + held + lost_gpus)


async def measure(plan: Plan, radius: BlastRadius, target: Target, kube: Kube) -> list[Usage]:
    """The plan's counts against those that are allowed."""
    used = count(plan)
    labels = target.nodes.selector if target.nodes else None
    # Spare capacity is what a bound on nodes protects: those that are down already have used some of it.
    fleet = [n async for n in kube.each(NODES, labels=labels)] if used.nodes else []
    down = [n for n in fleet if is_down(n) and n["metadata"]["name"] not in used.nodes]
    totals: dict[str, int] = {}
    if _is_share(radius.nodes) or _is_share(radius.gpus):
        fleet = fleet or [n async for n in kube.each(NODES, labels=labels)]
        totals = {"nodes": len(fleet), "gpus": sum((await of_nodes(kube, fleet)).values())}
    if _is_share(radius.pods):
        totals["pods"] = sum([await running(kube, n) for n in target.namespaces])
    lost = sum((await of_nodes(kube, down)).values()) if radius.gpus is not None else 0
    pods = Usage("pods", used.pods + used.coming, _limit(radius.pods, totals.get("pods")), totals.get("pods"))
    if radius.pods is None and not used.pods and used.coming:
        pods = Usage("pods", used.coming, None, None)
    return [
        Usage(
            "nodes",
            len(used.nodes) + len(down),
            _limit(radius.nodes, totals.get("nodes")),
            totals.get("nodes"),
            len(down),
        ),
        pods,
        Usage("gpus", used.gpus + lost, _limit(radius.gpus, totals.get("gpus")), totals.get("gpus"), lost),
    ]


def not_allowed(effects: Iterable[Effect], radius: BlastRadius) -> list[str]:
    """A sentence for each effect that can't be counted and that the file does not allow by name."""
    return [
        f"{effect.ref} ({effect.text}) can't be counted: allow it by name in "
        f"spec.blastRadius.{_KEYS[effect.kind]}: [{effect.name}]"
        for effect in dict.fromkeys(e for e in effects if e.kind in NAMED)
        if effect.name not in radius.allowed(effect.kind)
    ]


def is_down(node: Object) -> bool:
    """Whether a node takes no pods as things are: not Ready, or cordoned."""
    return not is_ready(node) or bool(node["spec"].get("unschedulable"))


def outside(effects: Sequence[Effect], target: Target) -> list[str]:
    """A sentence for each namespace outside the target in which something is touched, with an example."""
    found: dict[str, list[Effect]] = {}
    for effect in effects:
        namespace = effect.ref.namespace
        if effect.kind in NAMED or not namespace or namespace in target.namespaces:
            continue
        found.setdefault(namespace, []).append(effect)
    return [
        f"namespace {namespace} is outside the target, but the plan touches {len(them)} of its objects: "
        + str(them[0])
        + (", for instance" if len(them) > 1 else "")
        for namespace, them in sorted(found.items())
    ]


async def outside_nodes(effects: Sequence[Effect], world: World) -> list[str]:
    """A sentence on the nodes that are not among the target's as their labels are now. Read only."""
    names = {e.ref.name for e in effects if e.on_node}
    where = "which names none"
    if world.node_selector:
        allowed = Selector.parse(world.node_selector)
        found = await found_by_name("Node", names, world)
        names = {n["metadata"]["name"] for n in found if not allowed.matches(labels_of(n))}
        where = world.node_selector
    return [f"{some(sorted(names))}: outside the target's nodes ({where})"] if names else []


def _limit(bound: Bound | None, total: int | None) -> int:
    return bound.limit(total or 0) if bound else 0


def _is_share(bound: Bound | None) -> bool:
    return bound is not None and bound.number is None


async def running(kube: Kube, namespace: str) -> int:
    """How many pods of a namespace run; those that are over would only make a share larger.

    All of them but those of another phase, which are few: a list of 50,000 pods takes seconds.
    """
    others = [p async for p in kube.each(PODS, namespace, fields={"status.phase!": "Running"})]
    return max(0, await total(kube, PODS, namespace) - len(others))


async def total(kube: Kube, resource: Resource, namespace: str | None = None) -> int:
    """How many objects there are, from one page where the server says how many it left out; it need not."""
    page = await kube.page(resource, namespace, limit=1)
    meta = page["metadata"]
    if meta.get("continue") and meta.get("remainingItemCount") is None:
        return len([o async for o in kube.each(resource, namespace)])
    return len(page["items"]) + int(meta.get("remainingItemCount") or 0)
