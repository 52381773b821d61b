"""Istio: a VirtualService's routes delay or abort requests, in the clients' proxies.

Field names and semantics are Istio's: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, Line, ObjectName, PositiveDuration, Spec
from gameday.experiment.quantity import format_duration
from gameday.experiment.text import plural
from gameday.experiment.values import at_least
from gameday.extend import Evidence, Fault, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import check_namespaces
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.effect import Effect, Kind, named
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.istio import API, Service, Way, services_of, ways_of
from gameday.platform.objects import Object, Ref
from gameday.platform.world import Victim, World

FLAGS = 'response_flags=~".*(DI|FI).*"'  # Envoy's: delay injected, fault injected
Percentage = Annotated[float, Field(100.0, gt=0, le=100, description="Of the requests, in percent.")]


class DelaySpec(Spec):
    """Requests wait before they are sent on."""

    fixed_delay: Annotated[PositiveDuration, at_least(0.001)] = Field(description="How long they wait.")
    percentage: Percentage


class AbortSpec(Spec):
    """Requests are answered with an error and never sent on."""

    http_status: int = Field(ge=200, le=599, description="The status that clients get.")
    percentage: Percentage


class IstioSpec(Spec):
    """Which VirtualService, which of its routes, and what happens to requests there."""

    virtual_service: ObjectName = Field(description="The VirtualService.")
    namespace: DNSLabel = Field(description="Its namespace.")
    routes: list[Line] = Field([], description="HTTP routes by name; all when left out.")
    delay: DelaySpec | None = Field(None, description="Delay requests.")
    abort: AbortSpec | None = Field(None, description="Abort requests.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("expected `delay`, `abort` or both")
        return self


class Istio(Fault[IstioSpec]):
    """HTTP routes get Istio's own fault injection; put back where it is still ours."""

    Spec: ClassVar[type[Spec]] = IstioSpec
    example: ClassVar[str] = (
        "istio: {virtualService: inference, namespace: inference, abort: {httpStatus: 503, percentage: 10}}"
    )

    async def plan(self, spec: IstioSpec, world: World) -> FaultPlan[IstioSpec]:
        check_namespaces([spec.namespace], world)
        found = await _read(spec, world)
        edits = _edits(found, spec)
        others = [_name(e) for e in edits if e.before is not None]
        services = services_of(await _ways(found, edits, world))
        return FaultPlan(
            spec,
            (Victim(Ref.of(found), "object"),),
            changes=tuple(f"{Ref.of(found)}: {_name(edit)}: {_words(spec)}" for edit in edits),
            needs=(f"patch virtualservices.networking.istio.io {spec.namespace} {spec.virtual_service}",),
            warnings=(
                "Istio neither retries nor times requests out on a route while it injects faults there",
                *(f"{name} injects a fault already; it comes back when ours goes" for name in others),
            ),
            basis={f"{Ref.of(found)}: the fault of {_name(e)}": e.before for e in edits},
            data={"services": [[s.name, s.namespace] for s in services]},
        )

    async def effects(self, plan: FaultPlan[IstioSpec], world: World) -> tuple[Effect, ...]:
        """The services behind the routes, as they are named now, and the delegates that name them.

        Of a route that leads to none nobody can say whose requests fail: it must be allowed by name.
        """
        found = await _read(plan.spec, world)
        ways = await _ways(found, _edits(found, plan.spec), world)
        words = _words(plan.spec)
        delegates = dict.fromkeys(w.delegate for w in ways if w.delegate)
        return (
            *(
                named(Kind.SERVICE, s.name, f"requests: {words}", namespace=s.namespace)
                for s in services_of(ways)
            ),
            *(Effect(Kind.OBJECT, d, f"its routes: {words}") for d in delegates),
            *(Effect(Kind.OTHER, Ref.of(found), f"{_nowhere(w)}: {words}") for w in ways if not w.services),
        )

    async def inject(self, plan: FaultPlan[IstioSpec], step: Step) -> None:
        found = await _read(plan.spec, step.world)
        step.record(hit=await _total(plan, step.world, FLAGS))
        edits = _edits(found, plan.spec)
        await step.ledger.perform([await Patch.of(step.kube, plan.victims[0].ref, *edits)])

    async def settled(self, plan: FaultPlan[IstioSpec], injected: Injected, world: World) -> Evidence:
        """By the requests that proxies say they delayed or aborted; by the object where they say nothing."""
        found = await world.kube.find(plan.victims[0].ref)
        if found is None:
            return Evidence("out", (f"{plan.victims[0].ref} was deleted meanwhile",))
        routes = found["spec"].get("http") or []
        ours = [r for r in routes if r.get("fault") == _fault(plan.spec)]
        facts = [f"{plan.victims[0].ref}: {len(ours)} of {len(routes)} routes have the fault"]
        before, hit = injected.data.get("hit"), await _total(plan, world, FLAGS)
        rate = await _total(plan, world, *(('reporter="source"', "[1m]") if ours else (FLAGS, "[5s]")))
        if before is None or hit is None or rate is None:  # an undo is not held up by the monitoring
            facts.append("what proxies injected can't be known: taken from the object alone")
            return Evidence("in" if ours else "out", tuple(facts))
        more = hit - float(before)
        if not ours:
            if rate:
                return Evidence("partial", (*facts, "proxies still inject it"))
            if hit:
                facts.append(f"proxies injected it into {plural(round(more), 'request')}")
            return Evidence("out", tuple(facts))
        if not rate:
            return Evidence("in", (*facts, "no requests are seen by proxies: taken from the object alone"))
        return Evidence(
            "in" if more > 0 else "partial", (*facts, f"proxies injected it {plural(round(more), 'time')}")
        )


