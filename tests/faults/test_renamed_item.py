"""A drift inside a list's item that somebody renames meanwhile: its value is in force, under another name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.extend import FaultPlan, Injected, Victim, World
from gameday.faults.argocd import ArgoCDSpec
from gameday.faults.argocd_drift import Drift, field
from gameday.ledger.operations import Patch
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast

REF = Ref("v1", "Service", "inference", "default")
PATH = "spec.ports[name=http].port"


def port(name: str, number: int) -> Object:
    return {"name": name, "port": number, "protocol": "TCP", "targetPort": 80}


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[Kube]:
    async with unruly(tmp_path) as server, await connect(server) as client:
        meta = {"name": REF.name, "namespace": REF.namespace}
        ports = [port("http", 80), port("metrics", 9090)]
        await client.create(
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}}
        )
        yield client


async def drifted(kube: Kube, *now: tuple[str, int]) -> Patch:
    """Port http is 8080 by our change, and then somebody makes the ports these."""
    patch = await Patch.of(kube, REF, field(PATH, 8080))
    assert patch is not None
    await patch.make(kube)
    await kube.patch(REF, {"spec": {"ports": [port(*each) for each in now]}}, "merge")
    return patch


async def numbers(kube: Kube) -> dict[str, int]:
    found = await kube.get(REF)
    return {p["name"]: p["port"] for p in found["spec"]["ports"]}


async def evidence(kube: Kube) -> tuple[str, str]:
    drift: dict[str, Any] = {"resource": "service/inference", "namespace": "default", "path": PATH}
    spec = ArgoCDSpec.model_validate({"drift": drift | {"value": 8080}})
    plan = FaultPlan(spec, (Victim(REF, "object"),))
    seen = await Drift().settled(plan, Injected(), World(kube))
    return seen.state, seen.facts[0]


async def test_our_value_under_another_name_is_neither_out_nor_restored(kube: Kube) -> None:
    patch = await drifted(kube, ("web", 8080), ("metrics", 9090))
    state, fact = await evidence(kube)
    assert (state, "another item holds 8080" in fact) == ("partial", True)
    assert await patch.ended_by_others(kube) is None
    for seen in (await patch.undo(kube), await patch.audit(kube)):
        assert seen.state == "failed"
        assert f"{PATH} is not there any more, but spec.ports still holds 8080 elsewhere" in seen.message
    assert await numbers(kube) == {"web": 8080, "metrics": 9090}


async def test_an_item_that_went_with_our_value_is_over(kube: Kube) -> None:
    patch = await drifted(kube, ("web", 81), ("metrics", 9090))
    assert (await evidence(kube))[0] == "over"
    assert await patch.ended_by_others(kube) is not None
    assert (await patch.undo(kube)).state == "kept"
    assert await numbers(kube) == {"web": 81, "metrics": 9090}


async def test_items_in_another_order_are_the_same(kube: Kube) -> None:
    patch = await drifted(kube, ("metrics", 9090), ("http", 8080))
    assert (await evidence(kube))[0] == "in"
    assert (await patch.undo(kube)).state == "undone"
    assert await numbers(kube) == {"http": 80, "metrics": 9090}
    assert (await evidence(kube))[0] == "over"
