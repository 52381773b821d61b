"""Drift under a real Argo CD, Applications that others write, and what the probes read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.argocd import operation_state
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.world import World
from gameday.probes.argocd import ArgoCD, ArgoCDSpec
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot
from tests.systems.applications import (
    HEALING,
    SETTINGS,
    Deployed,
    deployed,
    drift,
    experiment,
    manifest,
    rollback,
)
from tests.systems.argocd import REPO, RealArgoCD
from tests.systems.git import Repository

TIMED = re.compile(r"(noticed|corrected) the drift of data\.queue after ([0-9.]+) s")


async def run(gameday: Program, file: Path) -> Ended:
    return await asyncio.to_thread(gameday.run, file)


def evidence(ended: Ended) -> str:
    return "; ".join(e for f in ended.of("fault") if f["state"] == "out" for e in f["evidence"])


async def test_drift_is_timed_until_self_heal_corrects_it(
    argocd: RealArgoCD, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with deployed(kube, tmp_path, HEALING) as app:
        ended = await run(gameday, experiment(tmp_path, drift(), hold="60s"))
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        took = {what: float(seconds) for what, seconds in TIMED.findall(evidence(ended))}
        assert 0 < took["noticed"] <= took["corrected"] < 30, took
        assert await app.value() == "128"
        assert await app.deployed() == app.revisions  # a sync that heals is no deployment


@pytest.mark.parametrize("policy", [None, {"automated": {"prune": True}}], ids=["none", "no self-heal"])
async def test_drift_that_nobody_corrects_is_noticed_and_undone(
    policy: Object | None,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    async with deployed(kube, tmp_path, policy) as app:
        ended = await run(gameday, experiment(tmp_path, drift(), hold="5s"))
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        assert "noticed the drift of data.queue after" in evidence(ended)
        assert "did not correct the drift of data.queue within" in evidence(ended)
        assert await app.value() == "128"


@pytest.mark.parametrize("policy", [HEALING, None], ids=["self-heal", "none"])
async def test_killed_in_a_drift_and_recovered(
    policy: Object | None,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    async with deployed(kube, tmp_path, policy) as app:
        with gameday.started(experiment(tmp_path, drift(), hold="60s")) as running:
            await asyncio.to_thread(running.fault_is, "in" if policy is None else "injecting")
            name = running.kill()
        ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
        assert ended.code == 0, ended.output
        await app.rests()
        assert await app.value() == "128"


@asynccontextmanager
async def parent(kube: Kube, folder: Path, policy: Object | None, child: Object) -> AsyncIterator[Ref]:
    """An Application that deploys another one; the child is left to the caller to delete."""
    repository = Repository(folder / "parents")
    await asyncio.to_thread(repository.commit, app=[child])
    app = manifest("apps", repository)
    app["spec"] |= {"syncPolicy": policy} if policy else {}
    app["spec"]["destination"] = app["spec"]["destination"] | {"namespace": "argocd"}
    ref = Ref.of(await kube.create(app))
    try:
        operation = {"sync": {}, "initiatedBy": {"username": "setup"}}
        await eventually(lambda: kube.get(ref), lambda a: bool(a.get("status")), within=60)
        if not policy:
            await kube.patch(ref, {"operation": operation}, "merge")
        await eventually(lambda: kube.get(ref), lambda a: operation_state(a).get("phase") == "Succeeded")
        yield ref
    finally:
        await kube.delete(ref)
        await eventually(lambda: kube.find(ref), lambda found: found is None, within=60)


@pytest.mark.parametrize("heals", [True, False], ids=["self-heal", "none"])
async def test_an_application_that_another_one_deploys(
    heals: bool,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """A parent with self-heal would switch the automated sync on again; one without shows a difference."""
    repository = Repository(tmp_path / "repository")
    child = manifest("settings", repository, syncPolicy=HEALING)
    async with (
        deployed(kube, tmp_path, HEALING, repository=repository) as app,
        parent(kube, tmp_path, HEALING if heals else None, child) as ref,
    ):
        await eventually(lambda: kube.get(ref), _synced)
        ended = await run(gameday, experiment(tmp_path, rollback()))
        text = " ".join(ended.output.split())
        if heals:
            assert ended.code == 4, ended.output
            assert "apps, whose self-heal would switch automated sync on again" in text
        else:
            assert (ended.code, ended.verdict) == (0, "passed"), ended.output
            assert "Application argocd/apps deploys Application argocd/settings, and shows it" in text
        family = await measured(kube, application="apps", read="sync", children=True)
        assert {name for name, _ in family} == {"Application argocd/apps", "Application argocd/settings"}
        assert await app.value() == "128"


def _synced(application: Object) -> bool:
    return bool(application["status"]["sync"]["status"] == "Synced")


async def measured(kube: Kube, **spec: Any) -> tuple[tuple[str, Any], ...]:
    asked = ArgoCDSpec.model_validate(spec)
    return tuple((await ArgoCD().measure(asked, World(kube))).series)


@asynccontextmanager
async def application_set(kube: Kube, app: Object, **spec: Any) -> AsyncIterator[Ref]:
    """A set that makes that one Application, from a list; what it makes is deleted by the caller."""
    template = {"metadata": {"name": "{{name}}"}, "spec": app["spec"]}
    ref = Ref.of(
        await kube.create(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "ApplicationSet",
                "metadata": {"name": "clusters", "namespace": "argocd"},
                "spec": {
                    "generators": [{"list": {"elements": [{"name": "settings"}]}}],
                    "template": template,
                    "syncPolicy": {"preserveResourcesOnDeletion": True},
                    **spec,
                },
            }
        )
    )
    try:
        yield ref
    finally:
        await kube.delete(ref)


@pytest.mark.parametrize("ignores", [False, True], ids=["as it comes", "with the advice followed"])
async def test_an_application_that_a_set_makes(
    ignores: bool,
    argocd: RealArgoCD,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    """The set would switch automated sync on again; the advice of the refusal is followed, and it holds."""
    repository = Repository(tmp_path / "repository")
    ignored: list[Object] = [{"jsonPointers": ["/spec/syncPolicy"]}] if ignores else []
    policy = {"automated": {"prune": True}}
    app = manifest("settings", repository, syncPolicy=policy)
    async with (
        application_set(kube, app, ignoreApplicationDifferences=ignored) as ref,
        deployed(kube, tmp_path, repository=repository, made_by=ref) as made,
    ):
        ended = await run(gameday, experiment(tmp_path, rollback(), hold="3s"))
        text = " ".join(ended.output.split())
        if ignores:
            assert (ended.code, ended.verdict) == (0, "passed"), ended.output
            assert (await made.get())["spec"]["syncPolicy"] == policy
        else:
            assert ended.code == 4, ended.output
            assert "add /spec/syncPolicy to its spec.ignoreApplicationDifferences" in text
        found = await measured(kube, applicationSet="clusters", read="sync")
        assert found == (("Application argocd/settings", "Synced"),)


async def test_probes_read_what_argo_cd_says(
    argocd: RealArgoCD, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with deployed(kube, tmp_path) as app:
        await app.rests()
        assert await one(kube, "health") == "Healthy"
        assert await one(kube, "sync") == "Synced"
        assert await one(kube, "revision") == app.revisions[-1]
        assert await one(kube, "phase") == "Succeeded"
        assert 0 <= float(await one(kube, "sinceReconcile")) < 60
        await kube.patch(SETTINGS, {"data": {"queue": "1"}}, "merge")
        await eventually(lambda: one(kube, "sync"), lambda state: state == "OutOfSync")
        await git_away(argocd, app, kube)


async def git_away(argocd: RealArgoCD, app: Deployed, kube: Kube) -> None:
    """The comparison fails: `sync` is Unknown, and the message names who is to be called."""
    argocd.stop(REPO)
    try:
        hard = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "hard"}}}
        await kube.patch(app.ref, hard, "merge")
        await eventually(lambda: one(kube, "sync"), lambda state: state == "Unknown", within=60)
        asked = ArgoCDSpec.model_validate({"application": "settings", "read": "sync"})
        message = (await ArgoCD().measure(asked, World(kube))).message
        assert "dependency: ComparisonError" in message
    finally:
        argocd.start(REPO)
    await app.sync()


async def one(kube: Kube, what: str) -> Any:
    ((_, value),) = await measured(kube, application="settings", read=what)
    return value
