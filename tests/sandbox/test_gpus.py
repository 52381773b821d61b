"""DCGM, GPUd and the pods of a simulated GPU agree on whether it can be used."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet.gpus import Gpus

pytestmark = pytest.mark.fast
DCGM = {"spec": {"nodeName": "gpu-0"}}


@pytest.mark.parametrize(
    ("xid", "serious"),
    [(79, True), (48, True), (46, True), (109, True), (158, True), (123, False), (94, False), (13, False)],
)
async def test_health_and_use_go_by_one_table(xid: int, serious: bool) -> None:
    """By the immediate action of NVIDIA's catalogue, where 123 is unused and 46 needs a reset."""
    cards = Gpus(Cache(cast(Any, None)))  # nothing here asks an API
    await cards.dcgmi(DCGM, ["dcgmi", "test", "--inject", "--gpuid", "3", "-f", "230", "-v", str(xid)])
    code, said, _ = await cards.dcgmi(DCGM, ["dcgmi", "health", "--check", "-j"])
    assert code == 0
    health = json.loads(said)["body"]["Overall Health"]["value"]
    assert (health, cards.broken("gpu-0")) == (("Failure", {3: xid}) if serious else ("Healthy", {}))
