"""Which targets a Chaos Mesh selector means, so that they are known and counted before anything is made.

Chaos Mesh chooses by itself when the object exists. To keep to the approved targets the same choice is made
here first, by the rules of Chaos Mesh 2.8 (pkg/selector/pod/selector.go, pkg/selector/generic/mode.go):
a `pods` map overrides all else, `nodes` and `nodeSelectors` add up, every other key narrows, and a
percentage is rounded up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday.experiment.selector import Selector
from gameday.experiment.text import describe, plain
from gameday.extend import PlanError
from gameday.faults.pods import check_namespaces
from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.errors import PlatformError
from gameday.platform.objects import PROTECT, Object, Ref, Resource, annotations_of, is_finished
from gameday.platform.resources import NODES, PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.world import World


@dataclass(frozen=True)
class Sort:
    """What a selector selects: pods or physical machines, and the selector's key that names them."""

    resource: Resource
    by_name: str


POD_SORT = Sort(PODS, "pods")
MACHINE_SORT = Sort(Resource(API_VERSION, "PhysicalMachine", "physicalmachines"), "physicalMachines")


async def choose(
    holder: Object,
    own: str | None,
    world: World,
    *,
    sort: Sort = POD_SORT,
    place: str = "",
    keep: Collection[str] = (),
    near: Sequence[Object] = (),
    placed: bool = False,
    everything: bool = False,
) -> list[Object]:
    """The targets that `selector`, `mode` and `value` in `holder` mean, chosen by the run's seed.

    `own` is the namespace that Chaos Mesh takes where the selector names none; `place` tells this choice from
    the step's others; `keep` are UIDs to prefer; `near` is the other end of a connection, which one pod alone
    is not both ends of; `placed` leaves out pods without a node; `everything` ignores the mode. Raises
    PlanError when none match.
    """
    selector = holder.get("selector") or {}
    namespaces = namespaces_of(selector, own, world, sort)
    try:
        found = await matching(selector, namespaces, world.kube, sort)
    except PlatformError as error:
        raise PlanError(f"the selector {text(selector)} cannot be resolved: {error}") from error
    usable = [obj for obj in found if _usable(obj, placed)]
    if not usable:
        left_out = f" ({len(found)} match, but are finished, ending or not on a node yet)" if found else ""
        kind = sort.resource.plural
        raise PlanError(
            f"the selector {text(selector)} matches no {kind} in {', '.join(namespaces)}{left_out}: "
            "Chaos Mesh would wait for ever"
        )
    mode = "all" if everything else holder.get("mode")
    count = how_many(mode, holder.get("value"), len(usable), world, place)
    if keep and not everything:
        count = len(keep)  # as many as were approved, whatever share of those that are there now
    if count == len(near) == 1:
        usable = _others(usable, near[0], selector)
    return world.sample(usable, count, place, first=lambda obj: obj["metadata"]["uid"] in keep)


def _others(usable: list[Object], near: Object, selector: Object) -> list[Object]:
    """The pods that can be the far end of a connection from `near` alone. Raises PlanError for none."""
    if others := [obj for obj in usable if obj["metadata"]["uid"] != near["metadata"]["uid"]]:
        return others
    name = f"{near['metadata']['namespace']}/{near['metadata']['name']}"
    raise PlanError(
        f"pod {name} would be both ends: `target`'s selector {text(selector)} matches no other pod, and "
        "between a pod and itself Chaos Mesh breaks nothing. Let `target` select others"
    )


def namespaces_of(selector: Object, own: str | None, world: World, sort: Sort = POD_SORT) -> tuple[str, ...]:
    """The namespaces a selector reaches into. Raises PlanError for one outside the target."""
    given = selector.get(sort.by_name) or selector.get("namespaces")
    named = list(given or ([own] if own else world.namespaces))
    if not named:
        raise PlanError("the selector names no namespace, and neither does the experiment's target")
    check_namespaces(named, world)
    return tuple(sorted(set(named)))


async def matching(
    selector: Object, namespaces: Sequence[str], kube: Kube, sort: Sort = POD_SORT
) -> list[Object]:
    """Every object that a selector means, by namespace and name, whatever its state."""
    if named := selector.get(sort.by_name):
        kind = sort.resource
        refs = [Ref(kind.api_version, kind.kind, n, ns) for ns, names in named.items() for n in set(names)]
        found = [obj for obj in await asyncio.gather(*(kube.find(r) for r in refs)) if obj is not None]
    else:
        labels = str(label_selector(selector))
        fields = selector.get("fieldSelectors") or None
        nodes = await nodes_of(selector, kube)
        lists = await asyncio.gather(
            *(kube.list(sort.resource, ns, labels=labels or None, fields=fields) for ns in namespaces)
        )
        found = [obj for part in lists for obj in part if meets(obj, selector, nodes)]
    return sorted(found, key=lambda o: (o["metadata"]["namespace"], o["metadata"]["name"]))


