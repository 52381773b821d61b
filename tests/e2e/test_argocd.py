"""Rollbacks and drift under Argo CD: carried out, taken back, left alone where somebody else was at work."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.world import World
from gameday.probes.argocd import ArgoCD, ArgoCDSpec
from tests.e2e.experiments import write
from tests.support import gitops
from tests.support.gitops import CANARIES, CANARY, FIRST, HEALING, NEWEST, SETTINGS
from tests.support.polling import eventually
from tests.support.program import Ended, Program, Running
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("a real Argo CD is in tests/systems")

TARGET = {"context": "gameday-.*", "namespaces": [gitops.NAMESPACE, "inference", "argocd"]}
INFERENCE = Ref("argoproj.io/v1alpha1", "Application", "inference", "argocd")
PARENT = Ref("argoproj.io/v1alpha1", "Application", "gpu-platform", "argocd")


def experiment(folder: Path, step: dict[str, Any], hold: str = "1s", **spec: Any) -> Path:
    return write(folder, method=[{"argocd": step, "for": hold}], target=TARGET, **spec)


def rollback(**options: Any) -> dict[str, Any]:
    return {"rollback": {"application": "settings", **options}}


@pytest.fixture(autouse=True, scope="module")
async def namespace(kube: Kube) -> None:
    await gitops.ensure_namespace(kube)


@pytest.fixture
async def settings(kube: Kube) -> AsyncIterator[Ref]:
    """An Application of the test's, healing itself, whose syncs take two seconds."""
    async with gitops.deployed(kube, gitops.application("settings", policy=HEALING, seconds=2)) as ref:
        yield ref


async def value(kube: Kube) -> str:
    return str((await kube.get(SETTINGS))["data"]["queue"])


async def run(gameday: Program, file: Path) -> Ended:
    return await asyncio.to_thread(gameday.run, file)


def changed(run: Running, operation: str, state: str) -> None:
    run.until(
        lambda e: e["type"] == "change" and (e["operation"], e["state"]) == (operation, state),
        f"{operation} {state}",
    )


async def test_a_rollback_is_deployed_and_taken_back(
    settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Previous is the one with canary settings: created by the rollback, pruned when it is taken back."""
    with gameday.started(experiment(tmp_path, rollback(), hold="4s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        assert await value(kube) == "64"
        assert await kube.find(CANARIES)
        assert "automated" not in (await kube.get(settings))["spec"].get("syncPolicy", {})
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert gitops.revisions(await kube.get(settings)) == [FIRST, CANARY, NEWEST, CANARY, NEWEST]
    assert await kube.find(CANARIES) is None
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


@pytest.mark.parametrize("to", [0, FIRST[:8]], ids=["id", "revision"])
async def test_a_deployment_is_named_by_its_id_or_its_revision(
    to: Any, settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await run(gameday, experiment(tmp_path, rollback(to=to)))
    assert ended.code == 0, ended.output
    assert gitops.revisions(await kube.get(settings))[-2:] == [FIRST, NEWEST]


async def test_an_application_of_several_sources_is_rolled_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    manifest = gitops.application("settings", policy=HEALING, sources=[gitops.SOURCE])
    async with gitops.deployed(kube, manifest) as ref:
        ended = await run(gameday, experiment(tmp_path, rollback()))
        assert ended.code == 0, ended.output
        assert gitops.revisions(await kube.get(ref))[-2:] == [CANARY, NEWEST]


async def test_automated_sync_without_options_is_paused_too(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """`automated: {}` is in force, though an empty field mostly is as good as none."""
    manifest = gitops.application("settings", policy={})
    async with gitops.deployed(kube, manifest) as ref:
        with gameday.started(experiment(tmp_path, rollback(), hold="2s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            assert "syncPolicy" not in (await kube.get(ref))["spec"]
            ended = await asyncio.to_thread(running.ended)
        assert ended.code == 0, ended.output
        assert (await kube.get(ref))["spec"]["syncPolicy"] == {"automated": {}}


async def test_no_empty_policy_stands_while_automated_sync_is_paused(
    settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Argo CD removes one in whatever version it is by then: with it would go what was put back meanwhile."""
    version = (await kube.get(settings))["metadata"]["resourceVersion"]
    ended = await run(gameday, experiment(tmp_path, rollback()))
    assert ended.code == 0, ended.output
    policies: list[Any] = []
    applications = await kube.resource(settings.api_version, settings.kind)
    named = {"metadata.name": settings.name}
    async with aclosing(kube.watch(applications, settings.namespace, fields=named, version=version)) as seen:
        async for _, application in seen:
            policies.append(application["spec"].get("syncPolicy"))
            if policies[-1] and None in policies:
                break
    assert {} not in policies
    assert policies[-1] == {"automated": HEALING}


async def test_an_abort_in_the_middle_of_a_rollback_ends_it_and_restores(
    settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, rollback(), hold="30s")) as running:
        await asyncio.to_thread(changed, running, "argocd-rollback", "made")
        running.signal(signal.SIGTERM)
        ended = await asyncio.to_thread(running.ended)
    assert ended.code == 130, ended.output
    assert await value(kube) == "128"
    assert gitops.revisions(await kube.get(settings))[-1] == NEWEST
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


