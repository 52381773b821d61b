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


async def _pod(kube: Kube, owner: Object | None, node: str = "") -> Ref:
    made = pod(SPACE, node=node)
    if owner is not None:
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


@pytest.mark.parametrize("acts", [True, False])
async def test_a_pod_that_comes_later_to_a_tainted_node_is_ended_by_the_run(
    acts: bool, tmp_path: Path
) -> None:
    """It was: nobody knew of such a pod. One that somebody else ends there is none of the run's doing."""
    async with _cluster(tmp_path) as (kube, owner):
        await _pod(kube, owner)
        told, node = Endings(kube, [SPACE]), Effect(Kind.NODE, Ref("v1", "Node", "gpu-0", uid="n"))
        await told.expect("1", [node], keeps_off=True)
        late, alone, deleted = [await _pod(kube, o, "gpu-0") for o in (owner, None, None)]
        told.hear(await _ended_by_taint(kube, late))
        if acts:
            told.caused("1", _made(Create(node.ref, "x")), by_hand=False)
        told.hear(await _ended_by_taint(kube, alone))  # it was ended before, and a watch may be late
        told.over("1")
        after = await _pod(kube, owner, "gpu-0")
        told.hear(await _ended_by_taint(kube, after))
        for ref in (late, alone, deleted, after):
            await kube.delete(ref, grace=0)
        await _pod(kube, owner)
        assert await _seen(told) == ({str(late): "replaced", str(alone): "ended for good"} if acts else {})


async def _ended_by_taint(kube: Kube, ref: Ref) -> Object:
    """As the taint eviction controller marks a pod just before it deletes the pod."""
    why = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    await kube.patch(ref, {"status": {"conditions": [why]}}, "merge", subresource="status")
    return {"kind": "Pod"} | await kube.get(ref)
