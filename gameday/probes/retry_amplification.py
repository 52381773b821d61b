"""The `retryAmplification` probe: how many requests reach a service for each one that its clients make.

In Istio a client's proxy counts a request once, however often it retries it, and the service's proxy counts
every attempt: https://istio.io/latest/docs/reference/config/metrics/ (the label `reporter`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gameday.experiment.model import DNSLabel, PositiveDuration, Spec
from gameday.experiment.quantity import format_duration
from gameday.extend import Measurement, Probe
from gameday.platform.istio import Service
from gameday.probes.prometheus import prometheus_of

if TYPE_CHECKING:
    from gameday.platform.world import World


class RetryAmplificationSpec(Spec):
    """Which service, and over how long."""

    service: DNSLabel = Field(description="The Kubernetes service that is called.")
    namespace: DNSLabel = Field(description="Its namespace.")
    window: PositiveDuration = Field(
        "1m", validate_default=True, description="Averaged over this long; two scrapes at the least."
    )


class RetryAmplification(Probe[RetryAmplificationSpec]):
    """Attempts that reach a service for each request of its clients, as Istio counts them; 1 is none."""

    Spec: ClassVar = RetryAmplificationSpec
    asks_cluster: ClassVar[bool] = False
    needs_prometheus: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: retries do not pile up
retryAmplification: {service: inference, namespace: inference}
is: < 1.5
"""

    async def measure(self, spec: RetryAmplificationSpec, world: World) -> Measurement:
        """One value; no data without requests. What was aborted on purpose (FI) never left the client."""
        prometheus = prometheus_of(world)
        service = Service(spec.service, spec.namespace).matchers
        window = format_duration(spec.window)
        # Clients without a proxy are seen by the service's side alone, and are left out.
        sides = {
            "attempts": f'reporter="destination",source_workload!="unknown",{service}',
            "requests": f'reporter="source",response_flags!~".*FI.*",{service}',
        }
        rates: dict[str, float | None] = {}
        for side, matchers in sides.items():
            found = await prometheus.instant(f"sum(rate(istio_requests_total{{{matchers}}}[{window}]))")
            rates[side] = found[0][1] if found else None
        attempts, requests = rates.values()
        if not requests:
            return Measurement((), f"no requests to {spec.namespace}/{spec.service} in the last {window}")
        if attempts is None:  # without a proxy nothing is counted there; proxies that get nothing count 0
            return Measurement((), f"no proxy of {spec.namespace}/{spec.service} tells what reaches it")
        told = f"{attempts:.4g} attempts/s, {requests:.4g} requests/s"
        return Measurement((("", attempts / requests),), told)
