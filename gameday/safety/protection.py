"""What is protected whatever an experiment says: the control plane, our own things, what the cluster labels.

Built in, and overridden only by name in `spec.target.allowProtected`: the control plane's nodes and etcd's,
the namespaces that a cluster depends on (see protected_list), the nodes of our own pods, and the Prometheus
that the run depends on. The cluster's own word, which no experiment overrides: label `gameday.dev/protect`
on an object, on one of its owners, on its namespace or on its node, and, where consent is required, a
namespace without the label `gameday.dev/allow`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gameday.ledger.node_pod import run_of
from gameday.ledger.store import NAMESPACE
from gameday.platform.effect import Effect, Kind
from gameday.platform.objects import PROTECT, Object, Ref, Resource, labels_of
from gameday.platform.owners import all_owners, owners
from gameday.platform.resources import NAMESPACES, NODES, PODS
from gameday.platform.world import World
from gameday.safety.protected_list import why_namespace, why_node

ALLOW = "gameday.dev/allow"
POLICY = Ref("v1", "ConfigMap", "gameday-policy", NAMESPACE)
COMPONENTS = {"kube-apiserver": "a kube-apiserver runs there", "etcd": "a member of etcd runs there"}
SERVERS = f"component in ({','.join(COMPONENTS)})"  # as kubeadm labels its static pods
SERVICES = Resource("v1", "Service", "services")
ONE_LIST_FROM = 20  # objects of one kind: with more, one list is cheaper than one request each
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass
class Protected:
    """Everything that is protected in one cluster, with the reason."""

    namespaces: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)


async def protected(effects: Sequence[Effect], world: World, allowed: Sequence[str] = ()) -> list[str]:
    """A sentence for each thing among the effects that is protected as things are now. Read only.

    `allowed` are the built-in protections that the experiment overrides, as `Node/a` and `Namespace/b`.
    """
    known, policy = await asyncio.gather(_built_in(world), _policy(world))
    touched = {e.ref.name for e in effects if e.ref.kind == "Node"}
    spaces = {e.ref.name if e.kind is Kind.NAMESPACE else e.ref.namespace for e in effects}
    spaces.discard(None)
    blind: list[Ref] = []  # of what may not be read nobody knows whether it carries the label
    nodes, namespaces, labelled, pods = await asyncio.gather(
        found_by_name("Node", touched | {e.node for e in effects if e.node}, world),
        found_by_name("Namespace", {s for s in spaces if s}, world),
        _labelled(effects, world, blind),
        _labelled_beneath(effects, touched, world),
    )
    for node in nodes:
        if reason := why_node(_marks(node), policy):
            known.nodes.setdefault(node["metadata"]["name"], reason)
    for space in spaces:
        if space and (reason := why_namespace(space, policy)):
            known.namespaces.setdefault(space, reason)
    reasons = {f"Node {n}": r for n, r in known.nodes.items() if n in touched and f"Node/{n}" not in allowed}
    reasons |= {
        f"Namespace {n}": r
        for n, r in known.namespaces.items()
        if n in spaces and f"Namespace/{n}" not in allowed
    }
    found = [
        f"{what} is protected: {reason}; allow it by name in spec.target.allowProtected: "
        f"[{what.replace(' ', '/')}]"
        for what, reason in sorted(reasons.items())
    ]
    ours = [Ref("v1", o["kind"], o["metadata"]["name"]) for o in (*nodes, *namespaces) if _has(o, PROTECT)]
    by_label = [*(str(r) for r in ours), *labelled, *pods]
    found += [
        f"{what} carries the label {PROTECT}: it may not be touched" for what in dict.fromkeys(by_label)
    ]
    found += [
        f"{what} may not be read, so nobody knows whether it carries the label {PROTECT}: allow `get` of it, "
        f"and see that its kind is served"
        for what in dict.fromkeys(map(str, blind))
    ]
    if world.require_consent or policy.get("requireConsent", "").lower() == "true":
        without = sorted(n["metadata"]["name"] for n in namespaces if not _has(n, ALLOW))
        found += [
            f"namespace {n} does not carry the label {ALLOW}, and this cluster requires its consent"
            for n in without
        ]
    return found


async def _policy(world: World) -> dict[str, str]:
    """What this cluster says itself: what else it protects, and whether it must consent."""
    found = await world.kube.find(POLICY)
    return {key: str(value) for key, value in ((found or {}).get("data") or {}).items()}


def _has(obj: Object, label: str) -> bool:
    return label in labels_of(obj)


def _marks(node: Object) -> set[str]:
    """The keys of a node's labels and taints."""
    return {*labels_of(node), *(t["key"] for t in node["spec"].get("taints") or ())}


