"""What a node says of its GPUs, and who on it may be asked about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.platform.objects import Object
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

# MIG devices are resources of their own under the "mixed" strategy, and GPUs under "single"; shared ones
# have a suffix when they are renamed (NVIDIA's device plugin).
_PREFIXES = ("nvidia.com/gpu", "nvidia.com/mig-", "amd.com/gpu")


def gpu_resources(node: Object, field: str = "allocatable") -> dict[str, int]:
    """GPUs and MIG devices that the scheduler may give out on a node (or its `capacity`), by resource."""
    resources = (node.get("status") or {}).get(field) or {}
    return {name: int(amount) for name, amount in resources.items() if name.startswith(_PREFIXES)}


def allocatable_gpus(node: Object, field: str = "allocatable") -> int:
    """As `gpu_resources`, all together."""
    return sum(gpu_resources(node, field).values())


async def pods_on(kube: Kube, node: str) -> list[Object]:
    """The pods of one node that are not going away, in all namespaces."""
    found = await kube.list(PODS, fields=f"spec.nodeName={node},status.phase=Running")
    return [p for p in found if "deletionTimestamp" not in p["metadata"]]
