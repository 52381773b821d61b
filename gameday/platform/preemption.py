"""Whether the pods that a workload starts may push others off their nodes.

A pod that finds no room preempts pods of a lower priority, in any namespace, unless its PriorityClass says
`preemptionPolicy: Never`; pods without a class have the global default's priority, or 0. Source: Kubernetes
documentation, "Pod Priority and Preemption".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import NotServed
from gameday.platform.objects import Object, Ref, Resource

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

PRIORITY_CLASSES = Resource("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses")
NEEDS = "list priorityclasses.scheduling.k8s.io"


async def preemption(kube: Kube, workload: Ref, template: Object) -> tuple[Effect, ...]:
    """What has to be allowed by name where new pods of this template may preempt others; else nothing."""
    try:
        classes = await kube.list(PRIORITY_CLASSES)
    except NotServed:
        return ()  # a server without priorities
    default = next((c for c in classes if c.get("globalDefault")), {"value": 0})
    name = (template.get("spec") or {}).get("priorityClassName")
    mine = next((c for c in classes if c["metadata"]["name"] == name), default) if name else default
    others = [int(c["value"]) for c in [*classes, default]]
    if _never(mine) or min(others) >= int(mine["value"]):
        return ()
    text = f"its new pods, of priority {mine['value']}, may preempt pods of lower ones in any namespace"
    return (Effect(Kind.OTHER, workload, text),)


def _never(priority_class: dict[str, Any]) -> bool:
    return priority_class.get("preemptionPolicy") == "Never"
