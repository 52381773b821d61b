"""An undo has GPUd forget the XID of its run, and no XID that a GPU really had."""

from __future__ import annotations

import pytest

from gameday.ledger.gpud import GpudInject
from gameday.ledger.operations import from_data
from gameday.platform import gpud
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.platforms import Platform

NODE = "gpu-6"


@pytest.fixture
def url(platform: Platform) -> str:
    return platform.gpud_url.replace("{node}", NODE)


async def _healthy(url: str) -> bool:
    return await gpud.is_healthy(url, gpud.XID_COMPONENT)


async def test_our_xid_is_forgotten(kube: Kube, url: str) -> None:
    inject = await GpudInject.of(Ref("v1", "Node", NODE), url, 79)
    await inject.make(kube)
    assert not await _healthy(url)
    read_back = from_data(inject.to_data())
    assert (await read_back.audit(kube)).state == "failed"
    for _ in range(2):
        assert (await read_back.undo(kube)).state == "undone"
    assert await _healthy(url)


@pytest.mark.parametrize("real", [48, 79], ids=["another number", "the same number once more"])
async def test_a_real_xid_is_held_against_the_node_still(real: int, kube: Kube, url: str) -> None:
    inject = await GpudInject.of(Ref("v1", "Node", NODE), url, 79)
    try:
        await inject.make(kube)
        await gpud.inject(url, real)  # the driver says so itself
        undone = await from_data(inject.to_data()).undo(kube)
        assert (undone.state, f"XID {real}" in undone.message) == ("kept", True)
        assert not await _healthy(url)
    finally:
        await gpud.set_healthy(url, gpud.XID_COMPONENT)
