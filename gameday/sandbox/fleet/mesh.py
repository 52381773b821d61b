"""The mesh before inference: what its VirtualService does to requests, and what its proxies count.

Two simplifications: a retried request fails again, and an attempt that fails costs its replica nothing. So
retries show in the proxies' counters and change nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gameday.experiment.quantity import parse_duration
from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet.model import DEMAND, LONGEST, Serving

ATTEMPTS = 2  # retries of a failed request, as the VirtualService of the manifests has it
ABORTS_AFTER = 0.002  # seconds from a request to the error that its own proxy makes up
Requests = tuple[str, str, str]  # reporter, response_code, response_flags
NONE = "-"  # response_flags of a request of which there is nothing to say


@dataclass(frozen=True)
class Mesh:
    """What the route to inference does. Shares are fractions of the requests."""

    attempts: int = ATTEMPTS
    delay: float = 0.0
    delayed: float = 0.0
    aborted: float = 0.0
    status: str = "503"

    @property
    def demand(self) -> float:
        """Requests a second that leave the gateway's proxy."""
        return DEMAND * (1 - self.aborted)

    def as_seen(self, serving: Serving) -> Serving:
        """A replica's answers as clients see them."""
        if not self.delayed:
            return serving
        late = [(min(LONGEST, s + self.delay), r * self.delayed) for s, r in serving.latencies]
        rest = [(s, r * (1 - self.delayed)) for s, r in serving.latencies]
        return replace(serving, latencies=(*rest, *late))

    def errors(self) -> Serving:
        """What the proxy answers itself."""
        rate = DEMAND * self.aborted
        return Serving(0.0, rate, ((ABORTS_AFTER, rate),))

    def requests(self, traffic: Iterable[Serving], refused: float) -> Mapping[Requests, float]:
        """Requests a second as both sides' proxies count them."""
        servings = list(traffic)
        served, failed = sum(s.served for s in servings), sum(s.failed for s in servings)
        tries = 1 + self.attempts
        return {
            ("source", "200", NONE): served * (1 - self.delayed),
            ("source", "200", "DI"): served * self.delayed,
            ("source", "504", "UT"): failed,
            ("source", "503", "URX"): refused,
            ("source", self.status, "FI"): DEMAND * self.aborted,
            ("destination", "200", NONE): served,
            ("destination", "504", NONE): failed * tries,
            ("destination", "503", NONE): refused * tries,
        }


def mesh(cache: Cache) -> Mesh:
    """By the first route of inference's VirtualService; Istio doesn't retry where it injects faults."""
    found: Object = cache.get("VirtualService", ("inference", "inference")) or {"spec": {}}
    route: Object = next(iter(found["spec"].get("http") or ()), {})
    fault = route.get("fault") or {}
    delay, abort = fault.get("delay") or {}, fault.get("abort") or {}
    return Mesh(
        attempts=0 if fault else (route.get("retries") or {}).get("attempts", ATTEMPTS),
        delay=parse_duration(delay.get("fixedDelay", "0s")),
        delayed=_share(delay),
        aborted=_share(abort),
        status=str(abort.get("httpStatus", 503)),
    )


def _share(part: Object) -> float:
    """Of requests; all of them where it isn't said."""
    return float((part.get("percentage") or {}).get("value", 100)) / 100 if part else 0.0
