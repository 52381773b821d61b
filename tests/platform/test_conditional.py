"""Writes for the version that was read: others are never written over, and a refusal is no lost race."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.platform.conditional import among_others, create_if_absent, delete_if, write_if
from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.unruly import LOSE_ANSWER, LOSE_REQUEST, Unruly, connect, unruly

REF = Ref("v1", "ConfigMap", "raced", "default")
MAP: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": REF.name, "namespace": REF.namespace},
    "data": {"n": "0"},
}
BODIES = [{"data": {"n": "2"}}, [{"op": "replace", "path": "/data/n", "value": "2"}]]
merge_and_json = pytest.mark.parametrize("body", BODIES, ids=["merge", "json"])


@pytest.fixture(autouse=True)
async def _gone(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The object is the test's own, on whatever platform."""
    yield
    if "kube" in request.fixturenames:
        await request.getfixturevalue("kube").delete(REF)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Unruly]:
    async with unruly(tmp_path) as running:
        yield running


@merge_and_json
async def test_a_write_is_in_where_nobody_was_quicker(kube: Kube, body: Object) -> None:
    written = await write_if(kube, await kube.create(MAP), body)
    assert written is not None
    assert written["data"] == {"n": "2"}


@merge_and_json
async def test_nobody_is_written_over(kube: Kube, body: Object) -> None:
    found = await kube.create(MAP)
    await kube.patch(REF, {"data": {"n": "1"}}, "merge")
    assert await write_if(kube, found, body) is None
    assert not await delete_if(kube, found)
    assert (await kube.get(REF))["data"] == {"n": "1"}


@merge_and_json
async def test_what_took_the_name_since_is_another_object(kube: Kube, body: Object) -> None:
    found = await kube.create(MAP)
    await kube.delete(REF)
    assert await write_if(kube, found, body) is None
    assert await delete_if(kube, found)  # gone is gone
    await kube.create(MAP)
    assert await write_if(kube, found, body) is None
    assert not await delete_if(kube, found)
    assert (await kube.get(REF))["data"] == {"n": "0"}


async def test_a_patch_that_does_not_fit_is_no_lost_race(kube: Kube) -> None:
    found = await kube.create(MAP)
    with pytest.raises(ApiError):
        await write_if(kube, found, [{"op": "remove", "path": "/data/absent"}])


async def test_a_subresource_that_is_not_served_is_no_lost_race(kube: Kube) -> None:
    found = await kube.create(MAP)
    with pytest.raises(ApiError) as refused:
        await write_if(kube, found, [{"op": "add", "path": "/spec", "value": {}}], subresource="resize")
    assert refused.value.status == 404


async def test_a_creation_where_there_is_one(kube: Kube) -> None:
    assert await create_if_absent(kube, MAP) is not None
    assert await create_if_absent(kube, MAP) is None


@pytest.mark.fast
@pytest.mark.parametrize("loss", [LOSE_REQUEST, LOSE_ANSWER])
async def test_a_lost_answer_is_followed_by_another_look(server: Unruly, loss: str) -> None:
    async with await connect(server) as lossy:
        await lossy.create(MAP)
        server.lose(loss, "PATCH")

        async def attempt() -> Object | None:
            found = await lossy.get(REF)
            return found if found["data"]["n"] == "2" else await write_if(lossy, found, {"data": {"n": "2"}})

        written = await among_others(REF, attempt)
        assert written["data"] == (await lossy.get(REF))["data"] == {"n": "2"}


async def test_a_race_that_is_lost_each_time(kube: Kube) -> None:
    found = await kube.create(MAP)
    await kube.patch(REF, {"data": {"n": "1"}}, "merge")
    with pytest.raises(Unreachable, match="others keep changing it"):
        await among_others(REF, lambda: write_if(kube, found, {"data": {"n": "2"}}))