async def _read(spec: IstioSpec, world: World) -> Object:
    ref = Ref(API, "VirtualService", spec.virtual_service, spec.namespace)
    try:
        return await world.kube.get(ref)
    except ApiError as error:
        if error.status == 404:
            raise PlanError(f"there is no {ref} in {world.kube.context}: {error}") from error
        raise


def _edits(found: Object, spec: IstioSpec) -> list[Edit]:
    """One for each route, which is told from others by its name, or by what it matches and where it leads."""
    routes: list[Object] = found["spec"].get("http") or []
    ref = Ref.of(found)
    names = [r.get("name") for r in routes]
    missing = [n for n in spec.routes if n not in names]
    if missing or not routes:
        there = ", ".join(n or "one without a name" for n in names) or "none"
        raise PlanError(f"{ref} has no HTTP route {', '.join(missing) or 'at all'} (its routes: {there})")
    edits = []
    for route in routes:
        if spec.routes and route.get("name") not in spec.routes:
            continue
        keys = ("name",) if route.get("name") else ("match", "name", "route")
        item = tuple((key, route.get(key)) for key in keys)
        edit = Edit(("spec", "http"), _fault(spec), route.get("fault"), item=item, inside=("fault",))
        if sum(edit.matches(r) for r in routes) > 1:
            raise PlanError(f"{ref} has routes that can't be told apart: give each a name")
        edits.append(edit)
    if all(e.before == e.after for e in edits):
        raise PlanError(f"{ref} injects just this already: nothing would change")
    return edits


async def _ways(found: Object, edits: list[Edit], world: World) -> list[Way]:
    """Where the requests go of the routes that are changed."""
    routes = [r for r in found["spec"]["http"] if any(e.matches(r) for e in edits)]
    return await ways_of(routes, found["metadata"]["namespace"], world.kube)


def _nowhere(way: Way) -> str:
    """The words for a route that leads to no service."""
    name = f"route {way.route['name']}" if way.route.get("name") else "a route without a name"
    return f"{name}, which leads to no service" + (f" by {way.delegate}" if way.delegate else "")


def _name(edit: Edit) -> str:
    fields = dict(edit.item)
    hosts = [r["destination"]["host"] for r in fields.get("route") or ()]
    return f"route {fields['name']}" if fields["name"] else f"the route to {', '.join(hosts) or 'no host'}"


def _fault(spec: IstioSpec) -> Object:
    fault: Object = {}
    if spec.delay:
        # Seconds, which every version reads: protobuf's own JSON knows no other unit.
        fault["delay"] = {
            "fixedDelay": f"{spec.delay.fixed_delay:g}s",
            "percentage": {"value": spec.delay.percentage},
        }
    if spec.abort:
        share = {"value": spec.abort.percentage}
        fault["abort"] = {"httpStatus": spec.abort.http_status, "percentage": share}
    return fault


def _words(spec: IstioSpec) -> str:
    words = []
    if spec.delay:
        words.append(f"delay {spec.delay.percentage:g}% by {format_duration(spec.delay.fixed_delay)}")
    if spec.abort:
        words.append(f"abort {spec.abort.percentage:g}% with {spec.abort.http_status}")
    return " and ".join(words)


async def _total(plan: FaultPlan[IstioSpec], world: World, matchers: str, window: str = "") -> float | None:
    """Requests to the routes' services by their proxies' count, or how many a second over a window.

    None when Prometheus can't be asked; a counter that no proxy has yet is at 0.
    """
    if world.prometheus is None:
        return None
    by = "destination_service_name, destination_service_namespace"  # so that `or` keeps each service's
    services = [Service(*pair) for pair in plan.data["services"]]
    selectors = [f"istio_requests_total{{{matchers},{s.matchers}}}{window}" for s in services]
    counted = [f"rate({s})" if window else s for s in selectors]
    try:
        found = await world.prometheus.instant(" or ".join(f"sum by ({by}) ({c})" for c in counted))
    except PlatformError:
        return None
    return sum(value for _, value in found)
