"""A health that GPUd does not tell is no health."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.platform.gpud import worst

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("states", "health"),
    [
        ([{"health": "Healthy"}], "Healthy"),
        ([{"health": "Healthy"}, {"health": "Degraded"}], "Degraded"),
        ([{"health": "Initializing"}], "Initializing"),
        ([{"health": "Healthy"}, {"reason": "the first check is under way"}], "Unknown"),
        ([{"reason": "nothing yet"}, {"health": "Unhealthy"}], "Unhealthy"),
        ([{"health": ""}], "Unknown"),
        ([], "Unknown"),
        (None, "Unknown"),
        ([{"healthy": True}], "Healthy"),  # as older versions say so
        ([{"healthy": False}], "Unhealthy"),
    ],
)
def test_the_worst_of_a_components_states(states: Any, health: str) -> None:
    assert worst({"component": "accelerator-nvidia-error-xid", "states": states}) == health
