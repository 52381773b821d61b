"""A rollback of an Argo CD Application, which is an operation in the Application's own resource.

It is undone by one more: a sync back to what was deployed before, unless somebody deployed something else
meanwhile. No credentials of Argo CD are needed; what the resource says is all that is known.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import (
    MARKED,
    RESTORED,
    UNDO_WITHIN,
    Operation,
    Refused,
    Undone,
    is_marked,
    renew_version,
    until_in,
)
from gameday.platform.argocd import (
    MARK,
    applied,
    describe,
    history,
    initiator,
    mark_of,
    operation_state,
    revision_of,
    same_deployment,
    short,
    under_way,
)
from gameday.platform.conditional import write_if
from gameday.platform.effect import Touch
from gameday.platform.errors import Unreachable
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

TAKEN_UP = 10.0  # seconds in which a controller that is there takes an operation up
CONTROLLER_AWAY = 30.0  # seconds after which nobody waits for one any longer
LOOK = 0.2  # seconds between looks at an operation
SYNC_FIELDS = ("revision", "revisions", "source", "sources")


@dataclass(frozen=True)
class Rollback(Operation):
    """Deploy an earlier entry of an Application's history. `before` and `to` are entries of it.

    `prune_back`: whether the undo may delete what the rollback brought and `before` does not hold.
    """

    kind: ClassVar[str] = "argocd-rollback"
    late: ClassVar[float] = 0.0
    ref: Ref
    run: str
    to: Object
    before: Object
    prune: bool = False
    prune_back: bool = False
    options: tuple[str, ...] = ()  # the Application's own syncOptions
    within: float = 300.0  # seconds that the undo's operation may take
    last: Object = field(default_factory=dict)  # the operation before it, which Argo CD judges drift by

    @property
    def summary(self) -> str:
        return f"deployed revision: {short(revision_of(self.before))} → {short(revision_of(self.to))}"

    @property
    def undo_within(self) -> float:
        return UNDO_WITHIN + self.within

    @property
    def mark(self) -> str:
        """The mark of this rollback among all operations."""
        return f"{self.run} rollback from {self.before['id']}"

    @property
    def restoring(self) -> str:
        return f"{self.run} restore {self.before['id']}"

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {
            "op": self.kind,
            "ref": self.ref.to_data(),
            "run": self.run,
            "to": self.to,
            "before": self.before,
            "prune": self.prune,
            "pruneBack": self.prune_back,
            "options": list(self.options),
            "within": self.within,
            "last": self.last,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Rollback:
        return cls(
            Ref.from_data(data["ref"]),
            data["run"],
            data["to"],
            data["before"],
            data["prune"],
            data["pruneBack"],
            tuple(data["options"]),
            data["within"],
            data.get("last") or {},
        )

    # -- making --------------------------------------------------------------------------------

    async def make(self, kube: Kube) -> None:
        """Ask for it; its end is for the fault to follow. Raises Refused where the Application is busy."""

        async def attempt(_: bool) -> Object | None:
            application = await kube.get(self.ref)
            if self._is_asked_for(application):
                return application
            self._check(application)
            body = self._body(application, self.to, self.mark, prune=self.prune)
            return await write_if(kube, application, body)

        await until_in(self.ref, attempt)

    def _is_asked_for(self, application: Object) -> bool:
        last = operation_state(application).get("operation")
        return self.mark in (mark_of(under_way(application)), mark_of(last))

    def _check(self, application: Object) -> None:
        if busy := under_way(application):
            raise Refused(
                f"{self.ref}: an operation of {initiator(busy)} is in progress, and Argo CD takes one "
                "at a time: wait for it, or end it with `argocd app terminate-op`"
            )
        if not same_deployment(history(application)[-1], self.before):
            raise Refused(f"{self.ref}: {describe(history(application)[-1])} was deployed since the plan")

    def _body(self, application: Object, to: Object, mark: str, *, prune: bool) -> list[Object]:
        """The patch that sets the operation as `argocd app rollback` does."""
        sync: Object = {k: to[k] for k in SYNC_FIELDS if to.get(k)}
        sync |= {"syncStrategy": {"apply": {}}}
        sync |= {"syncOptions": list(self.options)} if self.options else {}
        sync |= {"prune": True} if prune else {}
        info = [{"name": MARK, "value": mark}]
        operation = {"sync": sync, "initiatedBy": {"username": "gameday"}, "info": info}
        body: list[Object] = [{"op": "add", "path": "/operation", "value": operation}]
        if operation_state(application):  # so that nobody takes the last one's end for this one's
            body.append({"op": "remove", "path": "/status/operationState"})
        return body

    async def _patch(self, kube: Kube, application: Object, body: list[Object]) -> bool:
        """Patch the version that was read; False when it changed, or when the answer was lost: look again."""
        try:
            return await write_if(kube, application, body) is not None
        except Unreachable:
            return False

    # -- undoing -------------------------------------------------------------------------------

    async def outdate(self, kube: Kube) -> None:
        await renew_version(kube, self.ref)

    async def undo(self, kube: Kube) -> Undone:
        """End a rollback that is still under way, then deploy what was deployed before."""
        deadline = time.monotonic() + self.within
        since = time.monotonic()  # when the operation that is under way was set, or first seen
        tried = False
        while (application := await kube.find(self.ref)) is not None:
            mark, waited = mark_of(under_way(application)), time.monotonic() - since
            if mark == self.mark:
                await self._end(kube, application, waited)
            elif mark != self.restoring:
                if (verdict := self._judge(application, tried=tried)) is not None:
                    return verdict
                back = self._body(application, self.before, self.restoring, prune=self.prune_back)
                tried = await self._patch(kube, application, back)
                since = time.monotonic()
            idle = not operation_state(application) and waited > CONTROLLER_AWAY
            if idle or time.monotonic() > deadline:
                return Undone("failed", self._unfinished(application))
            await asyncio.sleep(LOOK)
        return Undone("kept", "the Application was deleted meanwhile, so there is nothing to roll forward")

    async def _end(self, kube: Kube, application: Object, waited: float) -> None:
        """Terminate our rollback as `argocd app terminate-op` does; take one back that nobody takes up."""
        if operation_state(application).get("phase") == "Running":
            path = "/status/operationState/phase"
            await self._patch(kube, application, [{"op": "replace", "path": path, "value": "Terminating"}])
        elif not operation_state(application) and waited > TAKEN_UP:
            body: list[Object] = [{"op": "remove", "path": "/operation"}]
            # Without a last operation automated sync takes any difference for new, self-heal or not.
            body += [{"op": "add", "path": "/status/operationState", "value": self.last}] if self.last else []
            await self._patch(kube, application, body)

    def _judge(self, application: Object, *, tried: bool) -> Undone | None:
        """How the undo ends as things stand; None while something of ours is to be taken back.

        `tried`: a sync back that failed was asked for just now, so that trying again would not help.
        """
        last = operation_state(application)
        mark = mark_of(last.get("operation"))
        failed = last.get("phase") in ("Failed", "Error")
        # What was cut off may have applied a part of it; where no manifests could be had, there is no part.
        partly = failed and mark in (self.mark, self.restoring) and bool(applied(last))
        now = (history(application) or [{}])[-1]
        if same_deployment(now, self.before) and not partly:
            return RESTORED
        if busy := under_way(application):
            return Undone("kept", f"an operation of {initiator(busy)} is in progress, and is left to it")
        if failed and mark == self.restoring and tried:
            why = f"{last['phase']}: {last.get('message') or 'no message'}"
            return Undone("failed", f"the sync back to {self._before} ended in {why}")
        if same_deployment(now, self.before):
            return None
        if now.get("id") == self.before["id"] + 1 and same_deployment(now, self.to):
            return None
        return Undone(
            "kept", f"{initiator(now)} deployed {short(revision_of(now))} meanwhile, and it is left so"
        )

    async def audit(self, kube: Kube) -> Undone:
        application = await kube.find(self.ref)
        if application is None:
            return Undone("kept", "the Application is gone")
        if mark_of(under_way(application)) in (self.mark, self.restoring):
            return Undone("failed", self._unfinished(application))
        if is_marked(application):
            return MARKED
        verdict = self._judge(application, tried=True)
        return verdict or Undone("failed", f"{short(revision_of(self.to))} is still deployed")

    def _unfinished(self, application: Object) -> str:
        phase = operation_state(application).get("phase")
        back = mark_of(under_way(application)) == self.restoring
        what = f"the sync back to {self._before}" if back else "the rollback"
        if phase is None:
            return (
                f"{what} waits in the Application's `operation`: "
                "is argocd-application-controller running? It is carried out when it is"
            )
        message = operation_state(application).get("message") or ""
        return f"{what} has not ended ({phase}: {message})"

    @property
    def _before(self) -> str:
        return short(revision_of(self.before))
