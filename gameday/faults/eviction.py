"""Which pods of a node must go, by kubectl drain's rules: a chain of small filters, each with its reason.

Facts from k8s.io/kubectl/pkg/drain (filters.go): mirror pods and pods of DaemonSets stay; pods with
emptyDir volumes or without a controller stop the drain unless it is allowed to lose them. Ours is only that
a program of a game day stays on its node, as another fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gameday.ledger.operations import RUN_LABEL
from gameday.platform.objects import MIRROR_POD, Object, controller, is_finished


@dataclass(frozen=True)
class Policy:
    """What a drain may lose."""

    delete_empty_dir_data: bool = False
    force: bool = False  # pods without a controller


@dataclass(frozen=True)
class Decision:
    """What happens to one pod: `go`, `stay` or `refuse`, and why."""

    action: str
    reason: str = ""


GO = Decision("go")
Filter = Callable[[Object, Policy], Decision]


def _mirror(pod: Object, policy: Policy) -> Decision:
    if MIRROR_POD in (pod["metadata"].get("annotations") or {}):
        return Decision("stay", "the kubelet runs it from a file")
    return GO


def _program(pod: Object, policy: Policy) -> Decision:
    if RUN_LABEL in (pod["metadata"].get("labels") or {}):
        return Decision("stay", "a fault of a game day runs in it")
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


def _unmanaged(pod: Object, policy: Policy) -> Decision:
    if controller(pod) is None and not is_finished(pod) and not policy.force:
        return Decision("refuse", "it has no controller, so it would never come back (force: true)")
    return GO


_FILTERS: tuple[Filter, ...] = (_mirror, _program, _daemon_set, _empty_dir, _unmanaged)


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
