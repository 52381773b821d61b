"""The tests of Argo Rollouts' faults on a real controller, and what needs one that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.faults.rollout import HASH, REPLICA_SETS, REVISION
from gameday.ledger.edits import Edit
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.rollout import SERVING, WHICH, ChangeVersion
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.test_rollout import *  # noqa: F403 - the same tests, on the real thing
from tests.e2e.test_rollout import LABELS, REF, _pods, experiment, image, manifest, phase, reached
from tests.support.ledgers import unguarded
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot
from tests.systems.rollouts import RealRollouts

ACTIVE = Ref("v1", "Service", "gateway-active", REF.namespace)
PREVIEW = Ref("v1", "Service", "gateway-preview", REF.namespace)


@pytest.fixture(autouse=True)
def _real(rollouts: RealRollouts) -> None:
    """Each of these tests is about the real controller."""


async def test_a_pause_that_nobody_has_seen_is_not_in(
    updating: None,
    rollouts: RealRollouts,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """An update that waits at a step is Paused already: that phase is no evidence of this pause."""
    rollouts.stop()
    try:
        ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "pause", settleWithin="3s"))
    finally:
        rollouts.start()
    states = [e["state"] for e in ended.of("fault")]
    assert states[0] == "injecting", ended.output
    assert "in" not in states, ended.output
    assert not (await phase(kube, "Paused"))["spec"].get("paused")


async def test_an_update_that_waits_is_paused_and_waits_again(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "pause"))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    status = (await phase(kube, "Paused"))["status"]
    assert status["message"] == "CanaryPauseStep"
    assert not status.get("abort")


async def test_killed_in_an_undo_and_recovered(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = (await phase(kube, "Healthy"))["status"]["stableRS"]
    with gameday.started(experiment(tmp_path, "undo", hold="60s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert (await phase(kube, "Healthy"))["status"]["stableRS"] == before


def blue_green(version: str, **options: Any) -> Object:
    """The Rollout of these tests, whose versions wait behind a preview Service until they are promoted."""
    rollout = manifest(version)
    services = {"activeService": ACTIVE.name, "previewService": PREVIEW.name}
    rollout["spec"] |= {"replicas": 1, "strategy": {"blueGreen": services | options}}
    return rollout


@asynccontextmanager
async def two_versions(kube: Kube, **options: Any) -> AsyncIterator[None]:
    """A blue-green Rollout of version 1, and an update to version 2."""
    for ref in (ACTIVE, PREVIEW):
        spec = {"selector": LABELS, "ports": [{"port": 80}]}
        meta = {"name": ref.name, "namespace": ref.namespace}
        await kube.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    await kube.create(blue_green("1", **options))
    try:
        await reached(kube, "Healthy")
        await image(kube, "2")
        yield
    finally:
        for ref in (REF, ACTIVE, PREVIEW):
            await kube.delete(ref)
        await eventually(lambda: _pods(kube), lambda pods: not pods)


async def served(kube: Kube) -> tuple[str, str]:
    """The version that gets requests: the stable one, and what the active Service selects."""
    selector = (await kube.get(ACTIVE))["spec"]["selector"]
    return (await kube.get(REF))["status"]["stableRS"], selector[HASH]


async def test_a_blue_green_update_that_waits_for_a_person_stays_unpromoted(
    rollouts: RealRollouts, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """What is left comes back without its pause: so nothing leaves it, and the error says why."""
    async with two_versions(kube, autoPromotionEnabled=False):
        await reached(kube, "Paused")
        before = await served(kube)
        for action in ("abort", "undo"):
            ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, action))
            assert ended.code == 4, ended.output
            assert f"end of this {action} would promote it" in " ".join(ended.output.split())
        assert await served(kube) == before
        # Made and undone all the same: no audit calls that restored.
        await ensure_namespace(kube)
        ledger = unguarded(kube, "turn-test", tmp_path, {}, lambda _: None)
        edit, follows = Edit(("status", "abort"), True), (WHICH[0], *SERVING)
        change = await ChangeVersion.of(kube, REF, edit, subresource="status", follows=follows)
        assert change is not None
        await ledger.step("1").perform([change])
        await reached(kube, "Degraded")
        await ledger.undo("1")
        await reached(kube, "Healthy")
        assert await served(kube) != before
        (audited,) = await ledger.audit()
        assert audited.state == "left"
        assert "not the version that served before: status.stableRS is" in audited.message
        await ledger.close(restored=True)
        # Promoted as it is now, an older version would wait behind the preview Service.
        ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "undo"))
        assert ended.code == 4, ended.output
        assert "switches to no version without a person" in " ".join(ended.output.split())


async def test_an_undo_of_a_blue_green_update_is_in_when_requests_go_to_the_older_version(
    rollouts: RealRollouts, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    async with two_versions(kube, scaleDownDelaySeconds=1):
        first = (await replica_set_of(kube, "1"))["metadata"]["labels"][HASH]
        newer = await eventually(lambda: served(kube), lambda s: first not in s, within=60)
        await eventually(lambda: replica_set_of(kube, "1"), lambda s: not s["spec"]["replicas"], within=60)
        await reached(kube, "Healthy")
        with gameday.started(experiment(tmp_path, "undo")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            assert set(await served(kube)) == {first}
            ended = await asyncio.to_thread(running.ended)
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        assert await served(kube) == newer


async def replica_set_of(kube: Kube, revision: str) -> Object:
    sets = await kube.list(REPLICA_SETS, REF.namespace, labels="app=gateway")
    (found,) = (s for s in sets if s["metadata"]["annotations"][REVISION] == revision)
    return found


async def test_an_abort_that_sends_an_update_back_over_a_pause_says_so(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    await kube.patch(REF, {"spec": {"strategy": {"canary": {"steps": steps}}}}, "merge")
    await image(kube, "3")
    await reached(kube, "Paused")
    await kube.patch(
        REF, {"status": {"currentStepIndex": 2, "pauseConditions": None}}, "merge", subresource="status"
    )
    await eventually(lambda: kube.get(REF), lambda r: r["status"].get("currentStepIndex") == 3, within=60)
    await reached(kube, "Paused")
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "abort"))
    assert ended.code == 0, ended.output
    assert "has passed a pause (steps done: 3 of 4)" in " ".join(ended.output.split())
    (audited,) = ended.of("audited")
    assert audited["state"] == "irreversible", ended.output
    assert "1 rollout was set back to its first step" in ended.output
