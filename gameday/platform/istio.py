"""What Istio's objects and standard metrics are called, and how a route's destination is told in the metrics.

Metrics and labels: https://istio.io/latest/docs/reference/config/metrics/
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from gameday.platform.objects import Object

API = "networking.istio.io/v1"


@dataclass(frozen=True, order=True)
class Service:
    """A Kubernetes service that requests go to."""

    name: str
    namespace: str

    @property
    def matchers(self) -> str:
        """PromQL matchers for its series, reported by either side."""
        return (
            f"destination_service_name={json.dumps(self.name)},"
            f"destination_service_namespace={json.dumps(self.namespace)}"
        )

    @classmethod
    def of_host(cls, host: str, namespace: str) -> Service:
        """From a destination's host: short names mean the VirtualService's own namespace."""
        name, _, rest = host.partition(".")
        return cls(name, rest.partition(".")[0] or namespace)


def services_of(virtual_service: Object, items: Collection[tuple[tuple[str, object], ...]]) -> list[Service]:
    """Where the routes that have one of these sets of fields lead to."""
    namespace = virtual_service["metadata"]["namespace"]
    hosts = {
        destination["destination"]["host"]
        for route in virtual_service["spec"].get("http") or ()
        if any(all(route.get(k) == v for k, v in item) for item in items)
        for destination in route.get("route") or ()
    }
    return sorted({Service.of_host(h, namespace) for h in hosts})
