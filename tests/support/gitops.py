"""Applications for tests: settings from a repository that the sandbox knows, in a namespace of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gameday.platform.errors import ApiError, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.sandbox.fleet.argocd.git import repositories
from tests.support.polling import eventually

NAMESPACE = "gitops"
REPOSITORY = "https://git.example.com/gpu-platform/settings.git"
NEWEST, CANARY, FIRST = (commit.revision for commit in repositories()[REPOSITORY])
SOURCE = {"repoURL": REPOSITORY, "path": "settings", "targetRevision": "main"}
DESTINATION = {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE}
SETTINGS = Ref("v1", "ConfigMap", "cluster-settings", NAMESPACE)
CANARIES = Ref("v1", "ConfigMap", "canary-settings", NAMESPACE)
HEALING = {"prune": True, "selfHeal": True}
INFERENCE = Ref("argoproj.io/v1alpha1", "Application", "inference", "argocd")


def application(name: str, *, policy: Object | None = None, seconds: float = 1, **spec: Any) -> Object:
    """An Application with a past: the first revision, one with canary settings, and the newest."""
    source = {"sources": [SOURCE]} if "sources" in spec else {"source": SOURCE}
    several = "sources" in source

    def deployed(number: int, revision: str) -> Object:
        at = f"2026-08-{10 + number}T08:00:00Z"
        revisions = {"revisions": [revision]} if several else {"revision": revision}
        return {"id": number, **revisions, **source, "deployStartedAt": at, "deployedAt": at}

    last = deployed(2, NEWEST)
    result = {"revision": "", **{k: last[k] for k in last if k in ("revision", "revisions", *source)}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {
            "name": name,
            "namespace": "argocd",
            "annotations": {"sandbox.gameday.dev/sync-seconds": str(seconds)},
        },
        "spec": {
            "project": "default",
            **source,
            "destination": DESTINATION,
            **({"syncPolicy": {"automated": policy}} if policy is not None else {}),
            **spec,
        },
        "status": {
            "sync": {"status": "OutOfSync"},
            "history": [deployed(0, FIRST), deployed(1, CANARY), last],
            "operationState": {
                "phase": "Succeeded",
                "operation": {"sync": {**source}},
                "startedAt": last["deployedAt"],
                "finishedAt": last["deployedAt"],
                "syncResult": result,
            },
        },
    }


@asynccontextmanager
async def deployed(kube: Kube, manifest: Object) -> AsyncIterator[Ref]:
    """The Application, created and synced; afterwards it and what it deployed are deleted."""
    ref = Ref.of(await kube.create(manifest))
    if not (manifest["spec"].get("syncPolicy") or {}).get("automated"):
        await sync(kube, ref, NEWEST, by="setup", history=manifest["status"]["history"])
    await eventually(lambda: kube.get(ref), is_synced)
    try:
        yield ref
    finally:
        await kube.delete(ref)
        for each in (SETTINGS, CANARIES):
            await kube.delete(each)
        await eventually(lambda: kube.find(ref), lambda found: found is None)


async def ensure_namespace(kube: Kube) -> None:
    """Make it with all that the cluster puts into a new one, before a test looks at the world; it stays."""
    if await kube.find(Ref("v1", "Namespace", NAMESPACE)) is None:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for kind, name in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
        if await kube.find(Ref("v1", kind, name, "inference")) is not None:
            here = Ref("v1", kind, name, NAMESPACE)
            await eventually(lambda here=here: kube.find(here), lambda found: found is not None)  # type: ignore[misc]


async def sync(kube: Kube, ref: Ref, revision: str, *, by: str, history: list[Object] | None = None) -> None:
    """Deploy a revision as a person does, and wait; with `history`, that is what it is afterwards."""
    app = await kube.get(ref)
    named = {"revisions": [revision]} if app["spec"].get("sources") else {"revision": revision}
    sources = {k: app["spec"][k] for k in ("source", "sources") if k in app["spec"]}
    operation = {"sync": {**named, **sources, "prune": True}, "initiatedBy": {"username": by}}
    await kube.patch(ref, {"operation": operation}, "merge")
    await eventually(lambda: kube.get(ref), lambda a: not a.get("operation") and _by(a) == by)
    if history is not None:
        await kube.patch(ref, {"status": {"history": history}}, "merge")


async def heals_at_once(kube: Kube, ref: Ref) -> None:
    """Forget the attempts that other tests brought about: each makes Argo CD wait longer for the next."""
    await eventually(lambda: kube.get(ref), is_synced)
    forgotten = {"autoHealAttemptsCount": None}
    await kube.patch(ref, {"status": {"operationState": {"operation": {"sync": forgotten}}}}, "merge")


def _by(app: Object) -> str:
    state = (app.get("status") or {}).get("operationState") or {}
    return str((state.get("operation") or {}).get("initiatedBy", {}).get("username", ""))


def is_synced(app: Object) -> bool:
    status = app.get("status") or {}
    return not app.get("operation") and status["sync"]["status"] == "Synced" and bool(status.get("resources"))


def revisions(app: Object) -> list[str]:
    """What was deployed, oldest first."""
    return [",".join(h.get("revisions") or ()) or h["revision"] for h in app["status"]["history"]]


@asynccontextmanager
async def application_set(kube: Kube, **spec: Any) -> AsyncIterator[Object]:
    """An ApplicationSet that nothing reconciles, and its kind, which the platforms are without."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "applicationsets", "singular": "applicationset", "kind": "ApplicationSet"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "applicationsets.argoproj.io"},
        "spec": {"group": "argoproj.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    crd = Ref.of(await kube.create(definition))
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ApplicationSet",
        "metadata": {"name": "clusters", "namespace": "argocd"},
        "spec": spec,
    }

    async def created() -> Object | None:
        try:
            return await kube.create(manifest)
        except ApiError as error:
            if error.status != 404:  # not served yet
                raise
            return None
        except WrongAnswer:  # it came to be served in the middle of the request
            return None

    try:
        made = await eventually(created, lambda obj: obj is not None)
        assert made is not None
        yield made
    finally:
        await kube.delete(crd)
        await eventually(lambda: kube.find(crd), lambda found: found is None)


def made_by(owner: Object, manifest: Object) -> Object:
    """The manifest as an ApplicationSet makes it."""
    reference = {k: owner[k] for k in ("apiVersion", "kind")} | {
        k: owner["metadata"][k] for k in ("name", "uid")
    }
    meta = manifest["metadata"] | {"ownerReferences": [reference | {"controller": True}]}
    return manifest | {"metadata": meta}
