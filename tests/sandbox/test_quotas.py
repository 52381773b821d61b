"""What a quota counts is written as the API writes quantities."""

from __future__ import annotations

import pytest

from gameday.sandbox.quotas import usage

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "asked", "used"),
    [
        ("requests.cpu", "250m", "500m"),
        ("cpu", "1500m", "3"),
        ("requests.memory", "48Mi", "96Mi"),
        ("memory", "512Mi", "1Gi"),
        ("requests.nvidia.com/gpu", "4", "8"),
        ("limits.memory", "0", "0"),
        ("pods", "", "2"),
    ],
)
def test_two_pods_use(name: str, asked: str, used: str) -> None:
    section, _, resource = name.partition(".") if "." in name else ("requests", "", name)
    pod = {"spec": {"containers": [{"resources": {section: {resource: asked}} if asked else {}}]}}
    assert usage([pod, pod], {name: "100"}) == {name: used}
