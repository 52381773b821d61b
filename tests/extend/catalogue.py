"""Every fault that is installed, families taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gameday.experiment import registry
from gameday.extend import Fault, OneOf

Kind = type[Fault[Any]] | type[OneOf[Any]]


def catalogue() -> dict[str, type[Fault[Any]]]:
    """Each fault by its key, with its way where the key is a family's: `gpu.xid.dcgm`."""
    return dict(pair for key in registry.names(registry.FAULTS) for pair in _of(key, registry.fault(key)))


def _of(name: str, found: Any) -> Iterator[tuple[str, type[Fault[Any]]]]:
    if issubclass(found, OneOf):
        for way, variant in found.variants.items():
            yield from _of(f"{name}.{way}", variant)
    else:
        yield name, found
