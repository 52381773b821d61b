"""Which pods a node loses: by a NoExecute taint, by a kubelet that is silent, by a machine that goes.

Facts from Kubernetes: a pod stays while each NoExecute taint of its node is tolerated, and for the shortest
`tolerationSeconds` of the tolerations that match (pkg/controller/tainteviction/taint_eviction.go);
a toleration matches as in staging/src/k8s.io/component-helpers/scheduling/corev1/helpers.go; static pods are
the kubelet's and come back by themselves; DaemonSets tolerate what the node lifecycle sets, not what a person
sets (pkg/controller/daemon/util/daemonset_util.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gameday.faults.drain import pods_on
from gameday.platform.effect import Effect, of_pod
from gameday.platform.objects import Object, controller, is_finished, is_mirror
from gameday.platform.world import World

SLACK = 60.0  # seconds that a taint may stand beyond its hold: until it is seen in, and until it is seen out
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "value": "", "effect": "NoExecute"}


async def by_taint(nodes: Sequence[str], taint: Object, text: str, world: World) -> tuple[Effect, ...]:
    """The pods that a NoExecute taint ends on these nodes while the step holds it."""
    pods, _ = await pods_on(list(nodes), world)
    stands = (world.hold or 0.0) + SLACK
    return tuple(
        of_pod(pod, text, ends=True, comes=True)
        for pod in _lasting(pods)
        if (tolerated := tolerated_for(pod, taint)) is not None and tolerated <= stands
    )


async def by_removal(nodes: Sequence[str], text: str, world: World) -> tuple[Effect, ...]:
    """The pods that go when their node does: all but those of DaemonSets, which belong to it."""
    pods, _ = await pods_on(list(nodes), world)
    return tuple(
        of_pod(pod, text, ends=True, comes=True)
        for pod in _lasting(pods)
        if (controller(pod) or {}).get("kind") != "DaemonSet"
    )


def tolerated_for(pod: Object, taint: Object) -> float | None:
    """Seconds for which a pod stays on a node with this NoExecute taint; None: as long as it wants."""
    matching = [t for t in pod["spec"].get("tolerations") or () if _matches(t, taint)]
    if not matching:
        return 0.0
    seconds = [max(0.0, float(t["tolerationSeconds"])) for t in matching if "tolerationSeconds" in t]
    return min(seconds) if seconds else None


def _matches(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key") or ""
    if key and key != taint["key"]:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")


def _lasting(pods: Iterable[Object]) -> list[Object]:
    """Without those that are over, or that the kubelet runs from a file."""
    return [p for p in pods if not is_finished(p) and not is_mirror(p)]
