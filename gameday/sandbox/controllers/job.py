"""Jobs: `parallelism` pods at a time, until `completions` (each index once, where Indexed) have succeeded."""

from __future__ import annotations

import copy
from typing import Any

from gameday.platform.objects import Object, is_ready, is_true
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
        cache.listen("Pod", self.owner_changed)

    async def reconcile(self, key: Key) -> float | None:
        job = self.cache.get(self.kind, key)
        if job is None or deleting(job) or is_true(job, "Complete") or is_true(job, "Failed"):
            return None
        pods = self.cache.owned(job, "Pod")
        succeeded, failed = self._count(job, pods)
        over = _verdict(job, succeeded, failed)
        if over or job["spec"].get("suspend"):
            await self._pods.delete(job, self.component, active(pods))
        else:
            await self._fill(job, pods, succeeded)
        await self._status(job, succeeded, failed, over)
        return None

    def _count(self, job: Object, pods: list[Object]) -> tuple[int, int]:
        """How many have succeeded and failed so far; failures that the policy ignores are not counted."""
        status = job.get("status") or {}
        uid = job["metadata"]["uid"]
        counted = self._counted.setdefault(uid, set())
        new = {"Succeeded": 0, "Failed": 0}
        for pod in pods:
            phase = (pod.get("status") or {}).get("phase")
            if phase not in new or pod["metadata"]["uid"] in counted:
                continue
            counted.add(pod["metadata"]["uid"])
            if phase == "Succeeded" or not _ignored(job, pod):
                new[phase] += 1
        return status.get("succeeded", 0) + new["Succeeded"], status.get("failed", 0) + new["Failed"]

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


def _holding(job: Object, pods: list[Object]) -> list[Object]:
    """The pods that keep their place: with a failure policy also those that are still ending, as upstream."""
    waits = (
        job["spec"].get("podReplacementPolicy", "Failed" if "podFailurePolicy" in job["spec"] else "")
        == "Failed"
    )
    return [p for p in pods if _phase(p) not in ("Succeeded", "Failed") and (waits or not deleting(p))]


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
