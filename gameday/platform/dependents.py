"""What goes with what ends: objects of which the garbage collector finds no owner any more.

Facts from Kubernetes 1.36: an object goes when none of its owners is there, by UID, whichever of them is its
controller (pkg/controller/garbagecollector, attemptToDeleteItem). A claim of a generic ephemeral volume is
owned by its pod (pkg/controller/volume/ephemeral), and Spark's executors by their driver. A StatefulSet whose
`persistentVolumeClaimRetentionPolicy` says `whenScaled: Delete` gives the claims of the pods that it scales
away to these pods (pkg/controller/statefulset, stateful_set_utils.go), and so they go, too.

Looked at are pods and claims that a pod or a claim owns. Those of other kinds hold neither GPUs nor data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from gameday.experiment.selector import Selector
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from gameday.platform.resources import PODS

CLAIMS = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
_OWNING = ("Pod", "PersistentVolumeClaim")


@dataclass
class Owned:
    """The pods and claims of one namespace that others own; `unread` are plurals that may not be listed."""

    objects: list[Object] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


async def owned_in(kube: Kube, namespace: str) -> Owned:
    """Found by one list of each kind, of which no more is kept than what is owned by a pod or a claim."""
    found = Owned()
    for resource in (PODS, CLAIMS):
        try:
            async for item in kube.each(resource, namespace):
                if any(o["kind"] in _OWNING for o in _owners(item)):
                    found.objects.append(item)
        except ApiError as error:
            if error.status != 403:
                raise
            found.unread.append(resource.plural)
    return found


async def going_with(gone: Collection[str], owned: Iterable[Object], kube: Kube) -> list[Object]:
    """The objects that go when the objects of these UIDs do, and when those go that go with them."""
    uids, left = set(gone), {o["metadata"]["uid"]: o for o in owned}
    found: list[Object] = []
    while more := [
        left.pop(uid)
        for uid, obj in list(left.items())
        if uids.intersection(o["uid"] for o in _owners(obj)) and not await _is_held(obj, uids, kube)
    ]:
        uids |= {o["metadata"]["uid"] for o in more}
        found += more
    return found


async def pods_of(kube: Kube, workload: Ref) -> list[Object]:
    """The pods of a workload, as its own selector finds them; none where it is gone, or has none."""
    selector = await selector_of(kube, workload)
    return await kube.list(PODS, workload.namespace, labels=str(selector)) if selector else []


async def selector_of(kube: Kube, workload: Ref) -> Selector | None:
    """The selector by which a workload finds its pods.

    Raises PlatformError for one that its controller refuses.
    """
    obj = await kube.find(workload.named) or {}
    selector = (obj.get("spec") or {}).get("selector") or {}
    if selector.keys() & {"matchLabels", "matchExpressions"}:
        try:
            return Selector.from_object(selector)
        except ValueError as error:
            raise PlatformError(f"{workload} finds no pods: {error}") from None
    labels = (obj.get("status") or {}).get("selector")  # of a Rollout whose template is elsewhere
    return Selector.parse(labels) if labels else None


def scaled_away(workload: Object, replicas: int) -> set[str]:
    """The names of claims that a StatefulSet deletes when it is scaled to so many replicas, or back."""
    policy = workload["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return claims_between(workload, replicas) if policy.get("whenScaled") == "Delete" else set()


def claims_between(workload: Object, replicas: int) -> set[str]:
    """The names of the claims of the pods that a StatefulSet has more than, or fewer than, so many."""
    spec = workload["spec"]
    if workload["kind"] != "StatefulSet":
        return set()
    first, end = sorted((replicas, int(spec.get("replicas", 1))))
    start = int((spec.get("ordinals") or {}).get("start") or 0)
    return {
        f"{template['metadata']['name']}-{workload['metadata']['name']}-{start + ordinal}"
        for template in spec.get("volumeClaimTemplates") or ()
        for ordinal in range(first, end)
    }


def _owners(obj: Object) -> list[Object]:
    return obj["metadata"].get("ownerReferences") or []


async def _is_held(obj: Object, gone: Collection[str], kube: Kube) -> bool:
    """Whether an owner is there that does not go; one that can't be read is taken to hold nothing."""
    namespace = obj["metadata"]["namespace"]
    for owner in _owners(obj):
        if owner["uid"] in gone:
            continue
        ref = Ref(owner["apiVersion"], owner["kind"], owner["name"], namespace, owner["uid"])
        if await kube.find_readable(ref, []):
            return True
    return False
