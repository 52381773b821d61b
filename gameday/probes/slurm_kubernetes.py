"""The `slurmKubernetesAgree` probe: is a node that one scheduler keeps free kept free by the other too?

A node drained in Slurm alone still gets pods; one cordoned in Kubernetes alone still gets jobs. Whatever
glues the two together takes a while, hence the grace, and may go one way only by design: Slinky's operator
drains in Slurm what is cordoned in Kubernetes and takes back only drains whose reason is its own; CoreWeave's
SUNK carries both ways. Each marks the reasons of its drains by a prefix.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gameday.experiment.model import Duration, Spec
from gameday.experiment.text import plural
from gameday.experiment.values import SlurmName
from gameday.extend import Measurement, Probe
from gameday.probes.slurm import client_of

if TYPE_CHECKING:
    from gameday.platform.objects import Object
    from gameday.platform.slurm.model import Node
    from gameday.platform.world import World

PREFIXES = {"slinky": "slurm-operator:", "sunk": "k8s:"}


class SlurmKubernetesSpec(Spec):
    """Which nodes, and how long the two may disagree about one."""

    grace: Duration = Field(
        30.0, validate_default=True, description="How long a node may be out of service in one of them only."
    )
    glue: Literal["slinky", "sunk", "none"] = Field(
        "none",
        description="What carries a node's state over: `slinky` drains in Slurm what is cordoned in "
        "Kubernetes, and nothing the other way; `sunk` carries both ways; `none`: people do, so that each "
        "difference counts.",
    )
    partition: SlurmName | None = Field(
        None, description="Only the nodes of this partition; else all that both know."
    )


class SlurmKubernetesAgree(Probe[SlurmKubernetesSpec]):
    """The number of nodes that Slurm and Kubernetes disagree about for longer than `grace`; each is named."""

    Spec: ClassVar = SlurmKubernetesSpec
    needs_slurm: ClassVar[bool] = True
    example: ClassVar[str] = """\
name: Slurm and Kubernetes agree on the drains
slurmKubernetesAgree: {grace: 30s}
is: 0
"""

    def __init__(self) -> None:
        # Since when each node is seen to be out of service for one of the two only: neither says so itself.
        self._since: dict[str, float] = {}

    async def measure(self, spec: SlurmKubernetesSpec, world: World) -> Measurement:
        """The disagreements stand in the series' name, so that a failure names them."""
        from gameday.platform.resources import NODES
        from gameday.platform.slurm.hosts import hosts

        in_slurm, listed = await asyncio.gather(client_of(world).nodes(), world.kube.list(NODES))
        in_kubernetes = {n["metadata"]["name"]: n for n in listed}
        asked = [n for n in in_slurm if spec.partition is None or spec.partition in n.partitions]
        on = await hosts(asked, world.kube, listed)
        both = [n for n in asked if on[n.name] in in_kubernetes]
        if not both:
            return Measurement((), "no Slurm node is a node of Kubernetes, by its pod or by its name")
        compared = ((n.name, _difference(n, in_kubernetes[on[n.name]], spec.glue)) for n in both)
        found = {name: text for name, text in compared if text}
        lasting = _lasting(found, self._since, spec.grace, {n.name for n in both})
        younger = "; ".join(f"{text} (within grace)" for name, text in found.items() if name not in lasting)
        text = "; ".join(found[name] for name in lasting)
        message = "; ".join(t for t in (text, younger) if t) or f"{plural(len(both), 'node')} compared"
        return Measurement(((text, float(len(lasting))),), message)


def _lasting(found: dict[str, str], since: dict[str, float], grace: float, asked: set[str]) -> list[str]:
    """The nodes that are disagreed about for longer than `grace`; forgets those that no longer are."""
    now = time.monotonic()
    for name in asked - found.keys():
        since.pop(name, None)
    return [name for name in found if now - since.setdefault(name, now) >= grace]


def _difference(node: Node, other: Object, glue: str) -> str:
    """Where a node is out of service in one only, which one and why; "" where they agree, or are meant to."""
    from gameday.platform.objects import is_true

    cordoned = bool((other.get("spec") or {}).get("unschedulable"))
    out = cordoned or not is_true(other, "Ready")
    if node.out == out:
        return ""
    if node.out and glue == "slinky" and not node.reason.startswith(PREFIXES["slinky"]):
        return ""  # somebody's own drain, which that glue leaves in Slurm
    carried = node.out and glue in PREFIXES and node.reason.startswith(PREFIXES[glue])
    if carried:
        return (
            f"{node.name} is {node.word} in Slurm since {glue} found it cordoned ({node.reason}), but it no "
            "longer is in Kubernetes"
        )
    if node.out:
        return f"{node.name} is {node.word} in Slurm ({node.reason or 'no reason given'}), not in Kubernetes"
    return f"{node.name} is {'cordoned' if cordoned else 'not Ready'} in Kubernetes, but {node.word} in Slurm"
