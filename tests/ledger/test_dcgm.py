"""An injected error is out when DCGM's health says so, and not when another value was injected."""

from __future__ import annotations

import pytest

from gameday.ledger.dcgm import DcgmInject
from gameday.ledger.operations import from_data
from gameday.platform import dcgm
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref

NODE = Ref("v1", "Node", "gpu-5")


async def _engine(kube: Kube) -> dcgm.Engine:
    found = await dcgm.engine(kube, NODE.name)
    assert found is not None
    return found


@pytest.mark.parametrize(("field", "value"), [(dcgm.XID_FIELD, 79.0), (319, 4.0)])
async def test_an_error_stays_in_the_engines_health_until_it_is_restarted(
    field: int, value: float, kube: Kube
) -> None:
    inject = await DcgmInject.of(kube, NODE, 1, field, value)
    before = await _engine(kube)
    await inject.make(kube)
    assert await dcgm.health(kube, before) == "Failure"
    await dcgm.inject(kube, before, 1, field, 0.0)  # all that an undo did
    read_back = from_data(inject.to_data())
    audit = await read_back.audit(kube)
    assert (audit.state, "in DCGM is Failure" in audit.message) == ("failed", True)
    undone = await read_back.undo(kube)
    assert (undone.state, "DCGM was restarted" in undone.message) == ("undone", True)
    after = await _engine(kube)
    assert after.pod.uid != before.pod.uid
    assert await dcgm.health(kube, after) == "Healthy"
    assert (await read_back.audit(kube)).state == "undone"


async def test_a_value_that_no_health_watch_minds_restarts_nothing(kube: Kube) -> None:
    inject = await DcgmInject.of(kube, NODE, 1, dcgm.XID_FIELD, 63.0)
    before = await _engine(kube)
    await inject.make(kube)
    assert (await from_data(inject.to_data()).undo(kube)).state == "undone"
    assert (await _engine(kube)).pod.uid == before.pod.uid


async def test_overlapping_values_end_at_the_first_one(kube: Kube) -> None:
    first = await DcgmInject.of(kube, NODE, 2, 202, 10.0)
    await first.make(kube)
    second = await DcgmInject.of(kube, NODE, 2, 202, 20.0)
    await second.make(kube)
    handed = second.over(first)
    assert handed is not None
    assert (handed[0], handed[1].before) == (None, first.before)
    assert (await from_data(handed[1].to_data()).undo(kube)).state == "undone"
    assert not await dcgm.value(kube, NODE.name, 2, 202)
