"""Jobs: `parallelism` pods at a time, until `completions` (each index once, where Indexed) have succeeded."""

from __future__ import annotations

import copy
from typing import Any

from gameday.platform.objects import Object, controller, is_ready, is_true
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.controllers.pods import Pods, active
from gameday.sandbox.facts import annotations_of, deleting, new_condition, now, suffix, with_conditions
from gameday.sandbox.recorder import Recorder

INDEX = "batch.kubernetes.io/job-completion-index"


class Jobs(Controller):
    kind = "Job"
    component = "job-controller"

    def __init__(self, cache: Cache, recorder: Recorder, pods: Pods) -> None:
        super().__init__(cache, recorder)
        self._pods = pods
        self._counted: dict[str, set[str]] = {}  # job's uid: the pods whose end is in its status
        self._gone: dict[str, list[Object]] = {}  # those that went before; upstream's finalizer keeps them
        cache.listen("Pod", self._pod_changed)

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        owner = controller(old) if old and new is None else None
        if old and owner and self.cache.get(self.kind, (old["metadata"]["namespace"], owner["name"])):
            meta = {**old["metadata"], "deletionTimestamp": now()}
            self._gone.setdefault(owner["uid"], []).append({**old, "metadata": meta})
        self.owner_changed(new, old)

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is None and old:
            self._gone.pop(old["metadata"]["uid"], None)
            self._counted.pop(old["metadata"]["uid"], None)
        super()._changed(new, old)

    async def reconcile(self, key: Key) -> float | None:
        job = self.cache.get(self.kind, key)
        if job is None or deleting(job) or is_true(job, "Complete") or is_true(job, "Failed"):
            return None
        uid = job["metadata"]["uid"]
        counted, gone = self._counted.setdefault(uid, set()), self._gone.setdefault(uid, [])
        pods = self.cache.owned(job, "Pod")
        over = {p["metadata"]["uid"]: p for p in [*gone, *pods] if _is_over(job, p)}
        new = {u: p for u, p in over.items() if u not in counted}
        await self._step(job, pods, list(new.values()), counted)
        counted |= new.keys()  # not before they are in its status: a write that is refused is tried again
        gone[:] = [p for p in gone if p["metadata"]["uid"] not in counted and _is_over(job, p)]
        return None

    async def _step(self, job: Object, pods: list[Object], new: list[Object], counted: set[str]) -> None:
        """`new`: the pods that are over, and are not in the Job's status yet."""
        status = job.get("status") or {}
        well = [p for p in new if _phase(p) == "Succeeded"]
        succeeded = status.get("succeeded", 0) + len(well)
        failed = status.get("failed", 0) + sum(not _ignored(job, p) for p in new if p not in well)
        over = _verdict(job, succeeded, failed)
        if over or job["spec"].get("suspend"):
            ended = active(pods)
            counted |= {p["metadata"]["uid"] for p in ended}  # nobody else ended them
            await self._pods.delete(job, self.component, ended)
        else:
            await self._fill(job, pods, succeeded)
        await self._status(job, succeeded, failed, over)

    async def _fill(self, job: Object, pods: list[Object], succeeded: int) -> None:
        holding = _holding(job, pods)
        completions = job["spec"].get("completions")
        room = job["spec"].get("parallelism", 1) - len(holding)
        if completions is not None:
            room = min(room, completions - succeeded - len(holding))
        if room <= 0:
            return
        if job["spec"].get("completionMode") != "Indexed":
            await self._pods.create_many(job, self.component, job["spec"]["template"], room)
            return
        done = {_index(p) for p in pods if _phase(p) == "Succeeded"}
        taken = done | {_index(p) for p in holding}
        for index in [i for i in range(completions or 0) if i not in taken][:room]:
            name = f"{job['metadata']['name']}-{index}-{suffix()}"
            await self._pods.create(job, self.component, _indexed(job["spec"]["template"], index), name)

    async def _status(self, job: Object, succeeded: int, failed: int, over: str) -> None:
        pods = active(self.cache.owned(job, "Pod"))
        status: dict[str, Any] = {
            "active": 0 if over else len(pods),
            "ready": sum(is_ready(p) for p in pods),
            "succeeded": succeeded or None,
            "failed": failed or None,
            "terminating": sum(deleting(p) for p in self.cache.owned(job, "Pod")),
            "uncountedTerminatedPods": {},
            "startTime": (job.get("status") or {}).get("startTime") or now(),
        }
        if over:
            reason = "BackoffLimitExceeded" if over == "Failed" else "CompletionsReached"
            status["conditions"] = with_conditions(job, [new_condition(job, over, True, reason)])
            if over == "Complete":
                status["completionTime"] = now()
                self.say(job, "Completed", "Job completed")
            else:
                self.say(job, reason, "Job has reached the specified backoff limit", warning=True)
        await self.write_status(job, status)


def _verdict(job: Object, succeeded: int, failed: int) -> str:
    if job["spec"].get("completions") is not None and succeeded >= job["spec"]["completions"]:
        return "Complete"
    return "Failed" if failed > job["spec"].get("backoffLimit", 6) else ""


def _waits(job: Object) -> bool:
    """Whether a pod that is being deleted keeps its place until it has failed (onlyReplaceFailedPods)."""
    usual = "Failed" if "podFailurePolicy" in job["spec"] else ""
    return bool(job["spec"].get("podReplacementPolicy", usual) == "Failed")


def _is_over(job: Object, pod: Object) -> bool:
    """Whether a pod counts as succeeded or failed; one that is deleted has failed (isPodFailed)."""
    return _phase(pod) in ("Succeeded", "Failed") or (deleting(pod) and not _waits(job))


def _holding(job: Object, pods: list[Object]) -> list[Object]:
    """The pods that keep their place: with a failure policy also those that are still ending, as upstream."""
    return [p for p in pods if _phase(p) not in ("Succeeded", "Failed") and (_waits(job) or not deleting(p))]


def _ignored(job: Object, pod: Object) -> bool:
    """Whether the Job's podFailurePolicy says that this failure doesn't count."""
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    codes = [(s.get("state") or {}).get("terminated", {}).get("exitCode") for s in states]
    for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules") or ():
        patterns = rule.get("onPodConditions") or ()
        hit = any(is_true(pod, c["type"]) for c in patterns)
        exits = rule.get("onExitCodes")
        if exits:
            hit = hit or any((c in exits["values"]) == (exits["operator"] == "In") for c in codes if c)
        if hit:
            return bool(rule["action"] == "Ignore")
    return False


def _indexed(template: Object, index: int) -> Object:
    made: Object = copy.deepcopy(template)
    for key in ("annotations", "labels"):
        made["metadata"].setdefault(key, {})[INDEX] = str(index)
    for container in made["spec"]["containers"]:
        container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
    return made


def _index(pod: Object) -> int:
    return int(annotations_of(pod).get(INDEX, -1))


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")
