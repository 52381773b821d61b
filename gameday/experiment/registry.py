"""Which faults and probes there are. Each is an entry point, ours and other packages' alike.

An entry point's name is the key in the file; it names a class with an attribute `Spec`. A class is
imported only when a file uses its key, so that validating stays fast and one broken package does not
stand in the way of the rest.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from gameday.experiment.model import AbortIf, Keyed, Probe, Spec, Step

FAULTS = "gameday.faults"
PROBES = "gameday.probes"


class RegistryError(Exception):
    """A fault or a probe that is installed but can't be used; says which package to mend."""


def faults() -> dict[str, type]:
    """Every fault class that can be used, by its key. Imports them all: for listings and the JSON Schema."""
    return _usable(FAULTS)[0]


def probes() -> dict[str, type]:
    """Every probe class that can be used, by its key. Imports them all."""
    return _usable(PROBES)[0]


def broken() -> tuple[str, ...]:
    """What is installed but can't be used, one sentence each; a listing shows it beside the rest."""
    return (*_usable(FAULTS)[1], *_usable(PROBES)[1])


def _usable(group: str) -> tuple[dict[str, type], list[str]]:
    usable, unusable = {}, []
    for key in names(group):
        try:
            usable[key] = load(group, key)
        except RegistryError as error:
            unusable.append(str(error))
    return usable, unusable


def fault(key: str) -> type:
    """The class of one fault. Raises RegistryError."""
    return load(FAULTS, key)


def probe(key: str) -> type:
    """The class of one probe. Raises RegistryError."""
    return load(PROBES, key)


def names(group: str) -> tuple[str, ...]:
    """The keys of a group, sorted; nothing is imported."""
    return tuple(sorted(_entries(group)))


@cache
def load(group: str, key: str) -> type:
    """The class under a key, checked. Raises RegistryError."""
    found = _entries(group).get(key, [])
    origin = f"`{key}` from {_packages(found)}"
    if not found:
        raise RegistryError(f"`{key}` is not installed")
    if len(found) > 1:
        raise RegistryError(f"{origin}: two packages give it; uninstall one of them")
    if key in _reserved(group):
        raise RegistryError(f"{origin} is a word of the experiment file; it needs another name")
    try:
        loaded = found[0].load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise RegistryError(f"{origin} can't be loaded: {str(error) or type(error).__name__}") from error
    spec = getattr(loaded, "Spec", None)
    if not isinstance(loaded, type) or not isinstance(spec, type) or not issubclass(spec, Spec):
        raise RegistryError(f"{origin} is not a class with a `Spec`")
    return loaded


def forget() -> None:
    """Look again: packages were installed or removed while this process runs."""
    _entries.cache_clear()
    load.cache_clear()


@cache
def _entries(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def _reserved(group: str) -> set[str]:
    models: list[type[Keyed]] = [Step] if group == FAULTS else [Probe, AbortIf]
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _packages(entries: list[EntryPoint]) -> str:
    return " and ".join(
        sorted(f"{entry.dist.name if entry.dist else '?'} ({entry.value})" for entry in entries)
    )
