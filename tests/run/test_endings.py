"""What a run is said to have ended: what its changes ended, and replaced where a successor was read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gameday.ledger.ledger import Entry
from gameday.ledger.operations import Create, Delete, Operation
from gameday.platform.effect import Effect, Kind
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.run import endings
from gameday.run.endings import Endings
from gameday.states import Change
from tests.platform.arrange import pod
from tests.support.kinds import create
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast
SPACE = "training"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "FOLLOWED_WITHIN", 0.0)


@asynccontextmanager
async def _cluster(folder: Path) -> AsyncIterator[tuple[Kube, Object]]:
    """A cluster in which nothing acts, and the controller of its pods."""
    async with unruly(folder) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "set", "namespace": SPACE}}
        yield kube, await kube.create(owner)


async def _pod(kube: Kube, owner: Object) -> Ref:
    made = pod(SPACE)
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "controller": True}
    made["metadata"]["ownerReferences"] = [ref | {k: owner["metadata"][k] for k in ("name", "uid")}]
    return await create(kube, made, phase="Running")


def _made(*operations: Operation) -> Sequence[Entry]:
    return [Entry(n, "1", operation, Change.MADE) for n, operation in enumerate(operations)]


async def _seen(told: Endings) -> dict[str, str]:
    return {e.object: e.done for e in await told.seen([])}


async def test_only_as_many_are_replaced_as_came_since(tmp_path: Path) -> None:
    """It was: a pod of a controller that had become smaller meanwhile was said to be replaced."""
    async with _cluster(tmp_path) as (kube, owner):
        first, second, _ = [await _pod(kube, owner) for _ in range(3)]  # the third is no successor
        told = Endings(kube)
        await told.expect("1", [Effect(Kind.POD, ref, ends=True) for ref in (first, second)])
        told.caused("1", _made(Delete(first), Delete(second)), by_hand=True)
        await kube.delete(first, grace=0)
        assert await _seen(told) == {str(first): "ended"}
        await _pod(kube, owner)
        assert await _seen(told) == {str(first): "replaced"}
        await kube.delete(second, grace=0)
        assert sorted((await _seen(told)).values()) == ["ended", "replaced"]


async def test_a_successor_that_was_ended_again_was_one(tmp_path: Path) -> None:
    async with _cluster(tmp_path) as (kube, owner):
        told, ref = Endings(kube), await _pod(kube, owner)
        for step in ("1", "2"):
            await told.expect(step, [Effect(Kind.POD, ref, ends=True)])
            told.caused(step, _made(Delete(ref)), by_hand=True)
            await kube.delete(ref, grace=0)
            ref = await _pod(kube, owner)
        assert list((await _seen(told)).values()) == ["replaced", "replaced"]


@pytest.mark.parametrize("by_hand", [True, False])
async def test_what_others_ended_is_none_of_the_runs_doing(by_hand: bool, tmp_path: Path) -> None:
    """It was: a pod that somebody deleted while a drain was refused had been replaced by the run."""
    async with _cluster(tmp_path) as (kube, owner):
        ours, theirs = await _pod(kube, owner), await _pod(kube, owner)
        told = Endings(kube)
        await told.expect("1", [Effect(Kind.POD, ref, ends=True) for ref in (ours, theirs)])
        for ref in (ours, theirs):
            await kube.delete(ref, grace=0)
        assert await _seen(told) == {}
        other = Create(Ref("example.com/v1", "Fault", "f", SPACE), "x")
        told.caused("1", _made(other), by_hand=by_hand)
        assert await _seen(told) == ({} if by_hand else {str(r): "ended" for r in (ours, theirs)})
        told.caused("1", _made(other, Delete(ours)), by_hand=by_hand)
        assert (str(theirs) in await _seen(told)) is not by_hand
        assert str(ours) in await _seen(told)
