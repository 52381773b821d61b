"""A promotion of an Argo Rollout: a change of its status that cannot be taken back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from gameday.ledger.edits import Edit, at
from gameday.ledger.operations import Operation, Patch, Undone, Where
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

# Which update it is: a template that comes back has its hash again, and another revision (argo-rollouts 1.9,
# rollout/sync.go). How far it has come: what is stable beside it, and the step.
WHICH: tuple[Where, ...] = (
    ("status", "currentPodHash"),
    ("metadata", "annotations", "rollout.argoproj.io/revision"),
)
HOW_FAR: tuple[Where, ...] = (("status", "stableRS"), ("status", "currentStepIndex"))


@dataclass(frozen=True)
class Promote(Patch):
    """Skip what an update waits for. Irreversible once the update has gone on: its pods are replaced then.

    `follows` says which update that is, and how far it had come: that what waits now is the same.
    """

    kind: ClassVar[str] = "rollout-promote"
    past: ClassVar[str] = "promoted"

    @classmethod
    async def of(
        cls,
        kube: Kube,
        ref: Ref,
        *edits: Edit,
        subresource: str = "status",
        follows: Iterable[Where] = (*WHICH, *HOW_FAR),
    ) -> Self | None:
        return await super().of(kube, ref, *edits, subresource=subresource, follows=follows)

    @property
    def followed(self) -> bool:
        return False  # nothing is waited for

    def over(self, earlier: Operation) -> None:
        return None  # what can't be taken back takes nothing over

    def replaced_in(self, rollout: Object) -> bool:
        """Whether the Rollout is at another update than the one that was promoted."""
        then = dict(self.follows)
        return any(at(rollout, path) != then.get(path) for path in WHICH)

    async def undo(self, kube: Kube) -> Undone:
        """By where the update is now: nobody says "promoted" of one that waits where it waited."""
        rollout = await kube.find(self.ref)
        if rollout is None:
            return Undone("kept", "the Rollout is gone, so there is nothing to restore")
        if self.replaced_in(rollout):
            return Undone("irreversible", "another update followed the one that was promoted")
        if not self._behind(rollout) and all(edit.stands(rollout) for edit in self.edits):
            return Undone("undone", "its update waits where it waited before")
        return Undone("irreversible", "its update went on; a pause put back would only stop the next step")

    audit = undo
