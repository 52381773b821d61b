"""Which cluster this is: names and addresses can be given to any, the UID of kube-system to one.

Systems beside the cluster have no such UID: a plan is for those at the addresses that it was made with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gameday.platform import gpud
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.world import World
from gameday.safety.installed import fault_of

if TYPE_CHECKING:
    from gameday.safety.plan import StepPlan


@dataclass(frozen=True)
class Cluster:
    """One cluster. `uid` is that of its namespace kube-system, which lives as long as the cluster."""

    uid: str = ""
    server: str = ""
    version: str = ""
    context: str = ""

    def __str__(self) -> str:
        return f"{self.context} at {self.server}, Kubernetes {self.version}, kube-system {self.uid}"

    def to_data(self) -> dict[str, str]:
        return {"uid": self.uid, "server": self.server, "version": self.version, "context": self.context}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Cluster:
        """Raises KeyError for what is no cluster."""
        return cls(*(str(data[key]) for key in ("uid", "server", "version", "context")))

    def differs(self, other: Cluster) -> str:
        """The difference of another cluster from this one, or ""."""
        if self.uid != other.uid:
            return f"kube-system has UID {other.uid}, not {self.uid}"
        if self.version != other.version:
            return f"the API server is {other.version}, and was {self.version}"
        return ""


async def cluster_of(kube: Kube) -> Cluster:
    """The cluster behind a client. Raises PlatformError."""
    found = await kube.get(Ref("v1", "Namespace", "kube-system"))
    return Cluster(found["metadata"]["uid"], kube.server, await kube.version(), kube.context)


def systems_of(world: World, steps: Iterable[StepPlan]) -> dict[str, str]:
    """The addresses of the systems beside the cluster on which these steps act, by whoever."""
    found, planned = {}, list(steps)
    if world.slurm is not None and any(fault_of(s.kind, s.fault.spec).needs_slurm for s in planned):
        found["Slurm"] = str(world.slurm.via)
    if any(s.kind == "gpu" for s in planned) and (address := os.environ.get(gpud.ADDRESS)):
        found["GPUd"] = address
    return found
