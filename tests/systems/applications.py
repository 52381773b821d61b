"""Applications with a past, deployed by a real Argo CD from a git repository of the test's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gameday.platform.argocd import automated, history, operation_state, revision_of, status_of
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from gameday.sandbox.manifests import read
from tests.e2e import experiments
from tests.support.polling import eventually
from tests.systems.git import Repository
from tests.systems.install import install

NAMESPACE = "gitops"
HEALING = {"automated": {"prune": True, "selfHeal": True}}
SETTINGS = Ref("v1", "ConfigMap", "settings", NAMESPACE)
CANARIES = Ref("v1", "ConfigMap", "canaries", NAMESPACE)
SERVER = Ref("apps/v1", "Deployment", "server", NAMESPACE)
REPLICAS = 3


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def server(version: str) -> Object:
    """Its pods take a second until they are Ready."""
    labels = {"app": "server"}
    pod = {"containers": [{"name": "server", "image": f"example.com/server:{version}"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"sandbox.gameday.dev/start-seconds": "1"}},
                "spec": {**pod, "terminationGracePeriodSeconds": 1},
            },
        },
    }


# What was deployed, oldest first: the one before the last has one object more.
FIRST = [config_map("settings", queue="32"), server("1")]
CANARY = [config_map("settings", queue="64"), config_map("canaries", share="8"), server("2")]
NEWEST = [config_map("settings", queue="128"), server("3")]
PAST = (FIRST, CANARY, NEWEST)


@dataclass
class Deployed:
    """An Application, its repository, and the revisions that were deployed, oldest first."""

    kube: Kube
    ref: Ref
    repository: Repository
    revisions: list[str]

    async def get(self) -> Object:
        return await self.kube.get(self.ref)

    async def deployed(self) -> list[str]:
        """The history's revisions, oldest first."""
        return [revision_of(entry) for entry in history(await self.get())]

    async def commit(self, objects: Sequence[Object]) -> str:
        return await asyncio.to_thread(self.repository.commit, app=list(objects))

    async def deploy(self) -> None:
        """Have the branch deployed: by automated sync where that is on, else as a person does."""
        if automated(await self.get()) is None:
            await self.sync()
        else:
            newest = self.revisions[-1]
            await eventually(self.deployed, lambda r: bool(r) and r[-1] == newest, within=60)
            await self.rests()

    async def sync(self, revision: str = "", *, by: str = "setup") -> None:
        """Deploy a revision, or what the branch holds, as a person does, and wait for its end."""
        named = {"revision": revision} if revision else {}
        operation = {"sync": {**named, "prune": True}, "initiatedBy": {"username": by}}
        await self.kube.patch(self.ref, {"operation": operation}, "merge")
        await self.rests(by=by)

    async def rests(self, *, by: str = "") -> Object:
        """The Application once nothing is under way, and its objects are well."""
        return await eventually(self.get, lambda a: _rests(a, by), within=60)

    async def value(self) -> str:
        return str((await self.kube.get(SETTINGS))["data"]["queue"])


def _rests(application: Object, by: str) -> bool:
    state, status = operation_state(application), status_of(application)
    who = (state.get("operation") or {}).get("initiatedBy", {}).get("username", "")
    ended = not application.get("operation") and state.get("phase") == "Succeeded"
    well = (status.get("health") or {}).get("status") == "Healthy"
    return ended and well and status["sync"]["status"] == "Synced" and who in (by or who,)


def manifest(name: str, repository: Repository, *, several: bool = False, **spec: Any) -> Object:
    source = {"repoURL": repository.url, "path": "app", "targetRevision": "main"}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "project": "default",
            **({"sources": [source]} if several else {"source": source}),
            "destination": {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE},
            **spec,
        },
    }


@asynccontextmanager
async def deployed(
    kube: Kube,
    folder: Path,
    policy: Object | None = None,
    *,
    past: Sequence[Sequence[Object]] = PAST,
    several: bool = False,
    repository: Repository | None = None,
    made_by: Ref | None = None,
) -> AsyncIterator[Deployed]:
    """The Application `settings`, synced thrice; afterwards it and what it deployed are deleted.

    Its policy comes last, so that no automated sync is among them.
    """
    repository = repository or Repository(folder / "repository")
    first = await asyncio.to_thread(repository.commit, app=list(past[0]))
    ref = Ref("argoproj.io/v1alpha1", "Application", "settings", "argocd")
    app = Deployed(kube, ref, repository, [first])
    try:
        if made_by is None:
            app.ref = Ref.of(await kube.create(manifest("settings", repository, several=several)))
        await eventually(lambda: kube.find(ref), lambda found: bool((found or {}).get("status")), within=60)
        await app.deploy()
        for objects in past[1:]:
            app.revisions.append(await app.commit(objects))
            await app.deploy()
        assert await app.deployed() == app.revisions
        if policy is not None:
            await kube.patch(ref, {"spec": {"syncPolicy": policy}}, "merge")
        yield app
    finally:
        # A set would make its Application anew.
        await removed(kube, *([made_by] if made_by else []), ref)


async def removed(kube: Kube, *applications: Ref) -> None:
    """Applications, and then what they deployed: a sync that was under way may bring some of it back."""
    gone = lambda found: not found  # noqa: E731
    for ref in applications:
        await kube.delete(ref)
        await eventually(lambda ref=ref: kube.find(ref), gone, within=60)  # type: ignore[misc]
    await eventually(lambda: _left(kube), gone, within=60, every=1.0)


async def _left(kube: Kube) -> list[Object]:
    """What is there still of the namespace's objects, which are deleted once more."""
    found = [await kube.find(each) for each in (SETTINGS, CANARIES, SERVER)]
    for obj in filter(None, found):
        await kube.delete(Ref.of(obj))
    return [*filter(None, found), *await kube.list(PODS, NAMESPACE)]


async def prepare(kube: Kube) -> None:
    """Namespaces with all that a cluster puts into new ones, and what experiments of other tests look at."""
    for name in (NAMESPACE, "gameday"):
        with contextlib.suppress(ApiError):
            await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        account = Ref("v1", "ServiceAccount", "default", name)
        await eventually(lambda account=account: kube.find(account))  # type: ignore[misc]
    await install(kube, [o for o in read("platform") if "platform" in Ref.of(o).identity])


WELL = {
    "name": "settings are well",
    "argocd": {"application": "settings"},
    "is": "Healthy",
    "during": "ignore",
    "interval": "500ms",
}


def experiment(folder: Path, step: Object, hold: str = "1s", **spec: Any) -> Path:
    """An experiment with this `argocd` step."""
    whole = {
        "target": {"context": "gameday-.*", "namespaces": [NAMESPACE, "argocd"]},
        "blastRadius": {"pods": REPLICAS, "gpus": 0, "namespaces": [NAMESPACE, "argocd"]},
        "steadyState": [WELL],
        **spec,
    }
    return experiments.write(folder, method=[{"argocd": step, "for": hold}], **whole)


def rollback(**options: Any) -> Object:
    return {"rollback": {"application": "settings", **options}}


def drift() -> Object:
    where = {"resource": "configmap/settings", "namespace": NAMESPACE}
    return {"drift": {**where, "path": "data.queue", "value": "1"}}
