"""The `kubernetes` probe: a condition, a field, or the number of objects, as kubectl sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, LabelSelector, Line, Spec, Text
from gameday.experiment.values import checked
from gameday.extend import Measurement, Probe, Value
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref, Resource
from gameday.probes import jsonpath

if TYPE_CHECKING:
    from gameday.platform.world import World


def _resource(text: str) -> None:
    from gameday.platform import kinds

    if "/" in text:
        kinds.check_object(text)
    else:
        kinds.check(text)


class KubernetesSpec(Spec):
    """One object by its name, or all of a kind, and what to read of it."""

    resource: Annotated[str, checked(_resource)] = Field(
        description="`deployment/inference`, or a kind such as `pods` or `certificates.cert-manager.io`."
    )
    namespace: DNSLabel | None = Field(
        None, description="Its namespace; else the target's, if it has just one."
    )
    selector: LabelSelector | None = Field(None, description="Labels, where `resource` is a kind alone.")
    condition: Line | None = Field(
        None,
        description="A status condition; its value is `True`, `False` or `Unknown`, as for `kubectl wait`.",
    )
    json_path: Annotated[Text, jsonpath.CHECKED] | None = Field(
        None, description="A field in kubectl's JSONPath, as `{.status.readyReplicas}`."
    )
    count: bool = Field(
        False, description="The number of objects; with `condition`, of those for which it is True."
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = (self.condition is not None or self.count) + (self.json_path is not None)
        if asked != 1:
            raise ValueError("expected one of `condition`, `jsonPath` and `count: true`")
        if self.selector and "/" in self.resource:
            raise ValueError("`selector` needs a kind alone in `resource`, as `pods`")
        return self


class Kubernetes(Probe[KubernetesSpec]):
    """A condition, a field or the number of Kubernetes objects."""

    Spec: ClassVar = KubernetesSpec
    example: ClassVar[str] = """\
name: inference is available
kubernetes: {resource: deployment/inference, namespace: inference, condition: Available}
is: "True"
"""

    async def measure(self, spec: KubernetesSpec, world: World) -> Measurement:
        """One value for each object; an object that is not there is no data."""
        from gameday.platform.kinds import find_resource

        kind, _, name = spec.resource.partition("/")
        resource = await find_resource(world.kube, kind)
        namespace = _namespace(spec, resource, world)
        if not name:
            found = await world.kube.list(resource, namespace, labels=spec.selector)
            if not found and namespace is not None and not await _is_there(namespace, world):
                return Measurement((), f"there is no namespace {namespace}")  # none of nothing is no zero
            return _read(spec, found, single=False)
        ref = Ref(resource.api_version, resource.kind, name, namespace)
        obj = await world.kube.find(ref)
        if obj is None and not spec.count:
            return Measurement((), f"there is no {ref}")
        return _read(spec, [obj] if obj else [], single=True)


async def _is_there(namespace: str, world: World) -> bool:
    """Whether a namespace exists; those of the target were looked at before the run."""
    return (
        namespace in world.namespaces or await world.kube.find(Ref("v1", "Namespace", namespace)) is not None
    )


def _namespace(spec: KubernetesSpec, resource: Resource, world: World) -> str | None:
    if not resource.namespaced:
        return None
    if spec.namespace:
        return spec.namespace
    if len(world.namespaces) != 1:
        raise PlatformError(f"in which namespace is {spec.resource}? Name it in the probe's `namespace`")
    return world.namespaces[0]


def _read(spec: KubernetesSpec, found: list[Object], *, single: bool) -> Measurement:
    names = [""] if single else [str(Ref.of(obj)) for obj in found]
    if spec.condition is None and spec.json_path is None:
        return Measurement((("", float(len(found))),))
    if spec.count:
        true = sum(_condition(obj, spec.condition or "") == "True" for obj in found)
        return Measurement((("", float(true)),), f"{true} of {len(found)}")
    if not found:
        return Measurement(
            (), f"there are no {spec.resource}" + f" with {spec.selector}" * bool(spec.selector)
        )
    if spec.condition is not None:
        return _conditions(spec.condition, dict(zip(names, found, strict=False)))
    return _fields(spec.json_path or "", dict(zip(names, found, strict=False)))


def _conditions(wanted: str, objects: dict[str, Object]) -> Measurement:
    values = {name: _condition(obj, wanted) for name, obj in objects.items()}
    if not any(values.values()):
        there = sorted({c["type"] for obj in objects.values() for c in _listed(obj)})
        return Measurement((), f"there is no condition {wanted}, only {', '.join(there) or 'none at all'}")
    # Left out, an object without it would be forgotten: all that are left might hold.
    return Measurement(tuple((name, value or "Unknown") for name, value in values.items()))


def _condition(obj: Object, wanted: str) -> str:
    """The condition's status, "" without one; "Unknown" as long as it tells of an older generation.

    That is how `kubectl wait` reads it: a controller that has not seen the last change yet has no say.
    """
    for entry in _listed(obj):
        if entry["type"].casefold() == wanted.casefold():
            observed = entry.get("observedGeneration", obj["status"].get("observedGeneration"))
            generation = obj["metadata"].get("generation")
            stale = observed is not None and generation is not None and observed < generation
            return "Unknown" if stale else str(entry.get("status", "Unknown"))
    return ""


def _listed(obj: Object) -> Iterable[Object]:
    conditions = (obj.get("status") or {}).get("conditions")
    return (
        [c for c in conditions if isinstance(c, dict) and "type" in c] if isinstance(conditions, list) else ()
    )


def _fields(path: str, objects: dict[str, Object]) -> Measurement:
    series: list[tuple[str, Value]] = []
    for name, obj in objects.items():
        values = jsonpath.find(path, obj, name or str(Ref.of(obj)))
        if len(values) == 1:
            series.append((name, values[0]))
        else:
            series += [(f"{name}[{number}]", value) for number, value in enumerate(values)]
        if not values and len(objects) > 1:
            series.append((name, ""))  # nothing there holds no bound, and must not be forgotten
    if all(value == "" for _, value in series):
        return Measurement((), f"there is nothing at {path}")
    return Measurement(tuple(series))
