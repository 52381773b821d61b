"""Which pods of a node must go, by kubectl drain's rules: a chain of small filters, each with its reason.

Facts from k8s.io/kubectl/pkg/drain (filters.go): mirror pods and pods of DaemonSets stay; pods with
emptyDir volumes stop the drain unless it is allowed to lose them; so do those that nothing makes again, as
with every fault (see lost.py). The programs of the run's own faults are not among a node's pods (`pods_on`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gameday.platform.objects import Object, controller, is_finished, is_mirror


@dataclass(frozen=True)
class Policy:
    """The losses that a drain may cause."""

    delete_empty_dir_data: bool = False


@dataclass(frozen=True)
class Decision:
    """The fate of one pod: `go`, `stay` or `refuse`, and why."""

    action: str
    reason: str = ""


GO = Decision("go")
Filter = Callable[[Object, Policy], Decision]


def _mirror(pod: Object, policy: Policy) -> Decision:
    if is_mirror(pod):
        return Decision("stay", "the kubelet runs it from a file")
    return GO


def _daemon_set(pod: Object, policy: Policy) -> Decision:
    owner = controller(pod)
    if owner and owner["kind"] == "DaemonSet" and not is_finished(pod):
        return Decision("stay", f"DaemonSet {owner['name']} would put it back")
    return GO


def _empty_dir(pod: Object, policy: Policy) -> Decision:
    local = any("emptyDir" in v for v in pod["spec"].get("volumes") or ())
    if local and not is_finished(pod) and not policy.delete_empty_dir_data:
        return Decision("refuse", "it has emptyDir data, which would be lost (deleteEmptyDirData: true)")
    return GO


_FILTERS: tuple[Filter, ...] = (_mirror, _daemon_set, _empty_dir)


def decide(pod: Object, policy: Policy) -> Decision:
    """The first filter that objects decides; otherwise the pod goes."""
    return next((d for f in _FILTERS if (d := f(pod, policy)).action != "go"), GO)


def evictable(pods: Iterable[Object], policy: Policy) -> list[Object]:
    """The pods that a drain evicts."""
    return [p for p in pods if decide(p, policy).action == "go"]


def refused(pods: Iterable[Object], policy: Policy) -> list[str]:
    """A sentence for each pod that stops the drain."""
    decisions = [(p, decide(p, policy)) for p in pods]
    return [
        f"pod {p['metadata']['namespace']}/{p['metadata']['name']}: {d.reason}"
        for p, d in decisions
        if d.action == "refuse"
    ]
