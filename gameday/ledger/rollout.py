"""Changes of an Argo Rollout's update: one that can be taken back, and a promotion, which cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from gameday.experiment.text import plain
from gameday.ledger.edits import Edit, Where, at
from gameday.ledger.operations import Operation, Patch, Undone
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

# Which update it is: a template that comes back has its hash again, and another revision (argo-rollouts 1.9,
# rollout/sync.go). How far it has come: what is stable beside it, and the step.
WHICH: tuple[Where, ...] = (
    ("status", "currentPodHash"),
    ("metadata", "annotations", "rollout.argoproj.io/revision"),
)
STEP: Where = ("status", "currentStepIndex")
HOW_FAR: tuple[Where, ...] = (("status", "stableRS"), STEP)
# Which version serves: the stable one, and with blueGreen the one that the active Service selects, as its
# controller last read that Service (argo-rollouts 1.9, rollout/bluegreen.go, syncRolloutStatusBlueGreen).
SERVING: tuple[Where, ...] = (("status", "stableRS"), ("status", "blueGreen", "activeSelector"))


@dataclass(frozen=True)
class ChangeVersion(Patch):
    """Abort an update, or set another template; over when the same version serves as before.

    `follows` holds the hash of the update, and what has to be as before once it is undone: which version
    serves (SERVING), and the step, where the update starts again and has passed a pause.
    """

    kind: ClassVar[str] = "rollout-version"
    past: ClassVar[str] = "set back to its first step"
    follow_within: ClassVar[float] = 60.0

    def _behind(self, obj: Object) -> Undone | None:
        for path, before in self.follows:
            now = at(obj, path)
            text = f"{'.'.join(path)} is {plain(now)}, and was {plain(before)}"
            if path == STEP and int(now or 0) < int(before or 0):
                return Undone("irreversible", f"its update starts again from its first step: {text}")
            if now == before or path == STEP:
                continue
            if path == WHICH[0] and self.subresource:
                return Undone("kept", f"another update followed the one that was aborted: {text}")
            return Undone("failed", f"not the version that served before: {text}")
        return None


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