@pytest.mark.parametrize("moment", ["change intended", "change made", "in"])
async def test_killed_in_a_rollback_and_recovered(
    moment: str, settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, rollback(), hold="30s")) as running:
        if moment == "in":
            await asyncio.to_thread(running.fault_is, "in")
        else:
            await asyncio.to_thread(changed, running, "argocd-rollback", moment.split()[1])
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert gitops.revisions(await kube.get(settings))[-1] == NEWEST
    assert (await kube.get(settings))["spec"]["syncPolicy"] == {"automated": HEALING}
    assert await value(kube) == "128"


async def test_what_somebody_else_deploys_meanwhile_is_left(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        with gameday.started(experiment(tmp_path, rollback(), hold="6s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            await gitops.sync(kube, ref, FIRST, by="dana")
            ended = await asyncio.to_thread(running.ended)
        assert f"dana deployed {FIRST[:7]} meanwhile" in ended.output
        assert "kept" in {e["state"] for e in ended.of("audited")}
        assert gitops.revisions(await kube.get(ref))[-2:] == [CANARY, FIRST]
        assert await value(kube) == "32"


async def test_an_operation_that_is_in_progress_is_not_disturbed(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        # It ends only when the test says so.
        await kube.patch(
            ref, {"metadata": {"annotations": {"sandbox.gameday.dev/sync-seconds": "600"}}}, "merge"
        )
        operation = {"sync": {"revision": FIRST}, "initiatedBy": {"username": "dana"}}
        await kube.patch(ref, {"operation": operation}, "merge")
        await eventually(lambda: kube.get(ref), lambda a: a["status"]["operationState"]["phase"] == "Running")
        ended = await run(gameday, experiment(tmp_path, rollback()))
        assert ended.code == 4, ended.output
        assert "an operation is in progress" in ended.output
        await kube.patch(
            ref, {"metadata": {"annotations": {"sandbox.gameday.dev/sync-seconds": "0"}}}, "merge"
        )
        await eventually(lambda: kube.get(ref), lambda a: not a.get("operation"))


async def test_a_rollback_that_fails_says_why_and_is_taken_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The history knows a revision that git has forgotten, as after a force-push."""
    manifest = gitops.application("settings", policy=HEALING)
    manifest["status"]["history"][1]["revision"] = gone = "0123456789abcdef0123456789abcdef01234567"
    async with gitops.deployed(kube, manifest) as ref:
        ended = await run(gameday, experiment(tmp_path, rollback()))
        assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
        text = " ".join(ended.output.split())
        assert "ended in Error: manifest generation: ComparisonError: Failed to load target state" in text
        assert gone in text
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert gitops.revisions(await kube.get(ref))[-1] == NEWEST


async def test_a_rollback_that_nobody_takes_up_is_taken_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Argo CD looks after its own namespace only, as without --application-namespaces."""
    manifest = gitops.application("settings")
    manifest["metadata"]["namespace"] = gitops.NAMESPACE
    listed = {"version": "v1", "kind": "ConfigMap", "namespace": gitops.NAMESPACE, "name": "settings"}
    manifest["status"]["resources"] = [listed | {"status": "OutOfSync"}]
    ref = Ref.of(await kube.create(manifest))
    try:
        file = experiment(tmp_path, rollback(namespace=gitops.NAMESPACE))
        with gameday.started(file) as running:
            await asyncio.to_thread(changed, running, "argocd-rollback", "made")
            running.signal(signal.SIGTERM)
            ended = await asyncio.to_thread(running.ended)
        assert ended.code == 130, ended.output
        assert "operation" not in await kube.get(ref)
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
    finally:
        await kube.delete(ref)


async def test_what_an_application_does_not_list_is_not_nothing(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It would be rolled back with no pods and no objects counted. (Here nobody compares it.)"""
    manifest = gitops.application("settings")
    manifest["metadata"]["namespace"] = gitops.NAMESPACE
    ref = Ref.of(await kube.create(manifest))
    try:
        file = experiment(tmp_path, rollback(namespace=gitops.NAMESPACE))
        ended = await asyncio.to_thread(gameday, "plan", file)
        assert ended.code == 4, ended.output
        assert f"{ref} lists no object of its own (status.resources)" in " ".join(ended.output.split())
    finally:
        await kube.delete(ref)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (rollback(application="setings"), "did you mean `settings`?"),
        (rollback(namespace="platform"), "it is in namespace argocd"),
        (rollback(application="cluster-settings"), "has no history"),
        (rollback(to=7), "there are: 2 ("),
        (rollback(to="5c3b9d2e7f1a4068c5d3e2b19b2d7c4e1f8aXXXX"), f"did you mean `{CANARY}`?"),
        (rollback(to=2), "nothing would change"),
        ({"rollback": {"application": "gpu-platform"}}, "has no history"),
        (
            {
                "drift": {
                    "resource": "configmap/nobodys",
                    "namespace": gitops.NAMESPACE,
                    "path": "data.a",
                    "value": "1",
                }
            },
            "there is no ConfigMap gitops/nobodys",
        ),
        (
            {
                "drift": {
                    "resource": "deployment/inference",
                    "namespace": "inference",
                    "path": "spec..x",
                    "value": 1,
                }
            },
            "is not a path to a field",
        ),
        (
            {
                "drift": {
                    "resource": "secret/x",
                    "namespace": gitops.NAMESPACE,
                    "path": "data.a",
                    "value": "1",
                }
            },
            "is a Secret, whose value would have to be written down",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_with_what_there_is(
    step: dict[str, Any],
    said: str,
    settings: Ref,
    gameday: Program,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    ended = await run(gameday, experiment(tmp_path, step))
    assert ended.code == 4, ended.output
    assert said in " ".join(ended.output.split())


async def test_an_application_that_another_one_would_restore_is_refused(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await kube.patch(PARENT, {"spec": {"syncPolicy": {"automated": {"selfHeal": True}}}}, "merge")
    try:
        step = {"rollback": {"application": "inference"}}
        file = experiment(tmp_path, step, blastRadius={"pods": 12, "gpus": 12})
        ended = await run(gameday, file)
        assert ended.code == 4, ended.output
        assert "gpu-platform, whose self-heal would switch automated sync on again" in ended.output
    finally:
        await kube.patch(PARENT, {"spec": {"syncPolicy": None}}, "merge")


ELSEWHERE = [{"server": "https://198.18.9.9:6443"}, {"name": "prod-eu"}]


@pytest.mark.parametrize("place", ELSEWHERE, ids=["by server", "by name"])
async def test_an_application_of_another_cluster_is_refused(
    place: dict[str, str], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Neither what it would change nor its pods can be seen here; an object of that name here is not its."""
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        destination = {"server": None, "namespace": gitops.NAMESPACE, **place}
        await kube.patch(ref, {"spec": {"destination": destination}}, "merge")
        try:
            for step, said in (
                (rollback(), "deploys to another cluster"),
                (drift(), "to another cluster by"),
            ):
                ended = await asyncio.to_thread(gameday, "plan", experiment(tmp_path, step))
                assert ended.code == 4, ended.output
                text = " ".join(ended.output.split())
                assert said in text
                assert next(iter(place.values())) in text
        finally:
            back = {"name": None, **gitops.DESTINATION}
            await kube.patch(ref, {"spec": {"destination": back}}, "merge")


@pytest.mark.parametrize("place", ELSEWHERE, ids=["by server", "by name"])
async def test_an_application_of_another_cluster_fights_no_fault_here(
    place: dict[str, str], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = (await kube.get(INFERENCE))["spec"]["destination"]
    await kube.patch(INFERENCE, {"spec": {"destination": {"server": None, **place}}}, "merge")
    try:
        scale = {"workload": "deployment/inference", "namespace": "inference", "replicas": 10}
        file = write(tmp_path, method=[{"scale": scale}], blastRadius={"pods": 4, "gpus": 4})
        ended = await asyncio.to_thread(gameday, "plan", file)
        assert ended.code == 0, ended.output
        assert "argocd/inference deploys" not in " ".join(ended.output.split())
    finally:
        await kube.patch(INFERENCE, {"spec": {"destination": {"name": None, **before}}}, "merge")


@pytest.mark.parametrize("ignores", [False, True], ids=["writes all", "ignores the policy"])
async def test_an_application_that_a_set_would_restore_is_refused(
    ignores: bool, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Unless the set leaves the policy of its Applications alone (ignoreApplicationDifferences)."""
    ignored = [{"jsonPointers": ["/spec/syncPolicy"]}] if ignores else []
    async with gitops.application_set(kube, ignoreApplicationDifferences=ignored) as made:
        manifest = gitops.made_by(made, gitops.application("settings", policy=HEALING))
        async with gitops.deployed(kube, manifest):
            ended = await asyncio.to_thread(gameday, "plan", experiment(tmp_path, rollback()))
            text = " ".join(ended.output.split())
            assert ended.code == (0 if ignores else 4), ended.output
            assert ("is made by ApplicationSet argocd/clusters, which would" in text) != ignores
            asked = ArgoCDSpec.model_validate({"applicationSet": "clusters", "read": "sync"})
            found = await ArgoCD().measure(asked, World(kube))
            assert found.series == (("Application argocd/settings", "Synced"),)


def drift() -> dict[str, Any]:
    where = {"resource": "configmap/cluster-settings", "namespace": gitops.NAMESPACE}
    return {"drift": {**where, "path": "data.queue", "value": "1"}}


def evidence(ended: Ended) -> str:
    return "; ".join(e for f in ended.of("fault") if f["state"] == "out" for e in f["evidence"])


async def test_drift_is_timed_until_it_is_corrected(
    settings: Ref, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await run(gameday, experiment(tmp_path, drift(), hold="60s"))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "noticed the drift of data.queue after" in evidence(ended)
    assert "corrected the drift of data.queue after" in evidence(ended)
    assert await value(kube) == "128"


async def test_drift_that_nobody_corrects_is_said_and_undone(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with gitops.deployed(kube, gitops.application("settings")):
        ended = await run(gameday, experiment(tmp_path, drift(), hold="3s"))
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        assert "noticed the drift of data.queue after" in evidence(ended)
        assert "did not correct the drift of data.queue within" in evidence(ended)
        assert await value(kube) == "128"


@pytest.mark.parametrize("step", [drift(), rollback()], ids=["drift", "rollback"])
async def test_the_api_server_goes_away_while_it_is_in(
    step: dict[str, Any],
    gameday: Program,
    api_proxy: ApiProxy,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    gameday.environment["KUBECONFIG"] = str(api_proxy.kubeconfig)
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        with gameday.started(experiment(tmp_path, step, hold="3s")) as running:
            await asyncio.to_thread(running.fault_is, "in")
            api_proxy.cut()
            await asyncio.to_thread(running.fault_is, "undoing")
            api_proxy.restore()
            ended = await asyncio.to_thread(running.ended)
        assert ended.code == 0, ended.output
        assert {e["state"] for e in ended.of("audited")} == {"restored"}
        assert gitops.revisions(await kube.get(ref))[-1] == NEWEST
        assert await value(kube) == "128"


async def test_self_heal_that_will_fight_a_fault_is_told_before(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    scale = {"workload": "deployment/inference", "namespace": "inference", "replicas": 10}
    file = write(tmp_path, method=[{"scale": scale}], blastRadius={"pods": 4, "gpus": 4})
    ended = await asyncio.to_thread(gameday, "plan", file)
    assert ended.code == 0, ended.output
    text = " ".join(ended.output.split())
    assert "Application argocd/inference deploys Deployment inference/inference with self-heal" in text


async def test_pods_of_an_application_are_named_with_it(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    kill = {"selector": "app=inference", "namespace": "inference", "pick": 2}
    ended = await asyncio.to_thread(gameday, "plan", write(tmp_path, method=[{"podKill": kill}]))
    assert ended.code == 0, ended.output
    text = " ".join(ended.output.split())
    assert "deploys Deployment inference/inference; it does not put back what happens to its pods" in text
