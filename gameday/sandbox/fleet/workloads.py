"""The workloads' counters: the model's rates added up from one change of the cluster to the next."""

from __future__ import annotations

import time
from bisect import bisect_left

from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet import model
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.kubelet import Kubelets
from gameday.sandbox.fleet.mesh import Mesh, Requests, mesh
from gameday.sandbox.fleet.model import Serving
from gameday.sandbox.fleet.network import Networks
from gameday.sandbox.fleet.state import cluster
from gameday.sandbox.manifests import CHAOS

BOUNDS = (
    *(
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.125,
        0.15,
        0.2,
        0.25,
        0.3,
        0.35,
        0.4,
        0.5,
        0.6,
        0.75,
        1.0,
        1.25,
        1.5,
        2.0,
    ),
    *(3.0, 5.0, 10.0),
)
SETTLES = 0.25  # seconds: changes closer together than this count as one
HISTORY = 300.0  # seconds of steady state that everything has behind it at the start


class Histogram:
    """Latencies so far."""

    def __init__(self) -> None:
        self.buckets = [0.0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, serving: Serving, seconds: float) -> None:
        for latency, rate in serving.latencies:
            self.buckets[bisect_left(BOUNDS, latency)] += rate * seconds
            self.sum += latency * rate * seconds

    def cumulative(self) -> list[float]:
        total, counts = 0.0, []
        for count in self.buckets:
            total += count
            counts.append(total)
        return counts


class Meter:
    """Everything that is counted. `advance` brings it up to now; call it before reading.

    Until `go_live` it counts what an undisturbed platform does, so that the start leaves no dent.
    """

    def __init__(self, cache: Cache, kubelets: Kubelets, networks: Networks, gpus: Gpus) -> None:
        self._cache = cache
        self._kubelets = kubelets
        self.networks = networks
        self._at = time.time() - HISTORY
        self._changed_at: float | None = None
        self._live = False
        self._cluster = model.UNDISTURBED
        self._mesh = Mesh()
        self._traffic, self._refused = model.inference(self._cluster.replicas)
        self._resumes_at = 0.0  # when the training gang, complete again, makes its first step
        self.latency = Histogram()
        self.codes = {"200": 0.0, "503": 0.0, "504": 0.0}  # requests by status code
        self.by_proxy: dict[Requests, float] = {}  # requests as the mesh's proxies count them
        self.by_pod: dict[str, float] = {}  # requests that each pod answered
        self.samples = 0.0
        self.steps = 0.0
        self.training = model.training_rate(self._cluster.workers)  # samples a second now
        self.admitted = 0.0
        self.depth = model.WAITING
        for kind in ("Pod", "Node", "VirtualService", *CHAOS):
            cache.listen(kind, self._note)
        networks.listen(lambda _: self.touch())
        self.gpus = gpus
        gpus.listeners.append(lambda _: self.touch())

    def go_live(self) -> None:
        """From here on the cluster's own state counts."""
        self.advance()
        self._live = True
        self._look(time.time())

    def touch(self) -> None:
        """Something changed that the API doesn't show."""
        self._note(None, None)

    def _note(self, new: Object | None, old: Object | None) -> None:
        now = time.time()
        if self._changed_at is None:
            self._changed_at = now
        elif now - self._changed_at > SETTLES:
            self.advance()
            self._changed_at = now

    def advance(self, now: float | None = None) -> None:
        """Add up to now: until the change with the state before it, from then on with the state as it is."""
        now = now or time.time()
        if self._live and self._changed_at is not None:
            self._add(min(self._changed_at, now))
            self._changed_at = None
            self._look(now)
        self._add(now)

    def _look(self, now: float) -> None:
        self._cluster = cluster(self._cache, self._kubelets.lives, self.networks, self.gpus)
        self._mesh = mesh(self._cache)
        self._traffic, self._refused = model.inference(self._cluster.replicas, self._mesh.demand)
        self.by_pod = {r.name: self.by_pod.get(r.name, 0.0) for r in self._cluster.replicas}
        rate = model.training_rate(self._cluster.workers)
        if rate and not self.training:
            self._resumes_at = now + model.RESUME
        elif self.training and not rate:
            self.steps -= self.steps % model.CHECKPOINT  # what came after the last checkpoint is lost
        self.training = rate

    def _add(self, until: float) -> None:
        seconds = until - self._at
        if seconds <= 0:
            return
        for name, serving in self._traffic.items():
            self.latency.add(self._mesh.as_seen(serving), seconds)
            self.codes["200"] += serving.served * seconds
            self.codes["504"] += serving.failed * seconds
            self.by_pod[name] = self.by_pod.get(name, 0.0) + serving.served * seconds
        self.codes["503"] += self._refused * seconds
        errors = self._mesh.errors()
        self.latency.add(errors, seconds)
        self.codes[self._mesh.status] = self.codes.get(self._mesh.status, 0.0) + errors.failed * seconds
        for key, rate in self._mesh.requests(self._traffic.values(), self._refused).items():
            self.by_proxy[key] = self.by_proxy.get(key, 0.0) + rate * seconds
        worked = max(0.0, until - max(self._at, self._resumes_at)) * self.training
        self.samples += worked
        self.steps += worked / model.STEP
        self._admit(seconds)
        self._at = until

    def _admit(self, seconds: float) -> None:
        rate = model.admission_rate(self._cluster.queue_controllers, self.depth)
        waiting = self.depth - model.WAITING + model.ARRIVALS * seconds
        admitted = min(rate * seconds, waiting)
        self.admitted += admitted
        self.depth += model.ARRIVALS * seconds - admitted
