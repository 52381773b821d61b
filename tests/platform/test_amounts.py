"""Amounts as the API server writes them back, and the shares that people ask for."""

from __future__ import annotations

import pytest

from gameday.experiment.quantity import parse_quantity
from gameday.platform.amounts import amount, canonical


@pytest.mark.fast
@pytest.mark.parametrize(
    ("resource", "text", "base", "expected"),
    [
        ("cpu", "0.5", "4", "500m"),
        ("cpu", "50%", "4", "2"),
        ("cpu", "33%", "1", "330m"),
        ("limits.cpu", "1000", "1", "1k"),
        ("memory", "50%", "1Gi", "512Mi"),
        ("memory", "1.5Gi", "8Gi", "1536Mi"),
        ("requests.memory", "100000", "1Gi", "97Ki"),
        ("requests.storage", "2Ti", "4Ti", "2Ti"),
        ("hugepages-2Mi", "4Mi", "8Mi", "4Mi"),
        ("pods", "50%", "13", "6"),
        ("pods", "100%", "12", "12"),
        ("requests.nvidia.com/gpu", "50%", "0", "0"),
        ("count/configmaps", "2000", "1", "2k"),
    ],
)
def test_in_the_apis_own_form(resource: str, text: str, base: str, expected: str) -> None:
    found = amount(text, resource, base)
    assert found == expected
    assert canonical(resource, parse_quantity(found)) == found, "written back it would change"
