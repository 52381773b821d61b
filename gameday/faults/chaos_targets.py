"""Everything a Chaos Mesh manifest hits, resolved and pinned, and the daemons that it needs there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gameday.extend import PlanError
from gameday.faults.chaos_evidence import containers_of
from gameday.faults.chaos_manifest import CLOUD, Part, parts, templates
from gameday.faults.chaos_protected import check_reach
from gameday.faults.chaos_selector import (
    MACHINE_SORT,
    POD_SORT,
    Sort,
    at_once,
    choose,
    free,
    namespaces_of,
    pin,
)
from gameday.faults.pods import pod_victim
from gameday.platform.chaos_mesh import API_VERSION, DAEMONS, nodes_with_daemon
from gameday.platform.effect import Effect, Kind, of_victim
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.world import Victim, World

Chosen = Mapping[str, Collection[str]]

ON_NODE_NETWORK = (
    "pod {} is on its node's own network: Chaos Mesh changes no traffic there, so the fault would neither "
    "get in nor go away again"
)


@dataclass
class Targets:
    """The targets of all parts of a manifest. Those of `keep`, chosen before, are preferred."""

    keep: Chosen = field(default_factory=dict)
    hit: dict[str, Victim] = field(default_factory=dict)
    on_nodes: dict[str, str] = field(default_factory=dict)  # node: a target on it that needs its daemon
    ready: list[dict[str, str]] = field(default_factory=list)  # pods that were ready, as references
    containers: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # of those, by UID
    sentences: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)  # how often each pod, or its successor, may be
    chosen: dict[str, list[str]] = field(default_factory=dict)  # the UIDs of each choice, by its place
    unknown: list[Effect] = field(default_factory=list)  # what can't be counted, and must be allowed by name

    @property
    def victims(self) -> tuple[Victim, ...]:
        return tuple(self.hit.values())

    @property
    def effects(self) -> tuple[Effect, ...]:
        """An effect for each target, and those that have no number."""
        times = {key: self.ended.get(key, 0) for key in self.hit}
        hit = (
            replace(of_victim(v, ends=times[key] > 0), times=max(1, times[key]))
            for key, v in self.hit.items()
        )
        return (*hit, *self.unknown)

    @property
    def summary(self) -> str:
        return "; ".join(self.sentences)

    @property
    def irreversible(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.lost))

    def add_pods(self, part: Part, pods: Sequence[Object], *, touched: bool = True) -> None:
        """`touched` False: the pods are the far end of a connection, where only the daemon is needed."""
        for pod in pods:
            victim = pod_victim(pod)
            if part.needs_daemon:
                self.on_nodes.setdefault(victim.node, str(victim))
            if part.kind == "NetworkChaos" and pod["spec"].get("hostNetwork"):
                # As a far end as well: its recovery asks for a change (podnetworkchaos/controller.go).
                raise PlanError(ON_NODE_NETWORK.format(f"{victim.ref.namespace}/{victim.ref.name}"))
            if touched and self.hit.setdefault(str(victim.ref), victim) is victim and is_ready(pod):
                self.ready.append(victim.ref.to_data())
                self.containers[str(victim.ref.uid)] = containers_of(pod)

    def add_ended(self, pods: Sequence[Object], times: int) -> None:
        """Share the times out among pods: as far as they go round, each may be ended more than once.

        Those with the most GPUs are first, since nobody knows which it will be.
        """
        each, more = divmod(max(times, len(pods)), len(pods))
        for number, victim in enumerate(sorted(map(pod_victim, pods), key=lambda v: -v.gpus)):
            known = self.ended.get(str(victim.ref), 0)
            self.ended[str(victim.ref)] = known + each + (number < more)


async def resolve(
    manifest: Object, own: str | None, world: World, lives: float, keep: Chosen | None = None
) -> Targets:
    """Find the targets of every part, and write them into the manifest, which is there for `lives` seconds.

    `keep` is what was `chosen` before. Raises PlanError.
    """
    targets = Targets(keep or {})
    kind, spec = manifest["kind"], manifest["spec"]
    for part in parts(kind, spec, lives):
        if remote := part.spec.get("remoteCluster"):
            raise PlanError(f"it names the remote cluster {remote}, which is not the target")
        if part.kind in CLOUD:
            name = str(part.spec.get(CLOUD[part.kind]) or "a cloud resource")
            _add_machine(targets, part, name, "its cloud account")
        elif part.kind == "PhysicalMachineChaos":
            await _add_machines(targets, part, own, world)
        else:
            await _add_pods(targets, part, own, world)
    for template in templates(kind, spec):
        if template.get("templateType") == "Task":
            ref = Ref(API_VERSION, "Task", str(template.get("name")))
            targets.unknown.append(Effect(Kind.OTHER, ref, f"runs any container: {_images(template)}"))
    if not targets.sentences:
        raise PlanError(f"the {kind} holds no fault")
    return targets


async def check_daemons(on_nodes: dict[str, str], world: World) -> None:
    """Raises PlanError when chaos-daemon is missing on a node: upstream, the fault then hangs for ever."""
    if not on_nodes:
        return
    missing = sorted(set(on_nodes) - await nodes_with_daemon(world.kube))
    if missing:
        holds = ", ".join(f"{node} (holds {on_nodes[node]})" for node in missing[:10])
        raise PlanError(
            f"chaos-daemon is not ready on {_many(len(missing), 'node')} with targets: {holds}; "
            f"the fault would hang for ever: see `kubectl get pods -A -o wide -l {DAEMONS}`"
        )


async def _add_pods(targets: Targets, part: Part, own: str | None, world: World) -> None:
    pods, most = await _take(targets, part, part.spec, own, world)
    targets.add_pods(part, pods)
    ended, times = _ended(part, pods), part.times * most
    often = f", at most {times} of them in all" if ended and part.times > 1 else ""
    targets.sentences.append(_sentence(part, _many(len(pods), "pod")) + often)
    if ended:
        targets.add_ended(ended, times)
    if part.action == "container-kill":
        targets.lost.append(f"killed containers of {_many(len(pods), 'pod')}: started anew, not restored")
    far_end = part.spec.get("target")
    if part.kind == "NetworkChaos" and isinstance(far_end, dict):
        # With direction `to` only the near end's own traffic is changed, so the far end may be anywhere in
        # the cluster; but its daemons are asked on recovery all the same (trafficcontrol/impl.go). A
        # partition drops packets at both ends, whatever its direction (partition/impl.go).
        touched = part.action == "partition" or part.spec.get("direction") in ("from", "both")
        scope = world if touched else await _everywhere(far_end, own, world)
        found, _ = await _take(targets, part, far_end, own, scope, near=pods, touched=touched)
        targets.add_pods(part, found, touched=touched)


async def _take(
    targets: Targets,
    part: Part,
    holder: Object,
    own: str | None,
    world: World,
    sort: Sort = POD_SORT,
    *,
    near: Sequence[Object] = (),
    touched: bool = True,
) -> tuple[list[Object], int]:
    """The targets of one selector, and how many of them are hit at a time; `near` is for the far end's.

    The selector is pinned to them, unless it must be free to find others later: then not more of them.
    """
    free_later = part.repeated or (part.later and holder.get("mode") == "all" and sort is POD_SORT)
    placed = part.needs_daemon and not part.repeated and sort is POD_SORT
    place = f"{part.place}/target" if near else part.place
    found = await choose(
        holder,
        own,
        world,
        sort=sort,
        place=place,
        keep=targets.keep.get(place, ()),
        near=near,
        placed=placed,
        everything=free_later,
    )
    targets.chosen[place] = [obj["metadata"]["uid"] for obj in found]
    if not free_later:
        pin(holder, found, sort)
        return found, len(found)
    if _ended(part, found) and "percent" in str(holder.get("mode")):
        raise PlanError(
            f"mode {holder['mode']} is a share of the pods that are there each time, so that nobody knows "
            "how many it ends: give `mode: fixed` and a number"
        )
    most = at_once(holder, len(found), world)
    namespaces = namespaces_of(holder.get("selector") or {}, own, world, sort)
    free(holder, namespaces, most, sort, protect=touched)
    if touched and sort is POD_SORT and not holder["selector"].get(sort.by_name):
        await check_reach(holder["selector"], namespaces, world.kube)
    return found, most


def _ended(part: Part, targets: Sequence[Object]) -> list[Object]:
    """The targets that are gone afterwards; a pod that is not to restart ends with its container."""
    if part.kind != "PodChaos":
        return []
    once = [p for p in targets if p["spec"].get("restartPolicy") == "Never"]
    return {"pod-kill": list(targets), "container-kill": once}.get(part.action, [])


async def _everywhere(holder: Object, own: str | None, world: World) -> World:
    """The world with the namespaces that a selector names, beside those of the target."""
    selector = holder.get("selector") or {}
    named = {*(selector.get("pods") or {}), *(selector.get("namespaces") or ())}
    return replace(world, namespaces=(*world.namespaces, *sorted(named - set(world.namespaces))))


async def _add_machines(targets: Targets, part: Part, own: str | None, world: World) -> None:
    addresses = part.spec.get("address") or []
    for address in addresses:
        _add_machine(targets, part, str(address), "an address")
    if addresses:
        return
    machines, _ = await _take(targets, part, part.spec, own, world, MACHINE_SORT)
    for machine in machines:
        ref = Ref.of(machine)
        targets.hit.setdefault(str(ref), Victim(ref, "node", node=ref.name))
    targets.sentences.append(_sentence(part, _many(len(machines), "physical machine")))


def _add_machine(targets: Targets, part: Part, name: str, known_by: str) -> None:
    """A machine that the cluster knows nothing of: it counts as a node."""
    ref = Ref(API_VERSION, part.kind, name)
    targets.hit.setdefault(str(ref), Victim(ref, "node", node=name))
    targets.sentences.append(_sentence(part, name))
    text = f"{part.kind} {part.action}".strip() + f"; named by {known_by}, so the target does not bound it"
    targets.unknown.append(Effect(Kind.OTHER, ref, text))
    if part.one_shot:
        targets.lost.append(f"{name} is restarted, which is not undone")


def _images(template: Object) -> str:
    """What a Task runs."""
    container = (template.get("task") or {}).get("container") or {}
    return str(container.get("image") or "no image given")


def _sentence(part: Part, what: str) -> str:
    action = f"{part.kind} {part.action}".strip()
    if part.repeated:
        return f"{action}, again and again, on any of {what}"
    lasts = "" if part.one_shot else f" for {part.end_in.get(part.end_key)}"
    return f"{action} on {what}{lasts}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
