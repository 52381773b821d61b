"""The models with the registry's keys in them: one optional field per fault and per probe.

So unknown keys, positions of errors and the JSON Schema need no code of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, cast

from pydantic import Field, create_model

from gameday.experiment import registry
from gameday.experiment.model import AbortIf, Experiment, ExperimentSpec, Probe, Repeat, Step


def experiment_model(
    faults: Iterable[str] | None = None, probes: Iterable[str] | None = None
) -> type[Experiment]:
    """The type of experiments that use these keys; all that can be used when None.

    Raises RegistryError when one of them can't be loaded.
    """
    fault_classes = _classes(registry.FAULTS, registry.faults() if faults is None else faults)
    probe_classes = _classes(registry.PROBES, registry.probes() if probes is None else probes)
    return _build(fault_classes, probe_classes)


def _classes(group: str, keys: Iterable[str]) -> tuple[tuple[str, type], ...]:
    return tuple((key, registry.load(group, key)) for key in sorted(set(keys)))


@cache
def _build(faults: tuple[tuple[str, type], ...], probes: tuple[tuple[str, type], ...]) -> type[Experiment]:
    probe = _keyed(Probe, probes)
    abort_if = _keyed(AbortIf, probes)
    # A step holds steps: through Self directly, through `repeat` by name.
    steps: Any = ("list[ConcreteStep]", _like(Repeat, "steps"))
    repeat = create_model("Repeat", __base__=Repeat, __module__=__name__, __doc__=Repeat.__doc__, steps=steps)
    step = _keyed(Step, faults, repeat=(repeat | None, _like(Step, "repeat")))
    spec = create_model(
        "ExperimentSpec",
        __base__=ExperimentSpec,
        __doc__=ExperimentSpec.__doc__,
        __module__=__name__,
        steady_state=(list[probe], _like(ExperimentSpec, "steady_state")),  # type: ignore[valid-type]
        abort_if=(list[abort_if], _like(ExperimentSpec, "abort_if")),  # type: ignore[valid-type]
        method=(list[step], _like(ExperimentSpec, "method")),  # type: ignore[valid-type]
    )
    experiment = create_model(
        "Experiment", __base__=Experiment, __module__=__name__, __doc__=Experiment.__doc__, spec=(spec, ...)
    )
    experiment.model_rebuild(_types_namespace={"ConcreteStep": step})  # all at once
    return experiment


def _keyed(base: type[Any], classes: tuple[tuple[str, type], ...], **fields: Any) -> type[Any]:
    for key, owner in classes:
        spec = cast(Any, owner).Spec
        about = _first_line(owner) or _first_line(spec)
        fields[f"{key}_"] = (spec | None, Field(None, alias=key, description=about))
    made = create_model(base.__name__, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields)
    keyed = cast(type[Any], made)
    keyed.keys = base.keys | {key for key, _ in classes}
    return keyed


def _like(base: type[Any], name: str) -> Any:
    """The same field again, for a narrower type."""
    return base.model_fields[name]


def _first_line(of: type) -> str:
    return (of.__doc__ or "").strip().partition("\n")[0]
