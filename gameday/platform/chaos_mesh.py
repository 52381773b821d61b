"""Reads what Chaos Mesh says of itself: whether a fault is in, why it is not, and where its daemon runs.

Field names and meanings are those of github.com/chaos-mesh/chaos-mesh 2.8, api/v1alpha1/common_types.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gameday.platform.objects import Object, annotations_of, is_ready, is_true
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

API_VERSION = "chaos-mesh.org/v1alpha1"
DAEMONS = "app.kubernetes.io/component=chaos-daemon"  # the label that the Helm chart sets
PAUSE = "experiment.chaos-mesh.org/pause"  # this annotation at "true" takes a fault out, or never lets it in
INJECTED = "Injected"  # a phase may have a tail: "Injected/Wait" is still in


async def nodes_with_daemon(kube: Kube) -> set[str]:
    """The nodes on which chaos-daemon is running and ready, whatever namespace it was installed in."""
    return {
        pod["spec"].get("nodeName", "")
        async for pod in kube.each(PODS, labels=DAEMONS)
        if pod.get("status", {}).get("phase") == "Running" and is_ready(pod)
    }


def records(obj: Object) -> list[Object]:
    """One record for each container or pod that the controller selected."""
    found: list[Object] = obj.get("status", {}).get("experiment", {}).get("containerRecords") or []
    return found


def unrecovered(obj: Object) -> list[str]:
    """The targets out of which the fault has not been taken, as namespace/pod or namespace/pod/container."""
    return [str(r.get("id")) for r in records(obj) if r.get("phase") != "Not Injected"]


def complaints(obj: Object) -> list[str]:
    """For each record whose last attempt failed, what failed and why."""
    found = []
    for record in records(obj):
        last: dict[str, Any] = (record.get("events") or [{}])[-1]
        if last.get("type") == "Failed":
            what = str(last.get("operation", "")).lower() or "change"
            found.append(f"{what} of {record.get('id')} failed: {last.get('message') or 'no reason given'}")
    return found


def started(obj: Object) -> bool:
    """Whether an experiment says that it is in, at all its targets."""
    return is_true(obj, "AllInjected") and not is_true(obj, "Paused")


def ended(obj: Object) -> bool:
    """Whether an experiment was in, and Chaos Mesh has taken it out since its duration is over.

    It wants one stopped that is deleted, over or paused (controllers/common/desiredphase). A Workflow ends as
    its entry node does, by a deadline or an abort (workflow_entry_reconciler.go in pkg/workflow/controllers);
    what it made was in or was not, and may be there still.
    """
    if obj["kind"] == "Workflow":
        return is_true(obj, "Accomplished")
    stopped = obj.get("status", {}).get("experiment", {}).get("desiredPhase") == "Stop"
    was_in = any(r.get("injectedCount") for r in records(obj))
    return stopped and was_in and is_true(obj, "AllRecovered") and not is_paused(obj)


def is_paused(obj: Object) -> bool:
    """Whether its annotation says so: a Schedule has no condition of that name, and no Workflow is paused."""
    annotations = annotations_of(obj)
    return obj["kind"] != "Workflow" and annotations.get(PAUSE) == "true"


def progress(obj: Object) -> str:
    """How far an object has come, in words: an experiment by its records, what makes some by its status.

    A Schedule has no conditions: status.time is when it last fired, status.active all that it made and is
    still there, over or not.
    """
    status = obj.get("status", {})
    if is_paused(obj):
        return f"it is paused by its annotation {PAUSE}"
    match obj["kind"]:
        case "Schedule" if not status.get("time"):
            return f"it has not fired yet ({obj['spec'].get('schedule')})"
        case "Schedule":
            there = ", ".join(r.get("name", "") for r in status.get("active") or ()) or "nothing"
            return f"last fired {status['time']}, and what it made is there: {there}"
        case "Workflow" if status.get("endTime"):
            return f"it ended {status['endTime']}"
        case "Workflow":
            return (
                f"running since {status['startTime']}" if status.get("startTime") else "it has not begun yet"
            )
    return _recorded(obj)


def _recorded(obj: Object) -> str:
    all_records = records(obj)
    done = sum(str(r.get("phase")).startswith(INJECTED) for r in all_records)
    if is_true(obj, "AllRecovered"):
        return "its targets are recovered"
    if not all_records:
        return "no target is selected yet"
    return f"{done} of {len(all_records)} targets are injected"
