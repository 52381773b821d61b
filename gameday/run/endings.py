"""What a run has ended for good: pods and other things that go by an effect, whichever fault it is of.

No undo brings back the pod that Chaos Mesh kills, a taint or a drain ends, or a workload replaces as it is
changed. The effects of each step say which things may end; those that are there when their step begins, and
are gone at the end of the run, are seen to have ended. The run has ended them where its step has changed
anything; what a fault ends by hand, only where the ledger has the change. They are replaced where pods of the
same controllers were seen that were not there before.

No effect names a pod that comes to a node while a fault keeps pods off. Kubernetes ends the pod all the same,
and says so: a pod that it deletes for a NoExecute taint gets the condition DisruptionTarget first
(pkg/controller/tainteviction/taint_eviction.go).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gameday.events import Audited, Ended
from gameday.experiment.selector import Selector
from gameday.faults.lost import WITH_OWNER
from gameday.platform.dependents import selector_of
from gameday.platform.effect import Effect, Kind
from gameday.platform.errors import Failure
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, condition, controller, is_finished, labels_of
from gameday.platform.resources import PODS
from gameday.states import Audit, Change

if TYPE_CHECKING:
    from gameday.ledger.ledger import Entry

WITHIN = 30.0  # seconds for the look at the end
FOLLOWED_WITHIN = 5.0  # seconds of it that controllers are left to replace the last pods
LOOK_EVERY = 0.5  # seconds
ENDED, REPLACED, FOR_GOOD = "ended", "replaced", "ended for good"
_LASTING = (Kind.NODE, Kind.OBJECT, Kind.CLAIM)
_BY_TAINT = "DeletionByTaintManager"  # the reason in that condition


@dataclass
class _Thing:
    """Something that was there, and may be ended: by its successors, too, it may have been ended again."""

    ref: Ref
    owner: str  # the UID of a pod's controller, "" for none
    lost: bool
    again: bool
    along: bool  # goes with another thing that is ended
    by_us: bool = False
    late: str = ""  # the node to which it came when pods were kept off


class Endings:
    """Everything that the steps of one run may end."""

    def __init__(self, kube: Kube, namespaces: Iterable[str] = ()) -> None:
        self._kube, self._namespaces = kube, frozenset(namespaces)  # where pods may come later
        self._there: dict[str, _Thing] = {}  # by UID
        self._of_step: dict[str, set[str]] = {}  # UIDs
        self._first: dict[str, set[str]] = {}  # the pods of each controller at the first look, by UIDs
        self._later: dict[str, set[str]] = defaultdict(set)  # those that came since
        self._kept_off: dict[str, set[str]] = {}  # the nodes that steps keep pods off, by steps
        self._acted: set[str] = set()  # of these steps, those that have changed anything

    async def expect(self, path: str, effects: Iterable[Effect], *, keeps_off: bool = False) -> None:
        """Note what is there of all that a step may end, before it begins. Raises a Failure.

        `keeps_off`: Kubernetes ends pods on its nodes also when they come later.
        """
        effects = list(effects)
        self._kept_off[path] = {e.ref.name for e in effects if e.kind is Kind.NODE and keeps_off}
        ending = [e for e in effects if e.ends]
        lost = {e.ref.uid for e in ending if e.lost}
        again = {e.ref.uid for e in ending if e.times > 1}
        along = {e.ref.uid for e in ending if e.kind is Kind.CLAIM or e.lost == WITH_OWNER}
        pods = [e.ref for e in ending if e.kind is Kind.POD and e.ref.uid]
        lasting = [e.ref for e in ending if e.kind in _LASTING and e.ref.uid]
        # Also those that get more pods: which ones go when they are scaled back, their controller chooses.
        workloads = [e.ref for e in effects if e.kind is Kind.WORKLOAD and e.pods]
        selectors = [(w, await selector_of(self._kube, w)) for w in workloads]
        later = self._namespaces if self._kept_off[path] else ()
        listed = await self._pods([*(ref.namespace for ref in (*pods, *workloads)), *later])
        uids = {ref.uid for ref in pods}
        found = [p for p in listed if p["metadata"]["uid"] in uids or _is_of(p, selectors)]
        found += await self._objects(lasting, [])
        there = self._of_step[path] = set()
        for obj in (o for o in found if not (_is_ended(o) or is_finished(o))):
            uid, owner = obj["metadata"]["uid"], _owner(obj) if obj["kind"] == "Pod" else ""
            thing = _Thing(Ref.of(obj), owner, uid in lost, again=False, along=uid in along)
            before = self._there.setdefault(uid, thing)
            before.again |= uid in again
            there.add(uid)

    def caused(self, path: str, entries: Sequence[Entry], *, by_hand: bool) -> None:
        """What a step has changed, before it is undone: by that the run has ended what is gone of its things.

        `by_hand`: only that which it has changed itself, and what goes with that.
        """
        made = [e for e in entries if e.state is Change.MADE or e.lands_until]
        changed = {e.operation.ref.uid for e in made}
        for uid in self._of_step.get(path, ()) if made else ():
            thing = self._there[uid]
            thing.by_us |= not by_hand or uid in changed or thing.along
        self._acted |= {path} if made else set()

    def hear(self, obj: Object) -> None:
        """A watch brought this object: of a pod that Kubernetes ends for its node, nobody may have known."""
        if obj["kind"] != "Pod":
            return
        meta, node = obj["metadata"], obj["spec"].get("nodeName", "")
        path = next((p for p, nodes in self._kept_off.items() if node in nodes), None)
        if path is None or meta["uid"] in self._there or not _is_ended_by_taint(obj):
            return
        ref, owner = Ref("v1", "Pod", meta["name"], meta["namespace"], meta["uid"]), _owner(obj)
        thing = _Thing(ref, owner, not owner, again=False, along=False, by_us=path in self._acted, late=node)
        self._there[meta["uid"]] = thing
        self._of_step[path].add(meta["uid"])
        self._later[owner].add(meta["uid"])

    def over(self, path: str) -> None:
        """A step is out: what ends on its nodes from now on is none of its doing."""
        self._kept_off.pop(path, None)

    async def seen(self, audits: Iterable[Audited]) -> list[Ended]:
        """What the run has ended, beside what the audit of the changes found left, or left to others."""
        told = {a.object for a in audits if a.state not in (Audit.RESTORED, Audit.IRREVERSIBLE)}
        things = {u: t for u, t in self._there.items() if t.by_us and str(t.ref) not in told}
        try:
            async with asyncio.timeout(WITHIN):
                return _told(self._judged(await self._gone(things)))
        except (Failure, TimeoutError) as error:
            why = f"whether it was ended could not be seen: {error or 'no answer in time'}"
            return [replace(e, message=why) for e in _told([(t, "") for t in things.values()])]

    # -- what there is -------------------------------------------------------------------------

    async def _gone(self, things: Mapping[str, _Thing]) -> list[_Thing]:
        """Those that are gone; a controller is left a moment to replace them."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FOLLOWED_WITHIN
        while True:
            left = await self._left([t.ref for t in things.values()])
            gone = [thing for uid, thing in things.items() if uid not in left]
            waiting = any(t.owner and done == ENDED for t, done in self._judged(gone))
            if not waiting or loop.time() > deadline:
                return gone
            await asyncio.sleep(LOOK_EVERY)

    def _judged(self, gone: Iterable[_Thing]) -> list[tuple[_Thing, str]]:
        """Things with what has become of them: as many are replaced as pods of their owner came since."""
        free = {owner: len(later) for owner, later in self._later.items()}
        judged = []
        for thing in gone:
            done = FOR_GOOD if thing.lost else REPLACED if thing.owner and free.get(thing.owner) else ENDED
            if done == REPLACED:
                free[thing.owner] -= 1
            judged.append((thing, done))
        return judged

    async def _left(self, refs: Sequence[Ref]) -> set[str]:
        """The UIDs of those that are there still."""
        objects = [r for r in refs if r.kind != "Pod"]
        blind: list[Ref] = []  # what may not be read any more is not said to be gone
        pods = await self._pods(r.namespace for r in refs if r.kind == "Pod")
        found = [*pods, *await self._objects(objects, blind)]
        there = {o["metadata"]["uid"] for o in found if not _is_ended(o)}
        return there | {r.uid or "" for r in objects if r.named in blind}

    async def _pods(self, namespaces: Iterable[str | None]) -> list[Object]:
        """The pods of namespaces, by lists alone: that is what a plan, and so its account, may ask."""
        spaces = sorted({n for n in namespaces if n})
        lists = await asyncio.gather(*(self._kube.list(PODS, n) for n in spaces))
        found = [p for pods in lists for p in pods]
        now: dict[str, set[str]] = defaultdict(set)
        for pod in (p for p in found if not _is_ended(p)):  # what goes takes nobody's place
            now[_owner(pod)].add(pod["metadata"]["uid"])
        for owner, uids in now.items():
            self._later[owner] |= uids - self._first.setdefault(owner, uids)
        return found

    async def _objects(self, refs: Sequence[Ref], blind: list[Ref]) -> list[Object]:
        found = await asyncio.gather(*(self._kube.find_readable(r.named, blind) for r in refs))
        return [
            o for r, o in zip(refs, found, strict=True) if o is not None and o["metadata"]["uid"] == r.uid
        ]