async def found_by_name(kind: str, names: set[str], world: World) -> list[Object]:
    """The nodes or namespaces of these names that there are."""
    return await world.once((kind, frozenset(names)), lambda: _read_by_name(kind, names, world))


async def _read_by_name(kind: str, names: set[str], world: World) -> list[Object]:
    if len(names) > ONE_LIST_FROM:
        resource = NODES if kind == "Node" else NAMESPACES
        return [o async for o in world.kube.each(resource) if o["metadata"]["name"] in names]
    objects = await asyncio.gather(*(world.kube.find(Ref("v1", kind, n)) for n in sorted(names)))
    return [o for o in objects if o is not None]


async def _built_in(world: World) -> Protected:
    """The nodes of API servers, of etcd and of our own pods, and where Prometheus is."""
    known = Protected()
    servers, ours, prometheus = await asyncio.gather(
        world.kube.list(PODS, "kube-system", labels=SERVERS),
        _our_pods(world),
        _prometheus(world),
    )
    for pod in servers:
        if pod["spec"].get("nodeName"):
            known.nodes[pod["spec"]["nodeName"]] = COMPONENTS[labels_of(pod)["component"]]
    for pods, reason in (
        (ours, "gameday itself runs there"),
        (prometheus, "the Prometheus of this run is there"),
    ):
        known.nodes |= {p["spec"]["nodeName"]: reason for p in pods if p["spec"].get("nodeName")}
    for pod in prometheus:
        known.namespaces.setdefault(pod["metadata"]["namespace"], "the Prometheus of this run is there")
    return known


async def _our_pods(world: World) -> list[Object]:
    """The janitor's pods, and our own where we run in the cluster; not the programs of faults."""
    pods = [p for p in await world.kube.list(PODS, NAMESPACE) if not run_of(p, NAMESPACE)]
    if _TOKEN.exists():
        here = Ref("v1", "Pod", os.environ.get("HOSTNAME", ""), _TOKEN.read_text().strip())
        own = await world.kube.find(here) if here.name else None
        pods += [own] if own else []
    return pods


async def _prometheus(world: World) -> list[Object]:
    """The pods of the Prometheus that we ask, where its address is a Service or a pod of this cluster."""
    host = urlsplit(world.prometheus.url).hostname if world.prometheus else None
    if not host:
        return []
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name, _, rest = host.partition(".")
        namespace = rest.partition(".")[0]
        service = await world.kube.find(Ref("v1", "Service", name, namespace)) if namespace else None
    else:
        if address.is_loopback:
            return []
        if pods := await world.kube.list(PODS, fields={"status.podIP": host}):
            return [p for p in pods if not p["spec"].get("hostNetwork")]
        services = await world.kube.list(SERVICES)
        service = next((s for s in services if s["spec"].get("clusterIP") == host), None)
    selector = ((service or {}).get("spec") or {}).get("selector")
    if not service or not selector:
        return []
    labels = ",".join(f"{k}={v}" for k, v in selector.items())
    return await world.kube.list(PODS, service["metadata"]["namespace"], labels=labels)


