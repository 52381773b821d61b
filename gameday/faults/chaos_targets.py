"""Everything a Chaos Mesh manifest hits, resolved and pinned, and the daemons that it needs there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from gameday.faults.base import PlanError
from gameday.faults.chaos_manifest import CLOUD, Part, parts, templates
from gameday.faults.chaos_selector import MACHINE_SORT, POD_SORT, choose, namespaces_of, narrow, pin
from gameday.faults.pods import pod_victim
from gameday.platform.chaos_mesh import API_VERSION, DAEMONS, nodes_with_daemon
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.world import Victim, World

NO_SHARED_NETWORK = "pod {} is on its node's own network: Chaos Mesh refuses that unless it is told otherwise"


@dataclass
class Targets:
    """What the parts of a manifest hit, together."""

    hit: dict[str, Victim] = field(default_factory=dict)
    on_nodes: dict[str, str] = field(default_factory=dict)  # node: a target on it that needs its daemon
    ready: list[dict[str, str]] = field(default_factory=list)  # pods that were ready, as references
    sentences: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ends_pods: bool = False
    cautions: list[str] = field(default_factory=list)

    @property
    def victims(self) -> tuple[Victim, ...]:
        return tuple(self.hit.values())

    @property
    def summary(self) -> str:
        return "; ".join(self.sentences)

    @property
    def irreversible(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.lost))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.cautions))

    def add_pods(self, part: Part, pods: Sequence[Object], *, touched: bool = True) -> None:
        """`touched` False: the pods are the far end of a connection, where only the daemon is needed."""
        for pod in pods:
            victim = pod_victim(pod)
            if part.needs_daemon:
                self.on_nodes.setdefault(victim.node, str(victim))
            if part.kind == "NetworkChaos" and pod["spec"].get("hostNetwork"):
                self.cautions.append(NO_SHARED_NETWORK.format(f"{victim.ref.namespace}/{victim.ref.name}"))
            if touched and self.hit.setdefault(str(victim.ref), victim) is victim and is_ready(pod):
                self.ready.append(victim.ref.to_data())


async def resolve(manifest: Object, own: str | None, world: World, keep: Collection[str] = ()) -> Targets:
    """Find the targets of every part, and write them into the manifest. Raises PlanError."""
    targets = Targets()
    kind, spec = manifest["kind"], manifest["spec"]
    for part in parts(kind, spec):
        if remote := part.spec.get("remoteCluster"):
            raise PlanError(f"it names the remote cluster {remote}, which is not the target")
        if part.kind in CLOUD:
            name = str(part.spec.get(CLOUD[part.kind]) or "a cloud resource")
            _add_machine(targets, part, name, "its cloud account")
        elif part.kind == "PhysicalMachineChaos":
            await _add_machines(targets, part, own, world, keep)
        else:
            await _add_pods(targets, part, own, world, keep)
    for template in templates(kind, spec):
        if template.get("templateType") == "Task":
            targets.cautions.append(f"the template {template.get('name')} runs a container of its own")
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


async def _add_pods(
    targets: Targets, part: Part, own: str | None, world: World, keep: Collection[str]
) -> None:
    pods = await _take(part, part.spec, own, world, keep)
    targets.add_pods(part, pods)
    targets.sentences.append(_sentence(part, _many(len(pods), "pod")))
    if part.action == "pod-kill":
        targets.ends_pods = True
        targets.lost.append(f"{_many(len(pods), 'killed pod')}: replaced by controllers, not restored")
    elif part.action == "container-kill":
        targets.lost.append(f"killed containers of {_many(len(pods), 'pod')}: started anew, not restored")
    far_end = part.spec.get("target")
    if part.kind == "NetworkChaos" and isinstance(far_end, dict):
        # With direction `to` only the near end's own traffic is changed, so the far end may be anywhere in
        # the cluster; but its daemons are asked on recovery all the same (trafficcontrol/impl.go).
        touched = part.spec.get("direction") in ("from", "both")
        scope = world if touched else await _everywhere(far_end, own, world)
        targets.add_pods(part, await _take(part, far_end, own, scope, keep), touched=touched)


async def _take(
    part: Part, holder: Object, own: str | None, world: World, keep: Collection[str]
) -> list[Object]:
    """The pods of one selector, which is pinned to them unless it must be free to find others later."""
    placed = part.needs_daemon and not part.repeated
    pods = await choose(holder, own, world, keep=keep, placed=placed, everything=part.repeated)
    if part.repeated or (part.later and holder.get("mode") == "all"):
        narrow(holder, namespaces_of(holder.get("selector") or {}, own, world))
    else:
        pin(holder, pods, POD_SORT)
    return pods


async def _everywhere(holder: Object, own: str | None, world: World) -> World:
    """The world with the namespaces that a selector names, beside those of the target."""
    selector = holder.get("selector") or {}
    named = {*(selector.get("pods") or {}), *(selector.get("namespaces") or ())}
    return replace(world, namespaces=(*world.namespaces, *sorted(named - set(world.namespaces))))


async def _add_machines(
    targets: Targets, part: Part, own: str | None, world: World, keep: Collection[str]
) -> None:
    addresses = part.spec.get("address") or []
    for address in addresses:
        _add_machine(targets, part, str(address), "an address")
    if addresses:
        return
    sort = MACHINE_SORT
    machines = await choose(part.spec, own, world, sort=sort, keep=keep, everything=part.repeated)
    if part.repeated:
        narrow(part.spec, namespaces_of(part.spec.get("selector") or {}, own, world, sort), sort)
    else:
        pin(part.spec, machines, MACHINE_SORT)
    for machine in machines:
        ref = Ref.of(machine)
        targets.hit.setdefault(str(ref), Victim(ref, "node", node=ref.name))
    targets.sentences.append(_sentence(part, _many(len(machines), "physical machine")))


def _add_machine(targets: Targets, part: Part, name: str, known_by: str) -> None:
    """A machine that the cluster knows nothing of: it counts as a node."""
    ref = Ref(API_VERSION, part.kind, name)
    targets.hit.setdefault(str(ref), Victim(ref, "node", node=name))
    targets.sentences.append(_sentence(part, name))
    targets.cautions.append(f"{name} is named by {known_by}: whether it is in the target cannot be checked")
    if part.one_shot:
        targets.lost.append(f"{name} is restarted, which is not undone")


def _sentence(part: Part, what: str) -> str:
    action = f"{part.kind} {part.action}".strip()
    if part.repeated:
        return f"{action}, again and again, on any of {what}"
    lasts = "" if part.one_shot else f" for {part.end_in.get(part.end_key)}"
    return f"{action} on {what}{lasts}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
