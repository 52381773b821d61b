"""What Istio's objects and standard metrics are called, and which services a route's requests go to.

Metrics and labels: https://istio.io/latest/docs/reference/config/metrics/. Facts on delegates from Istio's
pilot/pkg/model/virtualservice.go: a route may leave its requests to another VirtualService, in the root's
namespace where it names none; a delegate has no hosts, or the route is ignored, and so is one of which the
delegate is not there. Its routes get the fault of the root's unless they have one of their own, and only one
level is followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gameday.platform.objects import Object, Ref
from gameday.platform.promql import matchers

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

API = "networking.istio.io/v1"


@dataclass(frozen=True, order=True)
class Service:
    """A Kubernetes service that requests go to."""

    name: str
    namespace: str

    @property
    def matchers(self) -> str:
        """PromQL matchers for its series, reported by either side."""
        return matchers(
            {"destination_service_name": self.name, "destination_service_namespace": self.namespace}
        )

    @classmethod
    def of_host(cls, host: str, namespace: str) -> Service:
        """From a destination's host: short names mean the VirtualService's own namespace."""
        name, _, rest = host.partition(".")
        return cls(name, rest.partition(".")[0] or namespace)


@dataclass(frozen=True)
class Way:
    """Where the requests of one route go: to services, by a delegate or not, or to none."""

    route: Object
    services: tuple[Service, ...]
    delegate: Ref | None = None


async def ways_of(routes: Iterable[Object], namespace: str, kube: Kube) -> list[Way]:
    """The ways of a VirtualService's routes, each delegate read once. Raises ApiError."""
    found: dict[Ref, list[Object]] = {}
    ways = []
    for route in routes:
        delegate = _delegate(route, namespace)
        if delegate is None:
            ways.append(Way(route, _services([route], namespace)))
            continue
        if delegate not in found:
            spec = (await kube.find(delegate) or {}).get("spec") or {}
            found[delegate] = [] if spec.get("hosts") else spec.get("http") or []
        ways.append(Way(route, _services(found[delegate], delegate.namespace or ""), delegate))
    return ways


def services_of(ways: Iterable[Way]) -> list[Service]:
    """All services that any of them leads to."""
    return sorted({service for way in ways for service in way.services})


def _delegate(route: Object, namespace: str) -> Ref | None:
    named = route.get("delegate")
    if not named:
        return None
    return Ref(API, "VirtualService", named["name"], named.get("namespace") or namespace)


def _services(routes: Iterable[Object], namespace: str) -> tuple[Service, ...]:
    hosts = {d["destination"]["host"] for r in routes for d in r.get("route") or ()}
    return tuple(sorted({Service.of_host(host, namespace) for host in hosts}))