def how_many(mode: Any, value: Any, total: int, world: World, place: str = "") -> int:
    """How many of `total` a mode means. Raises PlanError for a mode or value that Chaos Mesh refuses."""
    match mode:
        case "all":
            return total
        case "one":
            return 1
        case "fixed":
            return min(total, _number(mode, value, most=None))
        case "fixed-percent":
            return -(-total * _number(mode, value, most=100) // 100)
        case "random-max-percent":
            shares = range(1, _number(mode, value, most=100) + 1)
            percent = world.sample(shares, 1, f"{place}/percent")[0]
            return -(-total * percent // 100)
    raise PlanError(f"mode {mode!r} is none of all, one, fixed, fixed-percent and random-max-percent")


def at_once(holder: Object, total: int, world: World) -> int:
    """How many of `total` are chosen each time, at most. Raises PlanError."""
    mode = holder.get("mode")
    mode = "fixed-percent" if mode == "random-max-percent" else mode
    return how_many(mode, holder.get("value"), total, world)


def pin(holder: Object, targets: Sequence[Object], sort: Sort = POD_SORT) -> None:
    """Make `holder` mean exactly these targets: by name, all of them."""
    names: dict[str, list[str]] = {}
    for obj in targets:
        names.setdefault(obj["metadata"]["namespace"], []).append(obj["metadata"]["name"])
    named = {"namespaces": sorted(names), sort.by_name: {ns: sorted(n) for ns, n in sorted(names.items())}}
    holder["selector"] = {**(holder.get("selector") or {}), **named}
    holder["mode"] = "all"
    holder.pop("value", None)


def free(
    holder: Object, namespaces: Sequence[str], most: int, sort: Sort = POD_SORT, *, protect: bool = True
) -> None:
    """Let `holder` choose anew later: in these namespaces, at most so many, and none that is protected.

    Named targets stay the named ones. Of all that protects a pod a selector can express the pod's own label.
    `protect` False: its pods are not touched.
    """
    selector = holder.setdefault("selector", {})
    named = selector.get(sort.by_name)
    if not named:
        selector["namespaces"] = list(namespaces)
    if protect and not named:
        unprotected = {"key": PROTECT, "operator": "DoesNotExist"}
        selector["expressionSelectors"] = [*(selector.get("expressionSelectors") or ()), unprotected]
    if holder.get("mode") == "all":
        holder["mode"], holder["value"] = "fixed", str(most)


def text(selector: Object) -> str:
    """A selector on one line, for messages."""
    return plain({key: value for key, value in selector.items() if value}).replace('"', "")


def _number(mode: str, value: Any, most: int | None) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1 or (most is not None and number > most):
        wanted = f"a number from 1 to {most}" if most else "a number from 1"
        raise PlanError(f"mode {mode} needs `value`: {wanted} in quotes, found {describe(value)}")
    return number


def label_selector(selector: Object) -> Selector:
    """The labels that a selector asks for. Raises PlanError."""
    return _checked(selector, selector.get("labelSelectors"), selector.get("expressionSelectors"))


def _checked(selector: Object, labels: Any, expressions: Any = None) -> Selector:
    """Labels and expressions as the API takes them. Raises PlanError where a value would mean more there."""
    try:
        made = Selector.from_object({"matchLabels": labels, "matchExpressions": expressions})
        if Selector.parse(str(made)) != made:
            raise ValueError(f"{made} is no label selector")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PlanError(f"the selector {text(selector)} is wrong: {error}") from error
    return made


async def nodes_of(selector: Object, kube: Kube) -> set[str] | None:
    """The nodes a selector allows; None when it does not care."""
    names, labels = selector.get("nodes") or [], selector.get("nodeSelectors") or {}
    if not names and not labels:
        return None
    found = await asyncio.gather(*(kube.find(Ref("v1", "Node", name)) for name in names))
    missing = [name for name, node in zip(names, found, strict=True) if node is None]
    if missing:
        raise PlanError(f"the selector names node {', '.join(missing)}, which is not in the cluster")
    allowed = set(names)
    if labels:
        labelled = await kube.list(NODES, labels=str(_checked(selector, labels)))
        allowed |= {n["metadata"]["name"] for n in labelled}
    return allowed


def meets(obj: Object, selector: Object, nodes: set[str] | None) -> bool:
    """The parts of a selector that the API server does not decide."""
    annotations = annotations_of(obj)
    if any(annotations.get(k) != v for k, v in (selector.get("annotationSelectors") or {}).items()):
        return False
    if nodes is not None and obj["spec"].get("nodeName", "") not in nodes:
        return False
    phases = [str(p).replace(" ", "") for p in selector.get("podPhaseSelectors") or ()]
    phase = obj.get("status", {}).get("phase")
    wanted = [p for p in phases if not p.startswith("!")]
    return (not wanted or phase in wanted) and f"!{phase}" not in phases


def _usable(obj: Object, placed: bool) -> bool:
    """Whether a fault can be put in: what is over or ending, or not on a node, keeps AllInjected false."""
    if obj["kind"] != "Pod":
        return True
    on_node = not placed or bool(obj["spec"].get("nodeName"))
    return on_node and not is_finished(obj) and "deletionTimestamp" not in obj["metadata"]
