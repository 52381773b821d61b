"""Rollbacks on a real Argo CD: carried out, taken back, and honest about what could not be."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from gameday.platform.argocd import operation_state
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from tests.support.polling import eventually
from tests.support.program import Ended, Program, Running
from tests.support.snapshot import Snapshot
from tests.systems.applications import (
    CANARIES,
    FIRST,
    HEALING,
    NEWEST,
    REPLICAS,
    SERVER,
    SETTINGS,
    config_map,
    deployed,
    experiment,
    rollback,
    server,
)
from tests.systems.argocd import CONTROLLER, REPO, RealArgoCD

POLICIES: dict[str, Object | None] = {
    "prune and heal": HEALING,
    "empty automated": {"automated": {}},
    "options beside it": {"automated": {"prune": True}, "syncOptions": ["ApplyOutOfSyncOnly=true"]},
    "empty": {},
    "none": None,
    "options only": {"syncOptions": ["ApplyOutOfSyncOnly=true"]},
    "switched off": {"automated": {"enabled": False, "selfHeal": True}},
}


def changed(run: Running, operation: str, state: str) -> None:
    run.until(
        lambda e: e["type"] == "change" and (e["operation"], e["state"]) == (operation, state),
        f"{operation} {state}",
    )


async def run(gameday: Program, file: Path) -> Ended:
    return await asyncio.to_thread(gameday.run, file)


@pytest.mark.parametrize(
    ("policy", "several"),
    [(name, several) for several in (False, True) for name in POLICIES],
    ids=lambda v: v if isinstance(v, str) else ("sources" if v else "source"),
)
async def test_a_rollback_is_deployed_and_taken_back(
    policy: str,
    several: bool,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    async with deployed(kube, tmp_path, POLICIES[policy], several=several) as app:
        before = (await app.rests())["spec"].get("syncPolicy")
        with gameday.started(experiment(tmp_path, rollback(), hold="1s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            assert await app.value() == "64"
            assert await kube.find(CANARIES)
            assert _all_ready(await kube.get(SERVER), "2")
            ended = await asyncio.to_thread(running.ended)
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        first, canary, newest = app.revisions
        assert await app.deployed() == [first, canary, newest, canary, newest]
        assert await app.value() == "128"
        assert await kube.find(CANARIES) is None
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert ((await app.get())["spec"].get("syncPolicy") or {}) == (before or {})
        assert _all_ready(await kube.get(SERVER), "3")


def _all_ready(deployment: Object, version: str) -> bool:
    """Every pod is Ready and of that version, and the status is of the spec as it is now."""
    status, image = deployment["status"], deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    ready = status.get("readyReplicas") == status.get("updatedReplicas") == status["replicas"] == REPLICAS
    current = status["observedGeneration"] == deployment["metadata"]["generation"]
    return bool(ready and current and image.endswith(f":{version}"))


async def test_automated_sync_works_again_afterwards(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with deployed(kube, tmp_path, {"automated": {}}) as app:
        ended = await run(gameday, experiment(tmp_path, rollback()))
        assert ended.code == 0, ended.output
        pushed = await app.commit([config_map("settings", queue="256"), server("3")])
        await eventually(app.deployed, lambda revisions: revisions[-1] == pushed, within=60)
        assert await app.value() == "256"


async def test_what_the_older_revision_lacks_is_pruned_where_wanted(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    newest = [*NEWEST, config_map("canaries", share="1")]
    async with deployed(kube, tmp_path, HEALING, past=[FIRST, newest]) as app:
        with gameday.started(experiment(tmp_path, rollback(prune=True), hold="1s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            assert await kube.find(CANARIES) is None
            ended = await asyncio.to_thread(running.ended)
        assert ended.code == 0, ended.output
        assert (await kube.get(CANARIES))["data"] == {"share": "1"}
        assert await app.value() == "128"


@pytest.mark.parametrize("moment", ["change intended", "change made", "in"])
async def test_killed_in_a_rollback_and_recovered(
    moment: str,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    async with deployed(kube, tmp_path, HEALING) as app:
        with gameday.started(experiment(tmp_path, rollback(), hold="60s")) as running:
            if moment == "in":
                await asyncio.to_thread(running.fault_is, "in")
            else:
                await asyncio.to_thread(changed, running, "argocd-rollback", moment.split()[1])
            name = running.kill()
        ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
        assert ended.code == 0, ended.output
        after = await app.rests()
        assert (await app.deployed())[-1] == app.revisions[-1]
        assert after["spec"]["syncPolicy"] == HEALING
        assert await app.value() == "128"


async def test_git_is_away_so_nothing_is_rolled_back_and_no_later_run_is_blocked(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Without manifests nothing is applied: that is no rollback which failed halfway."""
    async with deployed(kube, tmp_path, HEALING) as app:
        argocd.stop(REPO)
        try:
            ended = await run(gameday, experiment(tmp_path, rollback(settleWithin="60s")))
        finally:
            argocd.start(REPO)
        assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert await app.deployed() == app.revisions
        assert (await app.get())["spec"]["syncPolicy"] == HEALING
        again = await run(gameday, experiment(tmp_path, rollback()))
        assert (again.code, again.verdict) == (0, "passed"), again.output


