"""What `gameday probes` shows must be right, and cheap to look up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import pytest
import yaml

from gameday.experiment import registry
from gameday.experiment.expect import Expectation

pytestmark = pytest.mark.fast
OURS = ("alert", "argocd", "chaostoolkit", "gpu", "hardwareAgrees", "http", "kubernetes", "nic", "prometheus")


@pytest.mark.parametrize("key", OURS)
def test_the_example_is_valid(key: str) -> None:
    probe = cast(Any, registry.probe(key))
    example = yaml.safe_load(probe.example)
    probe.Spec.model_validate(example[key])
    Expectation.parse(example["is"])
    assert set(example) == {"name", "is", key}


@pytest.mark.parametrize("key", OURS)
def test_everything_is_described(key: str) -> None:
    probe = cast(Any, registry.probe(key))
    assert probe.__doc__
    assert isinstance(probe.needs_prometheus, bool)
    assert all(field.description for field in probe.Spec.model_fields.values())


def test_validating_loads_no_client() -> None:
    """A file is checked in a moment: what talks to systems is imported when they are asked."""
    checks = "; ".join(f"registry.load('gameday.probes', {key!r})" for key in OURS)
    heavy = "{'aiohttp', 'kubernetes', 'chaoslib', 'jsonpath_ng', 'requests'}"
    code = f"import sys; from gameday.experiment import registry; {checks}; print({heavy} & set(sys.modules))"
    code += (
        "; from gameday.probes.kubernetes import KubernetesSpec as K; K(resource='deploy/x', condition='A')"
    )
    code += f"; print({heavy} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["set()", "set()"]
