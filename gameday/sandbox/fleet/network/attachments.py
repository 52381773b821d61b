"""Which VFs a pod has: what Multus writes on it.

The annotation is that of the Network Plumbing Working Group's multi-network specification.
"""

from __future__ import annotations

import json

from gameday.platform.objects import Object
from gameday.sandbox.facts import annotations_of

STATUS = "k8s.v1.cni.cncf.io/network-status"


def vfs_of(pod: Object) -> list[str]:
    """The PCI addresses of a pod's VFs."""
    try:
        listed = json.loads(annotations_of(pod).get(STATUS) or "[]")
        devices = [(each.get("device-info") or {}).get("pci") or {} for each in listed]
        return [pci["pci-address"] for pci in devices if "pci-address" in pci]
    except (ValueError, TypeError, AttributeError):
        return []  # somebody else wrote it
