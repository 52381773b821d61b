"""The objects that a run keeps in the cluster: its Lease, its record, its key, and how they are removed.

Each carries a finalizer, so that `kubectl delete namespace gameday` in the middle of a run loses none of
them: the API server refuses new objects in a namespace that is being deleted, but lets those that are there
be changed, so the run can be restored from them. Only whoever restored it takes the finalizers off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gameday.ledger.operations import RUN_LABEL
from gameday.platform.conditional import create_if_absent, delete_if, write_if
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref, labels_of
from gameday.platform.resources import NAMESPACES

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

NAMESPACE = "gameday"
FINALIZER = "gameday.dev/ledger"


def name_of(run: str) -> str:
    """The name of every object of a run."""
    return f"gameday-{run}"


def metadata(run: str, **more: Any) -> Object:
    """The metadata of an object of a run's."""
    labels = {RUN_LABEL: run, **more.pop("labels", {})}
    return {
        "name": name_of(run),
        "namespace": NAMESPACE,
        "labels": labels,
        "finalizers": [FINALIZER],
        **more,
    }


def check_is_of(obj: Object, run: str) -> None:
    """Raises PlatformError for an object under a run's name that is none of the run's.

    `gameday-lever` and `gameday-slack` are named like those of a run `lever`, or `slack`.
    """
    if labels_of(obj).get(RUN_LABEL) != run:
        raise PlatformError(f"{Ref.of(obj)} is not of run {run}: it has no label {RUN_LABEL}={run}")


async def remove(kube: Kube, found: Object) -> bool:
    """Take our finalizer off an object and delete it, both only in the version that was read.

    False where it is another by now, or gone.
    """
    left = [f for f in found["metadata"].get("finalizers") or () if f != FINALIZER]
    written = await write_if(kube, found, {"metadata": {"finalizers": left}})
    return written is not None and await delete_if(kube, written)


async def ensure_namespace(kube: Kube) -> None:
    """Create the namespace that holds ledgers and leases. It is the one thing that stays."""
    if await kube.find(Ref("v1", "Namespace", NAMESPACE)) is None:
        meta = {"name": NAMESPACE}
        body = {"apiVersion": NAMESPACES.api_version, "kind": NAMESPACES.kind, "metadata": meta}
        await create_if_absent(kube, body)


async def cluster_id(kube: Kube) -> str:
    """A cluster's identity: the UID of its namespace kube-system, as is the custom.

    Where that may not be read, the API server's address.
    """
    try:
        found = await kube.get(Ref("v1", "Namespace", "kube-system"))
    except ApiError:
        return kube.server
    return str(found["metadata"]["uid"])
