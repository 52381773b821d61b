"""A rollback as an operation of the ledger: refused where the Application is not as planned, and undone."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.ledger.argocd import Rollback
from gameday.ledger.operations import Refused
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support import gitops
from tests.support.gitops import CANARY, FIRST, NEWEST
from tests.support.polling import eventually

SLOW = {"metadata": {"annotations": {"sandbox.gameday.dev/sync-seconds": "600"}}}
FAST = {"metadata": {"annotations": {"sandbox.gameday.dev/sync-seconds": "0"}}}


@pytest.fixture(autouse=True, scope="module")
async def namespace(kube: Kube) -> None:
    await gitops.ensure_namespace(kube)


async def rollback(kube: Kube, ref: Ref, **options: Any) -> Rollback:
    history = (await kube.get(ref))["status"]["history"]
    return Rollback(ref, "run-1", to=history[1], before=history[-1], prune_back=True, **options)


async def phase(kube: Kube, ref: Ref, wanted: str) -> Object:
    def is_so(app: Object) -> bool:
        return bool((app["status"].get("operationState") or {}).get("phase") == wanted)

    return await eventually(lambda: kube.get(ref), is_so)


async def test_made_and_undone_by_another_process(kube: Kube) -> None:
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        operation = await rollback(kube, ref)
        await operation.make(kube)
        await operation.make(kube)  # as after a lost answer: it is asked for once
        await eventually(lambda: kube.get(ref), lambda a: gitops.revisions(a)[-1] == CANARY)
        read_back = Rollback.from_data(operation.to_data())
        assert (await read_back.audit(kube)).state == "failed"
        assert (await read_back.undo(kube)).state == "undone"
        assert (await read_back.undo(kube)).state == "undone"
        assert (await read_back.audit(kube)).state == "undone"
        assert gitops.revisions(await kube.get(ref)) == [FIRST, CANARY, NEWEST, CANARY, NEWEST]


async def test_refused_while_somebody_deploys_and_nothing_is_to_be_undone(kube: Kube) -> None:
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        operation = await rollback(kube, ref)
        await kube.patch(ref, SLOW, "merge")
        theirs = {"sync": {"revision": NEWEST}, "initiatedBy": {"username": "dana"}}
        await kube.patch(ref, {"operation": theirs}, "merge")
        await phase(kube, ref, "Running")
        with pytest.raises(Refused, match="an operation of dana is in progress"):
            await operation.make(kube)
        assert (await operation.undo(kube)).state == "undone"
        assert (await kube.get(ref))["operation"]["initiatedBy"] == {"username": "dana"}
        await kube.patch(ref, FAST, "merge")
        await phase(kube, ref, "Succeeded")


async def test_refused_when_something_else_was_deployed_since_the_plan(kube: Kube) -> None:
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        operation = await rollback(kube, ref)
        await gitops.sync(kube, ref, FIRST, by="dana")
        with pytest.raises(Refused, match=f"{FIRST[:7]}.* was deployed since the plan"):
            await operation.make(kube)
        assert (await operation.undo(kube)).state == "kept"
        assert gitops.revisions(await kube.get(ref))[-1] == FIRST


async def test_a_sync_back_that_fails_is_said_and_tried_again_the_next_time(kube: Kube) -> None:
    """Git has lost the revision that was deployed, and has it back later."""
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        operation = await rollback(kube, ref)
        await operation.make(kube)
        await eventually(lambda: kube.get(ref), lambda a: gitops.revisions(a)[-1] == CANARY)
        lost = {**operation.before, "revision": "0123456789abcdef0123456789abcdef01234567"}
        broken = Rollback(ref, "run-1", to=operation.to, before=lost, prune_back=True)
        undone = await broken.undo(kube)
        assert undone.state == "failed"
        assert "unable to resolve" in undone.message
        assert (await operation.undo(kube)).state == "undone"
        assert gitops.revisions(await kube.get(ref))[-1] == NEWEST