async def test_git_goes_away_during_the_rollback_and_recover_makes_good(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with deployed(kube, tmp_path, HEALING) as app:
        with gameday.started(experiment(tmp_path, rollback(settleWithin="30s"), hold="1s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            argocd.stop(REPO)
            try:
                ended = await asyncio.to_thread(running.ended)
            finally:
                argocd.start(REPO)
        assert (ended.code, ended.verdict) == (5, "not-restored"), ended.output
        name = ended.folder.name if ended.folder else ""
        again = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
        assert again.code == 0, again.output
        await app.rests()
        assert (await app.deployed())[-1] == app.revisions[-1]
        assert (await app.get())["spec"]["syncPolicy"] == HEALING
        assert await app.value() == "128"


async def test_a_rollback_that_fails_halfway_is_taken_back(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """One of two objects can't be applied any more: a Deployment's selector is immutable."""
    other = server("2")
    other["spec"]["selector"] = {"matchLabels": {"app": "server", "track": "b"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "server", "track": "b"}
    halfway = [config_map("settings", queue="64"), other]
    async with deployed(kube, tmp_path, past=[halfway]) as app:
        await kube.delete(SERVER)
        app.revisions.append(await app.commit(NEWEST))
        await app.deploy()
        await kube.patch(app.ref, {"spec": {"syncPolicy": HEALING}}, "merge")
        ended = await run(gameday, experiment(tmp_path, rollback()))
        assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
        text = " ".join(ended.output.split())
        assert "the rollback ended in Failed" in text
        assert "immutable" in text
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert (await app.deployed())[-1] == app.revisions[-1]
        assert await app.value() == "128"


async def test_a_rollback_that_nobody_takes_up_leaves_no_trace(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Without its last operation Argo CD would take any drift for new, and sync it without self-heal."""
    async with deployed(kube, tmp_path, {"automated": {}}) as app:
        before = operation_state(await app.rests())
        argocd.stop(CONTROLLER)
        try:
            with gameday.started(experiment(tmp_path, rollback())) as running:
                await asyncio.to_thread(changed, running, "argocd-rollback", "made")
                running.signal(signal.SIGTERM)
                ended = await asyncio.to_thread(running.ended)
            after = await app.get()
        finally:
            argocd.start(CONTROLLER)
        assert ended.code == 130, ended.output
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert "operation" not in after
        assert operation_state(after) == before
        await kube.patch(SETTINGS, {"data": {"queue": "7"}}, "merge")
        await eventually(app.get, lambda a: a["status"]["sync"]["status"] == "OutOfSync", within=60)
        assert await app.value() == "7"
