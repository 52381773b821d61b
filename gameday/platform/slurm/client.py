"""Slurm over whatever ways there are: the first is asked, and the first that can make a change makes it.

slurmrestd of older versions can only be read; with scontrol beside it, faults work there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.experiment.names import slurm_name
from gameday.experiment.text import plural
from gameday.masking import clip
from gameday.platform.errors import BadName
from gameday.platform.slurm.model import Job, Node, Partition
from gameday.platform.slurm.transport import Change, SlurmError, Transport, Via

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

_OPEN: dict[Via, Slurm] = {}  # those that need no cluster client; they hold no connection


class Slurm:
    """One Slurm cluster. All methods raise Unreachable (nobody answered) or SlurmError (it said no)."""

    def __init__(self, via: Via, transports: list[Transport]) -> None:
        self.via = via
        self._transports = transports

    @classmethod
    def of(cls, via: Via, kube: Kube) -> Slurm:
        """The client for an address. Nothing is sent yet. Raises ConfigError."""
        if via in _OPEN:
            return _OPEN[via]
        transports: list[Transport] = []
        if via.url:
            from gameday.platform.slurm.rest import SlurmRest, check_url

            transports.append(SlurmRest(check_url(via.url), via.user))
        if via.namespace or via.local:
            from gameday.platform.slurm.scontrol import Scontrol, in_pod, run_here

            transports += [Scontrol(in_pod(kube, via))] if via.namespace else []
            transports += [Scontrol(run_here)] if via.local else []
        made = cls(via, transports)
        if not via.namespace:
            _OPEN[via] = made
        return made

    async def nodes(self) -> list[Node]:
        return await self._transports[0].nodes()

    async def node(self, name: str) -> Node:
        """One node. Raises SlurmError when there is none of that name."""
        found = next((n for n in await self.nodes() if n.name == name), None)
        if found is None:
            raise SlurmError(f"there is no Slurm node {name}")
        return found

    async def jobs(self) -> list[Job]:
        return await self._transports[0].jobs()

    async def partitions(self) -> list[Partition]:
        return await self._transports[0].partitions()

    async def describe(self) -> str:
        """Where it is and how large, once it has answered and taken the token."""
        return f"{self.via}: {plural(len(await self.partitions()), 'partition')}"

    async def partition(self, name: str) -> Partition:
        """One partition. Raises SlurmError when there is none of that name."""
        found = {p.name: p for p in await self.partitions()}
        if name not in found:
            raise SlurmError(
                f"there is no partition {name} in Slurm, only {', '.join(sorted(found)) or 'none'}"
            )
        return found[name]

    async def setting(self, name: str) -> str:
        """What slurm.conf says of it; "" where no way tells."""
        told = [await t.setting(name) for t in self._transports]
        return next(filter(None, told), "")

    async def cannot(self, change: Change) -> str:
        """Why none of the ways can make such a change; "" where one can."""
        reasons = [await t.cannot(change) for t in self._transports]
        return (
            "" if "" in reasons else "; ".join(reasons) + ": name `exec` or `local` in spec.target.slurm too"
        )

    async def update_node(self, name: str, state: str, reason: str = "") -> None:
        _check(name)
        await (await self._able("node")).update_node(name, state, reason)

    async def update_partition(self, name: str, state: str) -> None:
        _check(name)
        await (await self._able("partition")).update_partition(name, state)

    async def requeue(self, job: int) -> None:
        await (await self._able("requeue")).requeue(job)

    async def _able(self, change: Change) -> Transport:
        for transport in self._transports:
            if not await transport.cannot(change):
                return transport
        raise SlurmError(await self.cannot(change))


def _check(name: str) -> None:
    """Raises BadName for what Slurm would take for several nodes, or for another argument."""
    try:
        slurm_name(name)
    except ValueError as error:
        raise BadName(f"nothing was asked of Slurm: {clip(name, 300)!r} {error}") from None
