"""Faults and probes come from any package, and a broken one stands in nobody's way."""

from __future__ import annotations

import pytest

from gameday.experiment import registry
from gameday.experiment.loader import load
from tests.experiment.support import Write

pytestmark = pytest.mark.fast


def test_a_fault_from_another_package(write: Write) -> None:
    step = load(write()).experiment.spec.method[0]
    assert registry.fault("acmeBreak").__module__ == "acme_gameday"
    assert isinstance(step.spec, registry.fault("acmeBreak").Spec)  # type: ignore[attr-defined]


def test_the_library_and_the_other_package_are_listed_together() -> None:
    assert {"drain", "podKill", "acmeBreak"} <= set(registry.names(registry.FAULTS))
    assert {"prometheus", "acmeQuery"} <= set(registry.names(registry.PROBES))


def test_what_cannot_be_used_is_told_apart() -> None:
    assert "acmeBreak" in registry.faults()
    assert not {"acmeBroken", "acmeNoSpec", "repeat"} & registry.faults().keys()
    broken = {each.split("`")[1]: each for each in registry.broken()}
    assert "can't be loaded: No module named 'acme_missing'" in broken["acmeBroken"]
    assert "is not a class with a `Spec`" in broken["acmeNoSpec"]
    assert "is a word of the experiment file; it needs another name" in broken["repeat"]


def test_a_key_nobody_gives() -> None:
    with pytest.raises(registry.RegistryError, match="`nothing` is not installed"):
        registry.fault("nothing")
