"""A promotion of an Argo Rollout: a change of its status that cannot be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gameday.ledger.operations import Patch, Undone

if TYPE_CHECKING:
    from gameday.platform.kube import Kube


@dataclass(frozen=True)
class Promote(Patch):
    """Skip what an update waits for. Irreversible: its pods are replaced from then on."""

    kind: ClassVar[str] = "rollout-promote"

    async def undo(self, kube: Kube) -> Undone:
        return Undone(
            "irreversible", "what was promoted runs; putting the pause back would only stop the next step"
        )

    audit = undo
