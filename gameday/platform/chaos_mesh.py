"""Reads what Chaos Mesh says of itself: whether a fault is in, why it is not, and where its daemon runs.

Field names and meanings are those of github.com/chaos-mesh/chaos-mesh 2.8, api/v1alpha1/common_types.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gameday.platform.objects import Object, is_ready, is_true
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
    """Whether the fault is in: all targets injected, or a Schedule or Workflow has begun.

    A Schedule has no conditions: status.active holds what runs now, status.time when it last fired.
    """
    status = obj.get("status", {})
    match obj["kind"]:
        case "Schedule":
            return bool(status.get("active") or status.get("time"))
        case "Workflow":
            return is_true(obj, "Scheduled") or is_true(obj, "Accomplished") or bool(status.get("entryNode"))
    return is_true(obj, "AllInjected") and not is_true(obj, "Paused")


def progress(obj: Object) -> str:
    """How far the injection, or the recovery, has come, in words."""
    all_records = records(obj)
    done = sum(str(r.get("phase")).startswith(INJECTED) for r in all_records)
    if is_true(obj, "Paused"):
        return f"it is paused by its annotation {PAUSE}"
    if is_true(obj, "AllRecovered"):
        return "its targets are recovered"
    if not all_records:
        return "no target is selected yet"
    return f"{done} of {len(all_records)} targets are injected"
