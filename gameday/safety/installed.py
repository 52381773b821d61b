"""From a key of the experiment file to the fault or the probe under it, ready to be used."""

from __future__ import annotations

from typing import Any

from gameday.experiment import registry
from gameday.experiment.model import Spec
from gameday.extend import Fault, OneOf, Probe


def fault_of(kind: str, spec: Spec) -> Fault[Any]:
    """The fault that a spec under a key means. Raises RegistryError for one that is broken."""
    found: type[Fault[Any] | OneOf[Any]] = registry.fault(kind)
    return found().of(spec)


def probe_of(kind: str) -> Probe[Any]:
    """The probe under a key. Raises RegistryError for one that is broken."""
    found: type[Probe[Any]] = registry.probe(kind)
    return found()
