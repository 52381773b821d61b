"""The registry of all that is installed: faults, probes, operations of the ledger, preflight checks.

Each is an entry point, ours and other packages' alike. The name of a fault or a probe is its key in the
file, that of an operation is its kind in a run's record. A class is imported only when its name is used, so
that validating stays fast and one broken package does not stand in the way of the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import iscoroutinefunction
from typing import Any

from gameday.experiment.model import AbortIf, Keyed, Probe, Spec, Step

FAULTS = "gameday.faults"
PROBES = "gameday.probes"
OPERATIONS = "gameday.operations"
CHECKS = "gameday.checks"
OURS = "gameday"  # the package whose own entries need no name
_installed = cache(entry_points)  # of all groups: asking for one reads each installed package as well
# What each is derived from, by name: the classes are above this module, and cost more to import.
BASES = {
    FAULTS: ("gameday.extend.fault.Fault", "gameday.extend.family.OneOf"),
    PROBES: ("gameday.extend.probe.Probe",),
    OPERATIONS: ("gameday.ledger.operations.Operation",),
}


class RegistryError(Exception):
    """Something that is installed but can't be used, or is not installed; says which package to mend."""


class NotInstalled(RegistryError):
    """No package gives what was asked for."""


def faults() -> dict[str, type]:
    """Every fault class that can be used, by its key. Imports them all: for listings and the JSON Schema."""
    return usable(FAULTS)[0]


def probes() -> dict[str, type]:
    """Every probe class that can be used, by its key. Imports them all."""
    return usable(PROBES)[0]


def broken() -> tuple[str, ...]:
    """What is installed but can't be used, one sentence each; a listing shows it beside the rest."""
    return (*usable(FAULTS)[1], *usable(PROBES)[1])


def usable(group: str) -> tuple[dict[str, type], list[str]]:
    """All classes of a group that can be used, by name, and a sentence for each that can't. Imports them."""
    found, unusable = {}, []
    for key in names(group):
        try:
            found[key] = load(group, key)
        except RegistryError as error:
            unusable.append(str(error))
    return found, unusable


def fault(key: str) -> type:
    """The class of one fault. Raises RegistryError."""
    found: type = load(FAULTS, key)
    return found


def probe(key: str) -> type:
    """The class of one probe. Raises RegistryError."""
    found: type = load(PROBES, key)
    return found


def check(name: str) -> Callable[[Any], Awaitable[Any]]:
    """One check of preflight, an async function. Raises RegistryError."""
    found: Callable[[Any], Awaitable[Any]] = load(CHECKS, name)
    return found


def names(group: str) -> tuple[str, ...]:
    """The keys of a group, sorted; nothing is imported."""
    return tuple(sorted(_entries(group)))


@cache
def load(group: str, key: str) -> Any:
    """The class, or the function, under a key, checked. Raises RegistryError."""
    found = _entries(group).get(key, [])
    if not found:
        raise NotInstalled(f"`{key}` is not installed")
    if len(found) > 1:
        raise RegistryError(f"{_origin(key, found)}: two packages give it; uninstall one of them")
    if key in _reserved(group):
        raise RegistryError(f"{_origin(key, found)} is a word of the experiment file; it needs another name")
    try:
        loaded = found[0].load()
    except (Exception, SystemExit) as error:  # whatever a foreign module does when it is imported
        why = str(error) or type(error).__name__
        raise RegistryError(f"{_origin(key, found)} can't be loaded: {why}") from error
    if problem := _unfit(group, key, loaded):
        raise RegistryError(f"{_origin(key, found)} is not {problem}")
    return loaded


def package(group: str, key: str) -> str:
    """Which other package gives a name, as `acme-gameday 1.2`; "" for this one's own, and for nobody's."""
    distributions = [e.dist for e in _entries(group).get(key, []) if e.dist and e.dist.name != OURS]
    return f"{distributions[0].name} {distributions[0].version}" if distributions else ""


def forget() -> None:
    """Look again: packages were installed or removed while this process runs."""
    _installed.cache_clear()
    _entries.cache_clear()
    load.cache_clear()


def _unfit(group: str, key: str, loaded: Any) -> str:
    """What one of this group has to be, where this one is not so."""
    if group == CHECKS:
        return "" if iscoroutinefunction(loaded) else "an async function"
    if not isinstance(loaded, type):
        return "a class"
    spec = getattr(loaded, "Spec", None)
    if group in (FAULTS, PROBES) and not (isinstance(spec, type) and issubclass(spec, Spec)):
        return "a class with a `Spec`"
    if group == OPERATIONS and getattr(loaded, "kind", None) != key:
        return f"a class whose `kind` is {key!r}"
    if {f"{c.__module__}.{c.__qualname__}" for c in loaded.__mro__}.isdisjoint(BASES[group]):
        return f"derived from gameday.extend.{BASES[group][0].rpartition('.')[2]}"
    return ""


@cache
def _entries(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in _installed().select(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def _reserved(group: str) -> set[str]:
    """The words of the experiment file that no fault, or no probe, may be called by."""
    models: dict[str, tuple[type[Keyed], ...]] = {FAULTS: (Step,), PROBES: (Probe, AbortIf)}
    return {
        field.alias or name for model in models.get(group, ()) for name, field in model.model_fields.items()
    }


def _origin(key: str, entries: list[EntryPoint]) -> str:
    """A key with the packages that give it, whose metadata are read for this alone."""
    return f"`{key}` from " + " and ".join(
        sorted(f"{entry.dist.name if entry.dist else '?'} ({entry.value})" for entry in entries)
    )
