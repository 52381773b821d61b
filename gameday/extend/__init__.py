"""Names for authors of faults, probes, operations and checks. Everything else may change without notice."""

# ruff: noqa: I001 - it would split imports `as` the same name, which type checkers need here, name by name

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameday.experiment.model import (
        Bound as Bound,
        DNSLabel as DNSLabel,
        Duration as Duration,
        LabelSelector as LabelSelector,
        NodePick as NodePick,
        ObjectName as ObjectName,
        Pick as Pick,
        PositiveDuration as PositiveDuration,
        PromQL as PromQL,
        Regex as Regex,
        Spec as Spec,
        Text as Text,
    )
    from gameday.extend.check import (
        Case as Case,
        Findings as Findings,
        ok as ok,
        refused as refused,
        warning as warning,
    )
    from gameday.extend.family import OneOf as OneOf, OneOfSpec as OneOfSpec
    from gameday.extend.fault import (
        Already as Already,
        Evidence as Evidence,
        Fault as Fault,
        FaultError as FaultError,
        FaultPlan as FaultPlan,
        Injected as Injected,
        Made as Made,
        PlanError as PlanError,
    )
    from gameday.extend.probe import Measurement as Measurement, Probe as Probe, Value as Value
    from gameday.extend.step import Step as Step
    from gameday.ledger.edits import Edit as Edit
    from gameday.ledger.operations import (
        RESTORED as RESTORED,
        Create as Create,
        Delete as Delete,
        Ended as Ended,
        Evict as Evict,
        Operation as Operation,
        Patch as Patch,
        Refused as Refused,
        Undone as Undone,
    )
    from gameday.platform.conditional import write_if as write_if
    from gameday.platform.effect import Effect as Effect, Kind as Kind, NodeState as NodeState, Touch as Touch
    from gameday.platform.errors import ApiError as ApiError, PlatformError as PlatformError
    from gameday.platform.kube import Kube as Kube
    from gameday.platform.objects import Object as Object, Ref as Ref
    from gameday.platform.world import Victim as Victim, World as World


def __getattr__(name: str) -> Any:
    """Each name where it is defined, imported when it is first used: a file is to be checked in no time."""
    from importlib import import_module

    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"gameday.extend offers no {name}")
    globals()[name] = found = getattr(import_module(module), name)
    return found


_BY_MODULE = {
    "gameday.experiment.model": "Bound DNSLabel Duration LabelSelector NodePick ObjectName Pick "
    "PositiveDuration PromQL Regex Spec Text",
    "gameday.extend.check": "Case Findings ok refused warning",
    "gameday.extend.family": "OneOf OneOfSpec",
    "gameday.extend.fault": "Already Evidence Fault FaultError FaultPlan Injected Made PlanError",
    "gameday.extend.probe": "Measurement Probe Value",
    "gameday.extend.step": "Step",
    "gameday.ledger.edits": "Edit",
    "gameday.ledger.operations": "RESTORED Create Delete Ended Evict Operation Patch Refused Undone",
    "gameday.platform.conditional": "write_if",
    "gameday.platform.effect": "Effect Kind NodeState Touch",
    "gameday.platform.errors": "ApiError PlatformError",
    "gameday.platform.kube": "Kube",
    "gameday.platform.objects": "Object Ref",
    "gameday.platform.world": "Victim World",
}
_HOMES = {name: module for module, names in _BY_MODULE.items() for name in names.split()}
__all__ = sorted(_HOMES)
