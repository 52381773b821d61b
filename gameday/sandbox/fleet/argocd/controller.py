"""The application controller: compares, syncs by itself where it may, and carries out operations.

Names, phases, messages and the order of things are Argo CD 3.5's (controller/appcontroller.go, state.go and
sync.go there); how long a sync takes is ours, so that one can be cut off in the middle.
"""

from __future__ import annotations

import time

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.facts import annotations_of, deleting, now, seconds_of
from gameday.sandbox.fleet.argocd import git
from gameday.sandbox.fleet.argocd.comparison import KINDS, Resource, compare, told
from gameday.sandbox.fleet.argocd.sync import apply_all, begun, ended, history_with
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

NAMESPACE = "argocd"
RECONCILIATION = 120.0  # seconds between looks at git, as long as argocd-cm says nothing else
SYNC_TAKES = 0.5  # seconds; an Application's annotation can make it longer
SYNC_SECONDS = "sandbox.gameday.dev/sync-seconds"
REFRESH = "argocd.argoproj.io/refresh"
NO_MANIFESTS = (
    "Failed to load target state: failed to generate manifest for source 1 of 1: "
    "rpc error: code = Unknown desc = {}"
)
BACKOFF_FIRST, BACKOFF_FACTOR, BACKOFF_CAP = 2.0, 3.0, 300.0  # seconds between attempts at healing
COOLDOWN = 330.0  # seconds after a sync that succeeded, from when on attempts count from none again


