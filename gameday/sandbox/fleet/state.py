"""Reads from the cache what the workloads' model needs: the replicas, with what chaos does to each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gameday.experiment.quantity import parse_duration, parse_quantity
from gameday.platform.objects import Object, is_ready
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of, deleting, labels_of
from gameday.sandbox.fleet import model
from gameday.sandbox.fleet.chaos.experiments import injected
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.model import Cluster, Replica
from gameday.sandbox.fleet.network import Networks
from gameday.sandbox.fleet.network.effects import merged, on_worker

INFERENCE = ("inference", "inference")  # namespace and app label
TRAINER = ("training", "trainer")
QUEUE = ("platform", "job-queue-controller")
ANSWERS_AFTER = "sandbox.gameday.dev/answers-after"
_WITH_EFFECT = ("NetworkChaos", "StressChaos", "HTTPChaos", "IOChaos")


def cluster(cache: Cache, lives: Callable[[str], bool], networks: Networks, gpus: Gpus) -> Cluster:
    """The state now; `lives` tells whether a node has power."""
    effects = _effects(cache)
    queue = sum(is_ready(p) and lives(p["spec"].get("nodeName", "")) for p in pods_of(cache, QUEUE))
    return Cluster(
        replicas=[_replica(p, effects, lives, gpus) for p in pods_of(cache, INFERENCE)],
        workers=[_replica(p, effects, lives, gpus, networks) for p in pods_of(cache, TRAINER)],
        queue_controllers=queue,
    )


def pods_of(cache: Cache, workload: tuple[str, str]) -> list[Object]:
    """A workload's pods that have a node, by name."""
    namespace, app = workload
    found = [
        p for p in cache.all("Pod", namespace) if labels_of(p).get("app") == app and p["spec"].get("nodeName")
    ]
    return sorted(found, key=lambda p: str(p["metadata"]["name"]))


def serves(pod: Object, lives: Callable[[str], bool]) -> bool:
    """Whether somebody answers at the pod's address."""
    status = pod.get("status") or {}
    paused = any("/pause" in c["image"] for c in pod["spec"]["containers"])
    running = status.get("phase") == "Running" and not paused
    return running and lives(pod["spec"].get("nodeName", ""))


def _replica(
    pod: Object,
    effects: dict[str, dict[str, Any]],
    lives: Callable[[str], bool],
    gpus: Gpus,
    networks: Networks | None = None,
) -> Replica:
    name = pod["metadata"]["name"]
    effect = dict(effects.get(f"{pod['metadata']['namespace']}/{name}", {}))
    if slow := annotations_of(pod).get(ANSWERS_AFTER):  # a revision of the program that is slower
        effect["delay"] = effect.get("delay", 0.0) + parse_duration(slow)
    if throttled := model.throttled(_cpu_limit(pod)):
        effect["busy"] = _more(effect, "busy", throttled)
    effect = merged([effect, gpus.effect(pod)])
    if networks is not None:
        effect = merged([effect, on_worker(pod, networks.of(pod["spec"]["nodeName"]))])
    ready = is_ready(pod) and not deleting(pod)
    return Replica(name, pod["spec"]["nodeName"], ready, serves(pod, lives), **effect)


def _cpu_limit(pod: Object) -> float | None:
    """Cores that the kubelet lets the pod's first container have; None when there is no limit."""
    states = (pod.get("status") or {}).get("containerStatuses") or [{}]
    limit = ((states[0].get("resources") or {}).get("limits") or {}).get("cpu")
    return None if limit is None else parse_quantity(limit)


def _effects(cache: Cache) -> dict[str, dict[str, Any]]:
    """What is done to each pod ("namespace/name"), all experiments in force together."""
    total: dict[str, dict[str, Any]] = {}
    for kind in _WITH_EFFECT:
        for chaos in cache.all(kind):
            for record in injected(chaos):
                pod = "/".join(record["id"].split("/")[:2])
                done = total.setdefault(pod, {})
                for name, value in _effect(chaos, record):
                    done[name] = value or done.get(name, False) if name == "cut" else _more(done, name, value)
    return total


def _more(done: dict[str, Any], name: str, value: float) -> float:
    before = float(done.get(name, 0.0))
    return before + value if name == "delay" else 1 - (1 - before) * (1 - value)


def _effect(chaos: Object, record: Object) -> Iterator[tuple[str, Any]]:
    spec = chaos["spec"]
    action = spec.get("action", "")
    if chaos["kind"] == "NetworkChaos":
        yield from _network(spec, action, record)
    elif chaos["kind"] == "StressChaos":
        cpu = (spec.get("stressors") or {}).get("cpu") or {}
        yield "busy", min(0.9, float(cpu.get("load", 100)) / 100 * 0.6) if cpu else 0.2
    elif action == "latency" or chaos["kind"] == "HTTPChaos":
        if spec.get("delay"):
            yield "delay", parse_duration(spec["delay"])
        if spec.get("abort"):
            yield "cut", True


def _network(spec: Object, action: str, record: Object) -> Iterator[tuple[str, Any]]:
    """Outgoing packets of the "." side suffer, of the ".Target" side only where the direction says so."""
    direction = spec.get("direction", "to")
    if record["selectorKey"] == ".Target" and direction == "to":
        return
    if record["selectorKey"] == "." and direction == "from":
        return
    if action == "partition":
        yield "cut", True
    delay = spec.get("delay") or {}
    if action in ("delay", "netem") and delay:
        yield "delay", parse_duration(delay.get("latency", "0s"))
    loss = spec.get("loss") or {}
    if action in ("loss", "netem") and loss:
        yield "loss", min(1.0, float(loss.get("loss", 0)) / 100)
    corrupt = spec.get("corrupt") or {}
    if action in ("corrupt", "netem") and corrupt:
        yield "loss", min(1.0, float(corrupt.get("corrupt", 0)) / 100)
    if action == "bandwidth":
        yield "busy", 0.5
