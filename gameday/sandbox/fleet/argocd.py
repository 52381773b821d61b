"""A stand-in for Argo CD's application controller: keeps each Application's health and sync status true.

"Git" is what the sandbox's manifests say; health follows gitops-engine's rules for Deployments.
"""

from __future__ import annotations

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, condition
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.facts import now
from gameday.sandbox.manifests import read
from gameday.sandbox.work import Work

NAMESPACE = "argocd"
REVISION = "4f1c0e6b7a9d2835e1f40c96b8d7a5e3f2019c84"


class Applications:
    """One Application owns the Deployments of its destination namespace that the manifests hold."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._work: Work[Key] = Work("argocd-application-controller", self._reconcile, workers=1)
        self._wanted = [o for o in read("platform") if o["kind"] == "Deployment"]
        cache.listen("Application", self._changed)
        cache.listen("Deployment", self._deployment_changed)

    async def run(self) -> None:
        for application in self._cache.all("Application"):
            self._work.add(key_of(application))
        await self._work.run()

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None:
            self._work.add(key_of(new))

    def _deployment_changed(self, new: Object | None, old: Object | None) -> None:
        obj = new or old
        for application in self._cache.all("Application", NAMESPACE):
            if obj and application["spec"]["destination"].get("namespace") == obj["metadata"]["namespace"]:
                self._work.add(key_of(application))

    async def _reconcile(self, key: Key) -> float | None:
        application = self._cache.get("Application", key)
        if application is None:
            return None
        space = application["spec"]["destination"].get("namespace")
        resources, worst, synced = [], "Healthy", True
        for wanted in self._wanted:
            if wanted["metadata"]["namespace"] != space:
                continue
            name = wanted["metadata"]["name"]
            live = self._cache.get("Deployment", (space, name))
            health, message = health_of(live)
            same = live is not None and _intent(live) == _intent(wanted)
            worst, synced = max(worst, health, key=_ORDER.index), synced and same
            resources.append(
                {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": space, "name": name}
                | {"status": "Synced" if same else "OutOfSync"}
                | {"health": {"status": health} | ({"message": message} if message else {})}
            )
        await self._write(application, worst, "Synced" if synced else "OutOfSync", resources)
        return None

    async def _write(self, application: Object, health: str, sync: str, resources: list[Object]) -> None:
        before = application.get("status") or {}
        status: Object = {
            "health": {"status": health},
            "sync": {"status": sync, "revision": REVISION},
            "resources": resources,
        }
        if all(_without_time(before.get(k)) == v for k, v in status.items()):
            return
        changed = (before.get("health") or {}).get("status") != health
        status["health"]["lastTransitionTime"] = (
            now() if changed else before["health"].get("lastTransitionTime", now())
        )
        status["reconciledAt"] = now()
        try:
            self._cache.put(await self._cache.kube.patch(Ref.of(application), {"status": status}, "merge"))
        except ApiError as error:
            if error.status != 404:
                raise


_ORDER = ["Healthy", "Suspended", "Progressing", "Missing", "Degraded"]  # gitops-engine's: the worst counts


def health_of(deployment: Object | None) -> tuple[str, str]:
    """A Deployment's health and why, as gitops-engine tells it."""
    if deployment is None:
        return "Missing", ""
    spec, status = deployment["spec"], deployment.get("status") or {}
    if spec.get("paused"):
        return "Suspended", "Deployment is paused"
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 1):
        return (
            "Progressing",
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        )
    if condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        name = deployment["metadata"]["name"]
        return "Degraded", f'Deployment "{name}" exceeded its progress deadline'
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    if updated < wanted:
        return (
            "Progressing",
            f"Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated...",
        )
    if available < updated:
        return (
            "Progressing",
            f"Waiting for rollout to finish: {available} of {updated} updated replicas are available...",
        )
    return "Healthy", ""


def _intent(deployment: Object) -> tuple[object, ...]:
    spec = deployment["spec"]
    images = [c["image"] for c in spec["template"]["spec"]["containers"]]
    return spec.get("replicas", 1), images, spec["template"]["spec"].get("nodeSelector")


def _without_time(value: object) -> object:
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k != "lastTransitionTime"}
    return value
