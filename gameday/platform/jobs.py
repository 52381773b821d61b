"""What a Kubernetes Job does when a pod of it is ended: another pod, or none.

Facts from Kubernetes 1.36, pkg/controller/job: a pod that is deleted counts as failed, with a
`podFailurePolicy` once it has ended (job_controller.go, isPodFailed); the first rule that matches decides
(pod_failure_policy.go), and an eviction, by the API or by a taint, leaves the condition DisruptionTarget,
where a plain deletion leaves an exit code alone; more failures than `backoffLimit` fail the Job for good, and
with `backoffLimitPerIndex` each pod has a count of its own (indexed_job_utils.go), and where more indexes
have failed than `maxFailedIndexes` the Job fails and ends its other pods (reason MaxFailedIndexesExceeded).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gameday.platform.objects import Object, annotations_of

EVICTED = "DisruptionTarget"  # the condition of pods that were evicted, by whomever
BACKOFF_LIMIT = 6  # of a Job that says nothing else
_KILLED = (137, 143)  # exit codes of what does not end well by itself when it is told to end
_INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"


def backoff_limit(spec: Mapping[str, Any]) -> int:
    """How many pods may fail before the Job does."""
    limit = spec.get("backoffLimit")
    return BACKOFF_LIMIT if limit is None else int(limit)


def at_end(spec: Mapping[str, Any], *, evicted: bool) -> str:
    """What the podFailurePolicy does when a pod is evicted, or deleted: Ignore, FailIndex, FailJob, or Count.

    Nobody knows the exit code beforehand. FailJob at a likely one counts; Ignore must be at all of them.
    """
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        action, codes = str(rule.get("action")), rule.get("onExitCodes") or {}
        sure = evicted and any(c.get("type") == EVICTED for c in rule.get("onPodConditions") or ())
        hits = [(c in codes["values"]) == (codes["operator"] == "In") for c in _KILLED] if codes else []
        if sure or (hits and all(hits)) or (action == "FailJob" and any(hits)):
            return action
    return "Count"


def past_limit(job: Object, failures: int) -> bool:
    """Whether so many more failures are more than the Job allows."""
    return int((job.get("status") or {}).get("failed") or 0) + failures > backoff_limit(job["spec"])


def past_index_limit(job: Object, pod: Object, failures: int) -> bool:
    """Whether so many more failures of one pod are more than the Job allows to its index."""
    before = annotations_of(pod).get(_INDEX_FAILURES) or 0
    return int(before) + failures > int(job["spec"]["backoffLimitPerIndex"])


def past_failed_indexes(job: Object, more: int) -> bool:
    """Whether a Job fails when so many more of its indexes do; without `maxFailedIndexes` it goes on."""
    most = job["spec"].get("maxFailedIndexes")
    failed = str((job.get("status") or {}).get("failedIndexes") or "")  # as 1,3-5
    spans = [part.partition("-") for part in failed.split(",") if part]
    before = sum(int(last or first) - int(first) + 1 for first, _, last in spans)
    return most is not None and more > 0 and before + more > int(most)


def restarts_left(jobset: Object) -> int:
    """How often a JobSet makes all its Jobs anew where one fails (JobSet 0.11, failure_policy.go)."""
    most = ((jobset.get("spec") or {}).get("failurePolicy") or {}).get("maxRestarts") or 0
    return int(most) - int((jobset.get("status") or {}).get("restartsCountTowardsMax") or 0)


def fails_for_good(job: Object, failures: Iterable[int], *, evicted: bool) -> str:
    """Why a Job fails when pods of it end, so many times each; "" where it does not."""
    action = at_end(job["spec"], evicted=evicted)
    if action == "FailJob":
        return "its podFailurePolicy fails it"
    counted = action != "Ignore" and job["spec"].get("backoffLimitPerIndex") is None
    if counted and past_limit(job, sum(failures)):
        return f"no failure is left of its backoffLimit {backoff_limit(job['spec'])}"
    return ""