def _is_ended(obj: Object) -> bool:
    """Whether it goes, or is a pod that was ended; one that came to its own end was not."""
    failed = obj["kind"] == "Pod" and (obj.get("status") or {}).get("phase") == "Failed"
    return failed or "deletionTimestamp" in obj["metadata"]


def _is_ended_by_taint(obj: Object) -> bool:
    target = condition(obj, "DisruptionTarget")
    return target.get("status") == "True" and target.get("reason") == _BY_TAINT


def _owner(obj: Object) -> str:
    return str((controller(obj) or {}).get("uid") or "")


def _is_of(pod: Object, selectors: Iterable[tuple[Ref, Selector | None]]) -> bool:
    """Whether a pod is one of a workload's."""
    namespace = pod["metadata"]["namespace"]
    return any(
        selector and namespace == workload.namespace and selector.matches(labels_of(pod))
        for workload, selector in selectors
    )


def _told(things: Iterable[tuple[_Thing, str]]) -> list[Ended]:
    """One for each name: a pod of a StatefulSet may have been ended under the same name several times."""
    named: dict[tuple[str, str], list[_Thing]] = defaultdict(list)
    for thing, done in things:
        named[str(thing.ref), done].append(thing)
    return [
        Ended(
            object=name,
            done=done,
            count=len(same),
            at_least=any(t.again for t in same),
            message=next((f"came to {t.late} while pods were kept off" for t in same if t.late), ""),
        )
        for (name, done), same in named.items()
    ]
