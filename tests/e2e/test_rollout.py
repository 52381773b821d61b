"""Updates by Argo Rollouts, aborted, undone, paused and promoted, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.experiments import write
from tests.support import gitops
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

REF = Ref("argoproj.io/v1alpha1", "Rollout", "gateway", gitops.NAMESPACE)
TARGET = {"context": "gameday-.*", "namespaces": [gitops.NAMESPACE]}
LABELS = {"app": "gateway"}


def manifest(version: str) -> Object:
    container = {"name": "gateway", "image": f"example.com/gateway:{version}"}
    return {
        "apiVersion": REF.api_version,
        "kind": "Rollout",
        "metadata": {"name": REF.name, "namespace": REF.namespace},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": LABELS},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def experiment(folder: Path, action: str, hold: str = "1s", **options: Any) -> Path:
    step = {"name": "gateway", "namespace": gitops.NAMESPACE, "action": action, **options}
    return write(folder, method=[{"rollout": step, "for": hold}], target=TARGET)


async def phase(kube: Kube, wanted: str) -> Object:
    return await eventually(lambda: kube.get(REF), lambda r: (r.get("status") or {}).get("phase") == wanted)


async def image(kube: Kube, version: str) -> None:
    containers = manifest(version)["spec"]["template"]["spec"]["containers"]
    await kube.patch(REF, {"spec": {"template": {"spec": {"containers": containers}}}}, "merge")


@pytest.fixture(autouse=True, scope="module")
async def namespace(kube: Kube) -> None:
    await gitops.ensure_namespace(kube)


@pytest.fixture
async def healthy(kube: Kube) -> AsyncIterator[None]:
    """A Rollout of version 2, which has had a version 1."""
    await kube.create(manifest("1"))
    try:
        await phase(kube, "Healthy")
        await image(kube, "2")
        await phase(kube, "Paused")
        await kube.patch(REF, {"status": {"promoteFull": True}}, "merge", subresource="status")
        await phase(kube, "Healthy")
        yield
    finally:
        await kube.delete(REF)
        await eventually(lambda: _pods(kube), lambda pods: not pods)


async def _pods(kube: Kube) -> list[Object]:
    from gameday.platform.resources import PODS

    return await kube.list(PODS, gitops.NAMESPACE, labels="app=gateway")


@pytest.fixture
async def updating(kube: Kube, healthy: None) -> None:
    """An update to version 3, half done, that waits to be promoted."""
    await image(kube, "3")
    await phase(kube, "Paused")


async def canaries(kube: Kube) -> int:
    return int((await kube.get(REF))["status"].get("updatedReplicas") or 0)


async def test_an_aborted_update_is_retried_afterwards(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "abort", hold="3s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        await eventually(lambda: canaries(kube), lambda count: count == 0)
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    await phase(kube, "Paused")
    assert await canaries(kube) == 2
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


async def test_killed_after_an_abort_and_recovered(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "abort", hold="30s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert not (await phase(kube, "Paused"))["status"].get("abort")


async def test_an_update_is_undone_and_redone(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = (await kube.get(REF))["status"]["stableRS"]
    with gameday.started(experiment(tmp_path, "undo", hold="2s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        now = await kube.get(REF)
        assert now["spec"]["template"]["spec"]["containers"][0]["image"] == "example.com/gateway:1"
        assert now["status"]["currentPodHash"] != before
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert (await phase(kube, "Healthy"))["status"]["stableRS"] == before


async def test_a_rollout_is_paused_and_resumed(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "pause", hold="2s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        assert (await phase(kube, "Paused"))["status"]["message"] == "manually paused"
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    await phase(kube, "Healthy")


@pytest.mark.parametrize("full", [False, True], ids=["one step", "full"])
async def test_a_promotion_stays(
    full: bool, updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "promote", full=full))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "irreversible" in {e["state"] for e in ended.of("audited")}
    status = (await phase(kube, "Healthy"))["status"]
    assert status["stableRS"] == status["currentPodHash"]


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("abort", {}, "has no update under way to abort (Healthy)"),
        ("promote", {}, "has no update under way to promote (Healthy)"),
        ("undo", {"revision": 9}, "has no revision 9 (there are: 1, 2)"),
        ("undo", {"revision": 2}, "revision 2 is what it runs: nothing would change"),
        ("pause", {"name": "gatewey"}, "did you mean `gateway`?"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    action: str,
    options: dict[str, Any],
    said: str,
    healthy: None,
    gameday: Program,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, action, **options))
    assert ended.code == 4, ended.output
    assert said in " ".join(ended.output.split())


async def test_a_status_is_a_part_of_its_own(healthy: None, kube: Kube) -> None:
    """As in upstream's definition: a status in a patch of the object itself is passed over."""
    await kube.patch(REF, {"status": {"abort": True}}, "merge")
    assert not (await kube.get(REF))["status"].get("abort")
