"""What the state of the cluster means for the workloads: rates and latencies as a pure function of it.

Small and deterministic on purpose: a drill's reader must be able to say why a curve moved. Times are in
seconds, rates in events a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEMAND = 600.0  # inference requests a second, whatever the platform's state
CAPACITY = 100.0  # that one undisturbed replica can serve
SERVICE = 0.06  # a request's time on an idle replica
CORES = 6.0  # that a replica needs for its full capacity
NEIGHBOUR = 0.04  # how much slower a replica gets by each other one on its node (CPU, PCIe, network)
LONGEST = 10.0  # a client gives up then
RETRANSMISSION = 0.2  # Linux' shortest TCP retransmission timeout
QUEUE_LIMIT = 0.95  # utilisation that latencies are computed for at most; what is beyond is refused
SHAPE = (
    0.62,
    0.7,
    0.76,
    0.81,
    0.86,
    0.91,
    0.97,
    1.04,
    1.14,
    1.32,
    1.75,
    2.3,
)  # of latencies, around the mean
WEIGHTS = (0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.04, 0.01)  # how often each comes

SAMPLES = 512.0  # training samples a second of one worker
STEP = 2048.0  # samples in a training step
WORKERS = 4
RESUME = 3.0  # from all workers running to the first step: a checkpoint is loaded
CHECKPOINT = 100.0  # steps between checkpoints

ARRIVALS = 2.0  # jobs a second that users submit
ADMITTED = 6.0  # that the queue's controller admits at most
WAITING = 3.0  # jobs that always wait: for a time window, a dependency


@dataclass(frozen=True)
class Replica:
    """A pod with what chaos does to it. `reachable`: its container serves; `ready`: it gets traffic."""

    name: str
    node: str
    ready: bool = True
    reachable: bool = True
    delay: float = 0.0  # added to each answer
    loss: float = 0.0  # fraction of packets
    cut: bool = False  # nobody gets through
    busy: float = 0.0  # fraction of its capacity that a stressor takes


@dataclass(frozen=True)
class Serving:
    """One replica's traffic: requests a second that succeed and fail, and (latency, rate) pairs."""

    served: float
    failed: float
    latencies: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Cluster:
    """The part of the API's state that the workloads depend on."""

    replicas: Sequence[Replica]
    workers: Sequence[Replica]
    queue_controllers: int


UNDISTURBED = Cluster(
    replicas=[Replica(f"replica-{i}", f"node-{i % 8}") for i in range(12)],
    workers=[Replica(f"worker-{i}", f"node-{i}") for i in range(WORKERS)],
    queue_controllers=2,
)


def inference(replicas: Sequence[Replica], demand: float = DEMAND) -> tuple[dict[str, Serving], float]:
    """Each ready replica's traffic, and the requests a second that no replica takes (503)."""
    ready = [r for r in replicas if r.ready and r.reachable]
    if not ready:
        return {}, demand
    share = demand / len(ready)
    neighbours = {r.node: sum(o.node == r.node for o in ready) - 1 for r in ready}
    traffic, refused = {}, 0.0
    for replica in ready:
        slower = 1 + NEIGHBOUR * neighbours[replica.node]
        able = CAPACITY / slower * (1 - replica.busy)
        taken = min(share, able * QUEUE_LIMIT)
        refused += share - taken
        traffic[replica.name] = _serve(replica, taken, taken / able, slower)
    return traffic, refused


def _serve(replica: Replica, taken: float, utilisation: float, slower: float) -> Serving:
    if replica.cut or replica.loss >= 1:
        return Serving(0.0, taken, ((LONGEST, taken),))
    mean = SERVICE * slower / (1 - replica.busy) / (1 - utilisation)
    latencies = []
    late = 1 - (1 - replica.loss) ** 4  # a request is about four packets that must arrive
    lost = taken * replica.loss**3
    for factor, weight in zip(SHAPE, WEIGHTS, strict=True):
        base = min(LONGEST, mean * factor + replica.delay)
        rate = (taken - lost) * weight
        latencies.append((base, rate * (1 - late)))
        if late:
            again = min(LONGEST, base + RETRANSMISSION + replica.delay)
            latencies.append((again, rate * late))
    return Serving(taken - lost, lost, tuple(latencies))


def throttled(cores: float | None) -> float:
    """The fraction of its capacity that a replica lacks when it may use that many cores; None: all."""
    return 0.0 if cores is None else min(0.9, max(0.0, 1 - cores / CORES))


def training_rate(workers: Sequence[Replica]) -> float:
    """Samples a second while the gang runs: the slowest worker sets the pace, and each step waits for all."""
    if sum(w.ready and w.reachable for w in workers) < WORKERS or any(w.cut or w.loss >= 1 for w in workers):
        return 0.0
    slowest = max(w.delay for w in workers)
    loss = max(w.loss for w in workers)
    busy = max(w.busy for w in workers)
    step = STEP / (SAMPLES * WORKERS)  # seconds, undisturbed
    return STEP / (step / (1 - min(busy, 0.9)) + 20 * slowest + 4 * loss)


def admission_rate(controllers: int, depth: float) -> float:
    """Jobs a second that are admitted."""
    if controllers <= 0:
        return 0.0
    return ADMITTED if depth > WAITING + 0.5 else ARRIVALS