class Applications:
    """Every Application of the namespace that Argo CD runs in, and of no other."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache, self._kube, self._recorder = cache, cache.kube, recorder
        self._work: Work[Key] = Work("argocd-application-controller", self._reconcile, workers=2)
        cache.listen("Application", self._changed)
        for kind in KINDS:
            cache.listen(kind, self._resource_changed)

    async def run(self) -> None:
        await self._cache.synced(KINDS)
        for application in self._cache.all("Application", NAMESPACE):
            self._work.add(key_of(application))
        await self._work.run()

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None and new["metadata"]["namespace"] == NAMESPACE:
            self._work.add(key_of(new))

    def _resource_changed(self, new: Object | None, old: Object | None) -> None:
        """Whoever may own it looks again: a live change is noticed at once, a change in git later."""
        obj = new or old
        for application in self._cache.all("Application", NAMESPACE):
            if obj and application["spec"]["destination"].get("namespace") == obj["metadata"].get(
                "namespace"
            ):
                self._work.add(key_of(application))

    async def _reconcile(self, key: Key) -> float | None:
        application = self._cache.get("Application", key)
        if application is None or deleting(application):
            return None
        if application["spec"].get("syncPolicy") == {}:  # upstream's normalization drops an empty one
            await self._patch(application, {"spec": {"syncPolicy": None}}, "merge")
        if application.get("operation") and application.get("status"):
            return await self._operate(application)
        return await self._refresh(application)

    # -- comparing -----------------------------------------------------------------------------

    async def _refresh(self, application: Object) -> float | None:
        spec = application["spec"]
        named = {k: spec[k] for k in ("source", "sources", "destination") if k in spec}
        try:
            target = git.target(spec)
        except git.GitError as error:
            text = NO_MANIFESTS.format(error)
            sync: Object = {"status": "Unknown", "comparedTo": named}
            status: Object = {"sync": sync, "health": {"status": "Healthy"}, "resources": []}
            await self._write(application, status, [("ComparisonError", text)])
            return self._interval()
        resources = compare(self._cache, application, target)
        state, health, listed = told(resources)
        sync = {"status": state, **target.revision, "comparedTo": named}
        status = {"sync": sync, "health": {"status": health}, "resources": listed}
        operation, wait, complaint = automated(application, status, target)
        await self._write(application, status, [("SyncError", complaint)] if complaint else [])
        if operation is not None:
            await self._start(application, operation)
        return min(wait, self._interval())

    async def _write(self, application: Object, status: Object, errors: list[tuple[str, str]]) -> None:
        """The new status, where it differs or the last comparison is too old."""
        before = application.get("status") or {}
        known = {(c["type"], c["message"]): c for c in before.get("conditions") or ()}
        conditions = [
            known.get((t, m)) or {"type": t, "message": m, "lastTransitionTime": now()} for t, m in errors
        ]
        asked = REFRESH in annotations_of(application)
        same = all(_without_time(before.get(k)) == v for k, v in status.items())
        same = same and conditions == (before.get("conditions") or []) and not asked
        if same and not self._too_old(before):
            return
        changed = (before.get("health") or {}).get("status") != status["health"]["status"]
        since = now() if changed else before["health"].get("lastTransitionTime", now())
        health = status["health"] | {"lastTransitionTime": since}
        # A list or an object is replaced as a whole, which a merge patch does only to lists.
        sync = {"revision": None, "revisions": None} | status["sync"]
        body: Object = {"status": status | {"health": health, "sync": sync, "conditions": conditions or None}}
        body["status"]["reconciledAt"] = now()
        if asked:
            body["metadata"] = {"annotations": {REFRESH: None}}
        await self._patch(application, body, "merge")

    def _too_old(self, status: Object) -> bool:
        """Whether the last comparison is to be made again: by the clock, or since an operation ended."""
        if not status.get("reconciledAt"):
            return True
        at = seconds_of(status["reconciledAt"])
        finished = (status.get("operationState") or {}).get("finishedAt")
        return time.time() - at > self._interval() or bool(finished and at < seconds_of(finished))

    def _interval(self) -> float:
        found = self._cache.get("ConfigMap", (NAMESPACE, "argocd-cm")) or {}
        wanted = (found.get("data") or {}).get("timeout.reconciliation")
        return parse_duration(wanted) if wanted else RECONCILIATION

    # -- operations ----------------------------------------------------------------------------

    async def _start(self, application: Object, operation: Object) -> None:
        """Set an operation of our own, unless somebody was faster."""
        body: list[Object] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": _version(self._cache, application)},
            {"op": "add", "path": "/operation", "value": operation},
        ]
        if (application.get("status") or {}).get("operationState"):
            body.append({"op": "remove", "path": "/status/operationState"})
        try:
            await self._patch(application, body, "json")
        except ApiError as error:
            if error.status not in (409, 422):
                raise
            return
        sync = operation["sync"]
        revisions = ", ".join(sync.get("revisions") or [sync["revision"]])
        self._say(application, "OperationStarted", f"Initiated automated sync to '{revisions}'")

    async def _operate(self, application: Object) -> float | None:
        """One step of the operation: begin, wait until its time is up, end."""
        state = application["status"].get("operationState")
        if state is None or state["phase"] not in ("Running", "Terminating"):
            await self._keep(application, begun(application["operation"]), over=False)
            return None
        if state["phase"] == "Terminating":
            text = "Operation terminated"
            await self._end(application, ended(state, "Failed", text))
            return None
        takes = float(annotations_of(application).get(SYNC_SECONDS, SYNC_TAKES))
        left = seconds_of(state["startedAt"]) + takes - time.time()
        if left > 0:
            return min(left, 0.2)
        await self._sync(application, state)
        return None

    async def _sync(self, application: Object, state: Object) -> None:
        sync = state["operation"].get("sync") or {}
        try:
            target = git.target(application["spec"], sync)
        except git.GitError as error:
            text = f"ComparisonError: {NO_MANIFESTS.format(error)}"
            await self._end(application, ended(state, "Error", text))
            return
        resources = [r for r in compare(self._cache, application, target) if _meant(r, sync)]
        results, failed = await apply_all(self._cache, resources, sync)
        result = {"revision": "", **target.revision, **target.source, "resources": results}
        if failed:
            text = f"one or more objects failed to apply, reason: {failed[0]}"
            await self._end(application, ended(state, "Failed", text, result))
            return
        state = ended(state, "Succeeded", "successfully synced (all tasks run)", result)
        if sync.get("dryRun") or sync.get("resources"):  # a part of it is not a deployment
            await self._end(application, state)
        else:
            await self._end(application, state, history_with(application, state))

    async def _end(self, application: Object, state: Object, history: list[Object] | None = None) -> None:
        await self._keep(application, state, over=True, history=history)
        result = state.get("syncResult") or {}
        revision = ",".join(result.get("revisions") or ()) or result.get("revision")
        what = "Partial sync operation" if state["operation"]["sync"].get("resources") else "Sync operation"
        words = [what, *(["to", revision] if revision else [])]
        good = state["phase"] == "Succeeded"
        words += ["succeeded"] if good else [f"failed: {state['message']}"]
        self._say(application, "OperationCompleted", " ".join(words), warning=not good)

    async def _keep(
        self, application: Object, state: Object, *, over: bool, history: list[Object] | None = None
    ) -> None:
        body: list[Object] = [{"op": "add", "path": "/status/operationState", "value": state}]
        if history is not None:
            body.append({"op": "add", "path": "/status/history", "value": history})
        if over:
            body.append({"op": "remove", "path": "/operation"})
        await self._patch(application, body, "json")

    # -- the API -------------------------------------------------------------------------------

    async def _patch(self, application: Object, body: Object | list[Object], kind: str) -> None:
        try:
            self._cache.put(await self._kube.patch(Ref.of(application), body, kind))
        except ApiError as error:
            if error.status != 404:
                raise

    def _say(self, application: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.event(application, "argocd-application-controller", reason, message, warning=warning)


def automated(application: Object, status: Object, target: git.Target) -> tuple[Object | None, float, str]:
    """The operation that automated sync starts now, seconds until it may, and why it gave up, if it did."""
    policy = (application["spec"].get("syncPolicy") or {}).get("automated")
    if policy is None or policy.get("enabled") is False or status["sync"]["status"] != "OutOfSync":
        return None, RECONCILIATION, ""
    outside = [r for r in status["resources"] if r["status"] != "Synced"]
    if not policy.get("prune") and all(r.get("requiresPruning") for r in outside):
        return None, RECONCILIATION, ""
    sync: Object = {**target.revision, **target.source, "prune": bool(policy.get("prune"))}
    last = (application.get("status") or {}).get("operationState") or {}
    result = last.get("syncResult") or {}
    if last and all(result.get(k) == v for k, v in (target.revision | target.source).items() if result):
        if last["phase"] != "Succeeded":
            return None, RECONCILIATION, f"Failed last sync attempt to [{target.words}]: {last['message']}"
        if not policy.get("selfHeal"):
            return None, RECONCILIATION, ""
        since = time.time() - seconds_of(last["finishedAt"])
        attempts = (last["operation"].get("sync") or {}).get("autoHealAttemptsCount", 0)
        attempts = 0 if since >= COOLDOWN else attempts
        backoff = min(BACKOFF_FIRST * BACKOFF_FACTOR ** (attempts - 1), BACKOFF_CAP) if attempts else 0.0
        wait = backoff - since
        if wait > 0:
            return None, wait, ""
        sync["autoHealAttemptsCount"] = attempts + 1
        sync["resources"] = [{k: r[k] for k in ("group", "kind", "name") if k in r} for r in outside]
    return {"sync": sync, "initiatedBy": {"automated": True}, "retry": {"limit": 5}}, RECONCILIATION, ""


def _meant(resource: Resource, sync: Object) -> bool:
    """Whether a sync of some resources is about this one."""
    chosen, names = sync.get("resources"), resource.names
    return not chosen or any(all(names.get(k, "") == v for k, v in c.items()) for c in chosen)


def _version(cache: Cache, application: Object) -> str:
    """The newest version that is known: we may just have written the status."""
    newest = cache.get("Application", key_of(application)) or application
    return str(newest["metadata"]["resourceVersion"])


def _without_time(value: object) -> object:
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k != "lastTransitionTime"}
    return value
