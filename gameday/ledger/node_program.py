"""The operation that runs a program on a node: made by creating its pod, undone by seeing it revert.

The program reverts by itself in any case. The undo's part is to tell it so at once, to read its last words
from the pod's status, and where those are missing (the pod was deleted by force, the program was killed) to
send another one, which finds on the node what the first one left, if anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.node_pod import AGAIN, CONTAINER, GRACE, Settings, files_name, helpers, pod
from gameday.ledger.node_report import (
    Report,
    alone,
    last_words,
    lines_of,
    started,
    state_of,
    taken_up,
    waiting_for,
    words_of,
)
from gameday.ledger.operations import (
    UNDO_WITHIN,
    Altered,
    Create,
    Ended,
    Operation,
    Refused,
    Undone,
    is_of,
)
from gameday.node.task import Task
from gameday.platform.effect import Touch
from gameday.platform.errors import ApiError, PlatformError, Unreachable, is_answer
from gameday.platform.following import follow
from gameday.platform.objects import Object, Ref, condition, is_finished, is_ready
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

END_WITHIN = GRACE + 30.0  # seconds from "stop" to a pod that is gone
LOG_WITHIN = 3.0  # a node that does not answer soon is silent
REVERT_WITHIN = 90.0  # for a second program, with its start


@dataclass
class NodeProgram(Operation):
    """A program on a node, in a pod, with an account of its own."""

    kind: ClassVar[str] = "node-program"
    ref: Ref
    run: str
    node: str
    task: Task
    settings: Settings
    files: str = ""  # the ConfigMap's name, which another version's files would change
    uids: tuple[str, ...] = ()  # of its objects, as far as they were heard
    node_uid: str = ""  # of the Node that was approved; "" in the record of an earlier version
    # The program's last words, from one attempt of the undo to the next: its pod is gone by then.
    _last: dict[str, Any] | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.files = self.files or files_name(self.ref, self.task)

    @property
    def summary(self) -> str:
        if self.task.mode == "check":
            return f"ask {self.node} what speaks against {self.task.action}"
        return f"{self.task.action} on {self.node}, at most {self.task.seconds:g} s"

    @property
    def undo_within(self) -> float:
        return UNDO_WITHIN + 2 * END_WITHIN + REVERT_WITHIN

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref, made=True, runs_on=self.node),)

    def to_data(self) -> dict[str, Any]:
        return {
            "op": self.kind,
            "ref": self.ref.to_data(),
            "run": self.run,
            "node": self.node,
            "task": self.task.to_data(),
            "settings": self.settings.to_data(),
            "files": self.files,
            **({"uids": list(self.uids)} if self.uids else {}),
            "nodeUid": self.node_uid,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> NodeProgram:
        return cls(
            Ref.from_data(data["ref"]),
            data["run"],
            data["node"],
            Task.from_data(data["task"]),
            Settings.from_data(data["settings"]),
            files=data.get("files") or data["ref"]["name"],
            uids=tuple(data.get("uids") or ()),
            node_uid=str(data.get("nodeUid", "")),
        )

    # -- making --------------------------------------------------------------------------------

    async def make(self, kube: Kube) -> Altered:
        """Returns when the pod is created; `report` says how it fares."""
        why = await self._create(kube, self.ref, self.task.mode)
        return Altered(self, why, as_approved=True, learned={"created": True})

    async def _create(self, kube: Kube, ref: Ref, mode: str) -> str:
        """The changes that admission made to its objects, whose UIDs are kept as each is created."""
        wanted = [Create.of(m, self.run) for m in self._objects()]
        done = await asyncio.gather(*(self._ensure(kube, c) for c in wanted), return_exceptions=True)
        if failed := [r for r in done if isinstance(r, BaseException)]:
            raise min(failed, key=is_answer)  # one whose object may still come, if there is any
        if await self._replaced(kube):
            raise PlatformError(f"{self._node} is another one than was approved: nothing is started there")
        body = pod(ref, self.task, self.run, self.node, self.settings, mode, self.files)
        done.append(await self._ensure(kube, Create.of(body, self.run)))
        return "; ".join(why for why in done if isinstance(why, str) and why)

    async def _ensure(self, kube: Kube, create: Create) -> str:
        try:
            made = await create.make(kube)
        except ApiError as error:
            found = await kube.find(create.ref) if error.reason == "AlreadyExists" else None
            if found is None or not self._ours(found) or not _as_made(found, create.manifest or {}):
                raise
            return ""
        assert made is not None
        assert isinstance(made.operation, Create)
        self.uids += made.operation.uids
        return f"{create.ref}: {made.why}" if made.why else ""

    async def report(self, kube: Kube) -> Report:
        """The report in the pod's status and log. Raises PlatformError."""
        found = await kube.get(self.ref)
        if last := last_words(found):
            return Report((last,), ended=is_finished(found))
        if is_finished(found) or not state_of(found).get("running"):
            return Report(ended=is_finished(found), waiting=waiting_for(found))
        try:
            return Report(tuple(lines_of(await kube.logs(self.ref, CONTAINER, timeout=LOG_WITHIN))))
        except (ApiError, Unreachable) as error:
            return Report(silent=str(error))

    async def log(self, kube: Kube) -> list[str]:
        """The last line of its log, where there is one: what a program that can't run said."""
        try:
            return (await kube.logs(self.ref, CONTAINER, lines=1, timeout=LOG_WITHIN)).splitlines()
        except (ApiError, Unreachable):
            return []

    async def ended(self, kube: Kube, within: float) -> Report:
        """As `report`, once the program ended; what it said until then, after `within` seconds."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            report = await self.report(kube)
            if report.ended or asyncio.get_running_loop().time() > deadline:
                return report
            await asyncio.sleep(0.2)

    async def has_landed(self, kube: Kube) -> bool:
        found = await kube.find(self.ref)  # the last of its objects to be made
        return found is not None and self._ours(found)

    async def ended_by_others(self, kube: Kube) -> Ended | None:
        """A pod that is gone, goes or has ended: its program takes the change back, whoever wanted that."""
        if await self._replaced(kube):
            return Ended(f"node {self.node} was replaced by another of that name")
        found = await kube.find(self.ref)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return Ended(f"{self.ref} on {self.node} was deleted")
        if not self._ours(found):
            return Ended(f"{self.ref} is somebody else's by now")
        if not is_finished(found):
            return None
        last = last_words(found)
        return Ended(f"{self.ref} on {self.node} ended: {words_of(last) or waiting_for(found)}{alone(last)}")

    def not_made(self, error: Exception) -> bool:
        return isinstance(error, Refused)  # it is several objects, of which some may be there

    # -- undoing -------------------------------------------------------------------------------

    async def undo(self, kube: Kube) -> Undone:
        outcome = await self._undo(kube)
        return replace(outcome, learned={"last": self._last} if self._last else {})

    async def _undo(self, kube: Kube) -> Undone:
        found = await kube.find(self.ref)
        if found is not None and not self._ours(found):
            return Undone("kept", "a pod of that name belongs to someone else")
        if found is None and not await self._left(kube):
            return self._said()
        if found is not None and (failure := await self._end(kube, Ref.of(found))):
            return failure
        if await self._replaced(kube):
            self._last = None  # another machine may have run the pod, and said so
        outcome = Undone("undone") if self._is_out() else await self._revert(kube)
        if outcome.state == "failed":
            return outcome  # what is left of its objects keeps the audit from calling this restored
        for result in await asyncio.gather(*(c.undo(kube) for c in self._helpers())):
            if result.state == "failed":
                return result
        return outcome if outcome.message else self._said()

    async def audit(self, kube: Kube) -> Undone:
        left = await self._left(kube)
        if not left:
            return (None if self._is_out() else await self._lost(kube)) or self._said()
        known = f"; the program's last words: {words_of(self._last)}" if self._last else ""
        return Undone("failed", f"{', '.join(map(str, left))} still there, so the node may be changed{known}")

    def _said(self) -> Undone:
        return Undone(
            "undone", f"seen on {self.node}: {words_of(self._last)}{alone(self._last)}" if self._last else ""
        )

    def _is_out(self) -> bool:
        """Whether the node was seen unchanged, or nothing can have been changed."""
        return self.task.mode == "check" or (self._last or {}).get("event") == "out"

    async def _end(self, kube: Kube, ref: Ref) -> Undone | None:
        """Tell the program to stop, and hear its last words before its pod is gone; what failed, or None."""
        seen: Object = {}
        try:
            async with asyncio.timeout(END_WITHIN):
                events = follow(kube, PODS, ref.namespace, fields={"metadata.name": ref.name})
                async for kind, obj in events:
                    if kind == "SYNCED":
                        if not seen or not await kube.delete(ref):
                            break
                    elif obj.get("status"):
                        seen = obj
                    if kind == "DELETED":
                        break
        except TimeoutError:
            return await self._stuck(kube, ref, seen)
        self._hear(seen)
        return None

    def _hear(self, seen: Object) -> None:
        if words := last_words(seen):
            self._last = words
        elif seen and not started(seen) and self._last is None:
            self._last = {"event": "out", "facts": ["the program never started, so it changed nothing"]}

    async def _stuck(self, kube: Kube, ref: Ref, seen: Object) -> Undone | None:
        """The pod does not go. One that no kubelet took up is taken away: should one, it finds itself gone.

        So is one whose node was replaced: the machine that ran it answers by that name no more. Of any other
        that was taken up nobody knows: a program that stops its kubelet, or cuts it off, may have started
        without the kubelet telling so.
        """
        if seen and (not taken_up(seen) or await self._replaced(kube)):
            await kube.delete(ref, grace=0)
            self._hear(seen)
            return None
        return Undone(
            "failed",
            f"the pod does not end within {END_WITHIN:g} s ({await self._node_state(kube)}), so what its "
            f"program did can't be read. It reverts by itself {self.task.seconds:g} s after its change, "
            f"if {self.node} runs. When the node answers again: gameday recover --run {self.run}",
        )

    async def _revert(self, kube: Kube) -> Undone:
        """A second program takes back what the first one left, or sees that it left nothing."""
        if lost := await self._lost(kube):
            return lost
        if not is_ready(await kube.find(self._node) or {}):
            return Undone("failed", f"not known how the program ended: {await self._node_state(kube)}")
        second = NodeProgram(
            self._second, self.run, self.node, self.task, self.settings, node_uid=self.node_uid
        )
        await self._create(kube, second.ref, "revert")
        report = await second.ended(kube, REVERT_WITHIN)
        if failure := await self._end(kube, second.ref):
            return failure
        if report.events:
            self._last = report.events[-1]
        if self._is_out():
            return Undone("undone", f"seen on {self.node} by a second program: {words_of(self._last)}")
        return Undone("failed", f"{self.node} may be changed still: {words_of(self._last) or report.waiting}")

    async def _lost(self, kube: Kube) -> Undone | None:
        """Kept, where nobody reads back any more what was changed: the node is gone, or is another one."""
        if await self._replaced(kube):
            return Undone(
                "kept",
                f"node {self.node} was replaced by another of that name, where nothing was started. If the "
                "machine of before runs still, its own program reverts, at the latest "
                f"{self.task.seconds:g} s after its change",
            )
        if await kube.find(self._node) is None:
            return Undone("kept", f"node {self.node} is gone, and with it what was changed there")
        return None

    async def _replaced(self, kube: Kube) -> bool:
        """Whether the node's name is another Node's by now, which nobody approved."""
        node = await kube.find(self._node) if self.node_uid else None
        return node is not None and node["metadata"]["uid"] != self.node_uid

    async def _node_state(self, kube: Kube) -> str:
        node = await kube.find(self._node)
        if node is None:
            return f"node {self.node} is gone"
        ready = condition(node, "Ready")
        return f"node {self.node} is {'Ready' if is_ready(node) else 'not Ready'}: {ready.get('message', '')}"

    # -- its objects ---------------------------------------------------------------------------

    @property
    def _node(self) -> Ref:
        return Ref("v1", "Node", self.node)

    @property
    def _second(self) -> Ref:
        return Ref("v1", "Pod", f"{self.ref.name}{AGAIN}", self.ref.namespace)

    def _helpers(self) -> list[Create]:
        return [Create(Ref.of(m), self.run, uids=self.uids) for m in self._objects()]

    def _objects(self) -> list[Object]:
        return helpers(self.ref, self.task, self.run, self.files)

    def _ours(self, obj: Object) -> bool:
        return is_of(self.run, obj, self.uids)

    async def _left(self, kube: Kube) -> list[Ref]:
        refs = [self.ref, self._second, *(c.ref for c in self._helpers())]
        found = await asyncio.gather(*(kube.find(r) for r in refs))
        return [r for r, obj in zip(refs, found, strict=True) if obj is not None and self._ours(obj)]


def _as_made(found: Object, manifest: Object) -> bool:
    """Whether an object of ours that is there already holds what it was made with: a label can be copied."""
    whole = ("data", "immutable", "rules", "subjects", "roleRef")
    return all(found.get(k) == manifest.get(k) for k in whole) and _holds(found, manifest.get("spec"), "spec")


def _holds(found: Any, wanted: Any, key: Any = None) -> bool:
    """Whether a value is the wanted one, but for what an API server and its webhooks add."""
    if key is not None:
        found = found.get(key)
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(_holds(found, value, name) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return all(any(_holds(item, value) for item in found) for value in wanted)
    return bool(found == wanted) or not (found or wanted)