async def _labelled_beneath(effects: Sequence[Effect], nodes: set[str], world: World) -> list[str]:
    """Pods that carry the label and are touched, or are on a node or of a workload that is.

    Labelled nodes under a workload's pods, too: nobody knows which of its pods a workload would lose.
    """
    uids = {e.ref.uid for e in effects if e.kind is Kind.POD}
    workloads = {(e.ref.kind, e.ref.namespace, e.ref.name) for e in effects if e.kind is Kind.WORKLOAD}
    spaces = {namespace for _, namespace, _ in workloads}
    pods = await world.kube.list(PODS, labels=PROTECT) if nodes or uids or workloads else []
    under = await world.kube.list(NODES, labels=PROTECT) if workloads else []

    async def is_of_workload(pod: Object) -> bool:
        space = pod["metadata"]["namespace"]
        blind: list[Ref] = []
        chain = await owners(world.kube, pod, blind) if space in spaces else []
        return bool(blind) or any((o["kind"], space, o["metadata"]["name"]) in workloads for o in chain)

    async def is_hit(pod: Object) -> bool:
        on_it = pod["spec"].get("nodeName") in nodes or pod["metadata"]["uid"] in uids
        return on_it or await is_of_workload(pod)

    async def carries(node: Object) -> bool:
        on_it = await world.kube.list(PODS, fields={"spec.nodeName": node["metadata"]["name"]})
        return any(await asyncio.gather(*map(is_of_workload, on_it)))

    hits, carrying = await asyncio.gather(
        asyncio.gather(*map(is_hit, pods)), asyncio.gather(*map(carries, under))
    )
    found = [
        *(p for p, yes in zip(pods, hits, strict=True) if yes),
        *(n for n, yes in zip(under, carrying, strict=True) if yes),
    ]
    return [str(Ref.of(o)) for o in found]


async def _labelled(effects: Sequence[Effect], world: World, blind: list[Ref]) -> list[str]:
    """The objects, and the owners above them, that carry the label.

    Of a pod whose owners are known, they alone are read: its own label is looked for by another list.
    """
    known = {o for e in effects if e.owner is not None for o in (e.owner, *e.co_owners)}
    unknown = [e for e in effects if e.owner is None]
    kube = world.kube
    parents = await asyncio.gather(*(kube.find_readable(r.named, blind) for r in sorted(known, key=str)))
    objects = [*(o for o in parents if o is not None), *await _objects(unknown, world, blind)]
    first = {str(o["metadata"].get("ownerReferences")): o for o in objects}  # siblings have the same owners
    chains = await asyncio.gather(*(all_owners(kube, o, blind) for o in first.values()))
    return [str(Ref.of(o)) for o in (*objects, *(o for chain in chains for o in chain)) if _has(o, PROTECT)]


async def _objects(effects: Sequence[Effect], world: World, blind: list[Ref]) -> list[Object]:
    """The effects' objects as they are now; of many pods in one namespace by one list."""
    refs = {e.ref for e in effects if _is_served(e) and e.kind is not Kind.CREATED}
    spaces: dict[str | None, int] = {}
    for ref in refs:
        if ref.kind == "Pod":
            spaces[ref.namespace] = spaces.get(ref.namespace, 0) + 1
    listed = [s for s, n in spaces.items() if s and n > ONE_LIST_FROM]
    parts = await asyncio.gather(*(world.kube.list(PODS, s) for s in listed))
    uids = {r.uid for r in refs if r.kind == "Pod"}
    found = [p for ps in parts for p in ps if p["metadata"]["uid"] in uids]
    single = [
        r
        for r in refs
        if r.kind not in ("Node", "Namespace") and not (r.kind == "Pod" and r.namespace in listed)
    ]
    read = await asyncio.gather(*(world.kube.find_readable(r.named, blind) for r in single))
    return [*found, *(o for o in read if o is not None)]


def _is_served(effect: Effect) -> bool:
    """Whether the API server knows such a thing; Slurm's jobs and machines elsewhere it does not."""
    group, _, version = effect.ref.api_version.rpartition("/")
    known = version.startswith("v") and not group.startswith(("chaostoolkit.org", "gameday.dev"))
    return known and effect.kind not in (Kind.OTHER, Kind.PARTITION, Kind.JOB)
