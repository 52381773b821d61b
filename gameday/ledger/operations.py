"""The reversible operations: what can be done to the world, each as data with its own undo.

An operation is made and undone with nothing but a cluster client, so that a process which never saw
the run can undo it from the record alone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from gameday.experiment import registry
from gameday.experiment.text import plain, shorten
from gameday.ledger import binding
from gameday.ledger.edits import Edit, Where, all_as_stored, alterations, at, patch_body, same
from gameday.ledger.field_owners import foreign_owner, is_held, last_writer
from gameday.platform.chaos_mesh import complaints
from gameday.platform.complaints import warnings_about
from gameday.platform.conditional import write_if
from gameday.platform.effect import Touch
from gameday.platform.errors import ApiError, Failure, Unreachable, not_found
from gameday.platform.objects import Object, Ref, labels_of
from gameday.states import Change as State

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

T = TypeVar("T")
RUN_LABEL = "gameday.dev/run"  # on every object a run creates: says whose it is
UNDO_WITHIN = 300.0  # seconds that an undo may take which waits for nobody
GONE_WITHIN = 60.0  # seconds that an object with finalizers may take to go
OUTDATED_LABEL = "gameday.dev/outdated"  # set for a moment, so that an object gets a new version
LATE = 60.0  # seconds: kube-apiserver's default --request-timeout, after which it gives a request up
FOLLOWED_WITHIN = 600.0  # seconds: a MIG manager that restarts a node takes minutes
FOLLOW_EVERY = 0.5  # seconds between two looks
ATTEMPTS = 8  # at a patch that others keep racing
LONGEST = 200  # characters of a value that admission changed


class Refused(Failure):
    """A change was not made, because the world is not as it was planned for."""

    may_land = False


@dataclass(frozen=True)
class Undone:
    """How an undo, or the audit of one, ended. `state`: undone, kept, irreversible, failed; else ValueError.

    `learned` is plain data for the evidence of the fault that made the change.
    """

    state: str  # a State from then on
    message: str = ""
    learned: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        state = State(self.state)
        if not state.ended:
            raise ValueError(f"no undo ends as {state}")
        object.__setattr__(self, "state", state)


RESTORED = Undone("undone")
MARKED = Undone("failed", f"still there: label {OUTDATED_LABEL}")


@dataclass(frozen=True)
class Ended:
    """How a change came to an end that its run did not undo; `by`: who ended it, "" where nobody can tell."""

    how: str
    by: str = ""


@dataclass(frozen=True)
class Altered:
    """A change as the server stored it, by which its undo knows what is ours.

    `why` says what was written and what was stored, where mutating admission made something else of it; ""
    where the two mean the same. `as_approved`: the fault may be in nevertheless, and is waited for.
    """

    operation: Operation
    why: str = ""
    as_approved: bool = False
    learned: Mapping[str, Any] = field(default_factory=dict)  # as `make` gives it otherwise


class Operation(ABC):
    """One change to one object, and how to take it back.

    `kind` is the name of its entry point in the group `gameday.operations`: the record of a run holds it.
    """

    kind: ClassVar[str]
    interruptible: ClassVar[bool] = False  # a cancellation cuts `make` off, instead of waiting for its end
    irreversible: ClassVar[str] = ""  # why, when it can't be taken back once it is made
    past: ClassVar[str] = "changed for good"  # what was done with the object then, as in "1 job was requeued"
    hopeless: ClassVar[bool] = False  # whether undoing can't succeed, however often it is tried
    verifiable: ClassVar[bool] = True  # whether the audit can see what was changed; else it goes by the undo

    late: ClassVar[float] = LATE  # seconds in which a `make` whose failure is no answer may still land
    one_request: ClassVar[bool] = False  # whether `make` changes the world by one request, and sends it once

    if TYPE_CHECKING:  # fields of some, which a property here would stand in the way of

        @property
        def ref(self) -> Ref:
            """The object."""

        @property
        def summary(self) -> str:
            """The change in a few words."""

    @property
    def undo_within(self) -> float:
        """Seconds that one `undo` may take; then it is left behind, and the change stays open."""
        return UNDO_WITHIN

    @property
    def sets(self) -> tuple[str, ...]:
        """The fields of the object that the change sets, by their paths, as spec.unschedulable."""
        return ()

    def touches(self) -> tuple[Touch, ...]:
        """Every object that `make` changes; needed of an operation that is to be made.

        The ledger holds them against what was approved before anything is written down. An operation without
        this is refused there, and can still be undone from the record of an earlier version.
        """
        raise Refused(f"{type(self).__name__} does not say what it touches: its package has to add `touches`")

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Plain data from which `from_data` makes an operation that can be undone; `op` is the kind."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: dict[str, Any]) -> Operation:
        """The operation of a record. Raises KeyError, TypeError or ValueError for a damaged one."""

    @abstractmethod
    async def make(self, kube: Kube) -> Mapping[str, Any] | Altered | None:
        """Make the change. Raises Refused where the world is not as it was planned for.

        What it gives is plain data for the evidence of the fault, found as `learned` in the Injected; or the
        change as the server stored it, where that is another.
        """

    @abstractmethod
    async def undo(self, kube: Kube) -> Undone:
        """Take it back if it is in force and still ours; may be called any number of times."""

    @abstractmethod
    async def audit(self, kube: Kube) -> Undone:
        """Read again whether it is taken back, and change nothing."""

    async def ended_by_others(self, kube: Kube) -> Ended | None:
        """How a change that was made ended without us; None while it is in force, or where nobody knows."""
        return None

    async def outdate(self, kube: Kube) -> None:  # noqa: B027 - a hook with a default
        """Keep requests of a `make` that nobody heard the end of from landing after the undo has looked.

        An operation whose requests are good for one version of an object alone gives it another version, and
        sets `late` to 0; for others the ledger looks again once `late` seconds have passed.
        """

    async def has_landed(self, kube: Kube) -> bool:
        """Whether no request of a `make` that nobody heard the end of is on its way any more.

        One request has arrived once its change is in force. Where nobody knows, the ledger undoes the change
        a second time when `late` seconds have passed.
        """
        return self.one_request and (await self.audit(kube)).state in ("failed", "irreversible")

    def not_made(self, error: Exception) -> bool:
        """Whether `make` failed in a way that says for certain that nothing was changed.

        Asked of a failure that was an answer (`Failure.may_land`). 409 and 429 may be answers to a second
        attempt. An operation of several requests knows better.
        """
        return isinstance(error, Refused) or (
            isinstance(error, ApiError) and error.status < 500 and error.status not in (409, 429)
        )

    def clash(self, other: Operation) -> str:
        """Why this change can't be made while another one of the same object is in force; "" when it can."""
        return ""

    def below(self, later: Operation) -> Operation:
        """This change, as it must be undone where the same run changed its object again (`later`)."""
        return self

    def over(self, earlier: Operation) -> tuple[Operation | None, Operation] | None:
        """Take over the undo of an earlier change, since this one wrote into the same field after it.

        Called when the earlier change is to be undone while this one stays in force. Two operations are given
        back: what the earlier change must still undo itself (None: nothing), and this change with the earlier
        one's `before`, so that its own undo brings back the value from before both. None is given back where
        the two changes share no field, or somebody else wrote into the field between them.
        """
        return None

    def in_version(self, api_version: str) -> Operation | None:
        """The change, as it is undone where the cluster serves its object in that version of its API alone.

        None where nobody knows how: the undo fails then, and says that the kind is not served.
        """
        return None

    @property
    def carries(self) -> bool:
        """Whether this change took over the undo of an earlier one (see `over`).

        Such a change is undone even where its own `make` was refused: the earlier change is in force.
        """
        return False

    @property
    def followed(self) -> bool:
        """Whether a controller has to follow the undo, before what came earlier is undone."""
        return False


def _moved_on(ref: Ref, edit: Edit, obj: Object) -> Refused:
    """The refusal of a change: its field has another value than when the change was planned."""
    before, now = edit.shown(edit.before), edit.shown(edit.read(obj))
    return Refused(f"{ref}: {edit.name} was {before} when it was planned, but now it is {now}: plan again")


def touched(operation: Operation) -> tuple[Touch, ...]:
    """The touches that an operation names. Raises Refused where it names none: silence is no free pass."""
    said: object = operation.touches()
    if isinstance(said, tuple) and said and all(isinstance(t, Touch) for t in said):
        return said
    raise Refused(f"{type(operation).__name__} does not say what it touches: it gives {shorten(repr(said))}")


@dataclass(frozen=True)
class Patch(Operation):
    """Set fields of an object; undo puts back those that still hold what we wrote.

    `subresource` is the one that takes the change, as `resize` does a running pod's resources. `manager` is
    the field manager of the run, by which the API server knows what is ours. `follows` are fields that a
    controller writes, with their values of before: the undo is over when the controller has followed it, and
    what came before it is undone after that. `translated`: the object is read in another version of its API
    than the change was made in, where its fields may have other names.
    """

    kind: ClassVar[str] = "patch"
    late: ClassVar[float] = 0.0
    follow_within: ClassVar[float] = FOLLOWED_WITHIN  # seconds that an undo waits for a controller
    ref: Ref
    edits: tuple[Edit, ...]
    manager: str
    subresource: str = ""
    follows: tuple[tuple[Where, Any], ...] = ()
    translated: bool = False  # not recorded: which versions are served is found out again

    def __post_init__(self) -> None:
        if self.ref.kind == "Secret" and not all(e.secret for e in self.edits):
            object.__setattr__(self, "edits", tuple(replace(e, secret=True) for e in self.edits))

    @classmethod
    async def of(
        cls, kube: Kube, ref: Ref, *edits: Edit, subresource: str = "", follows: Iterable[Where] = ()
    ) -> Self | None:
        """The patch, with `before` read from the cluster; None when everything is so already.

        Raises Refused where an edit comes with the `before` that it was planned for, and it is another now.
        """
        obj = await kube.get(ref)
        ref = Ref(ref.api_version, ref.kind, ref.name, ref.namespace, obj["metadata"]["uid"])
        for edit in (e for e in edits if not same(e.read(obj), e.after)):
            if edit.before is not None and not edit.stands(obj):
                raise _moved_on(ref, edit, obj)
        read = [e.seen_in(obj) for e in edits]
        ours = tuple(e for e in read if not same(e.before, e.after))
        seen = tuple((path, at(obj, path)) for path in follows)
        return cls(ref, ours, kube.manager, subresource, seen) if ours else None

    @property
    def summary(self) -> str:
        return "; ".join(str(e) for e in self.edits)

    @property
    def undo_within(self) -> float:
        return UNDO_WITHIN + self.follow_within

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(".".join(e.path) for e in self.edits))

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        edits = [e.to_data() for e in self.edits]
        more: dict[str, Any] = {"subresource": self.subresource, "manager": self.manager}
        more["follows"] = [[list(path), value] for path, value in self.follows]
        data = {"op": self.kind, "ref": self.ref.to_data(), "edits": edits}
        return data | {k: v for k, v in more.items() if v}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        edits = tuple(map(Edit.from_data, data["edits"]))
        follows = tuple((tuple(path), value) for path, value in data.get("follows") or ())
        manager, subresource = data.get("manager", ""), data.get("subresource", "")
        return cls(Ref.from_data(data["ref"]), edits, manager, subresource, follows)

    # -- changes of one object that lie over each other ----------------------------------------

    def clash(self, other: Operation) -> str:
        """Two fields of which one lies inside the other can't be put back one by one: names such a pair.

        Nobody knows which fields of two versions of an API are one and the same.
        """
        if not isinstance(other, Patch):
            return ""
        if (mine := self.ref.api_version) != (theirs := other.ref.api_version):
            return f"through {theirs}, whose fields can't be told from those of {mine}"
        pairs = product(self.edits, other.edits)
        return next((f"{a.name} lies across {b.name}" for a, b in pairs if a.overlaps(b)), "")

    def below(self, later: Operation) -> Operation:
        """Marks the fields into which somebody else wrote between this change and the later one.

        The undo of the later change writes their value back under our field manager, so that the API server
        would take that value for ours.
        """
        cells = {e.cell: e for e in later.edits} if isinstance(later, Patch) else {}
        lost = [e for e in self.edits if e.cell in cells and not cells[e.cell].lies_on(e)]
        return replace(self, edits=tuple(replace(e, contested=e.contested or e in lost) for e in self.edits))

    def over(self, earlier: Operation) -> tuple[Operation | None, Operation] | None:
        if not isinstance(earlier, Patch):
            return None
        cells = {e.cell: e for e in self.edits}
        # Where somebody changed the field in between, their value is what the later one has to bring back.
        below = {e.cell: e for e in earlier.edits if e.cell in cells and cells[e.cell].lies_on(e)}
        if not any(e.cell in below for e in self.edits):
            return None
        mine = tuple(e.over(below[e.cell]) if e.cell in below else e for e in self.edits)
        rest = tuple(e for e in earlier.edits if e.cell not in below)
        whole = replace(self, edits=mine, follows=earlier.follows or self.follows)
        return (replace(earlier, edits=rest) if rest else None), whole

    def in_version(self, api_version: str) -> Operation | None:
        if type(self) is not Patch:  # what reads more of its object than its own fields
            return None
        return replace(self, ref=replace(self.ref, api_version=api_version), translated=True)

    @property
    def carries(self) -> bool:
        return any(e.also for e in self.edits)

    @property
    def followed(self) -> bool:
        return bool(self.follows)

    # -- making and undoing --------------------------------------------------------------------

    async def make(self, kube: Kube) -> Altered | None:
        """Write `after` where the object still holds `before`; raises Refused where it does not."""

        async def attempt(again: bool) -> tuple[Edit, ...] | None:
            obj = await kube.get(self.ref)
            if again and len(self._ours(obj)) == len(self.edits):
                return all_as_stored(self.edits, obj, obj)
            self._check(obj)
            answer = await self._write(kube, obj, [(e, e.after) for e in self.edits])
            return None if answer is None else all_as_stored(self.edits, obj, answer)

        stored = await until_in(self.ref, attempt)
        return None if stored == self.edits else Altered(replace(self, edits=stored), _altered(stored))

    def _check(self, obj: Object) -> None:
        changed = [e for e in self.edits if not e.stands(obj)]
        if changed:
            raise _moved_on(self.ref, changed[0], obj)

    async def outdate(self, kube: Kube) -> None:
        # What landed already is a newer version than the one that its other attempts were for.
        await renew_version(kube, self.ref, unless=lambda obj: bool(self._ours(obj)))

    async def undo(self, kube: Kube) -> Undone:
        for _ in range(ATTEMPTS):
            obj = await kube.find(self.ref)
            if obj is None:
                return await self._gone(kube)
            ours = self._ours(obj)
            if self.translated and len(ours) < len(self.edits):  # a field that is not there may be elsewhere
                return Undone("failed", f"{self.ref.api_version} does not show the change as it was written")
            answer = await self._write(kube, obj, [(e, e.before) for e in ours]) if ours else obj
            if answer is None:
                continue
            if why := _altered(replace(e, after=e.before, sent=()).as_stored(answer) for e in ours):
                return Undone("failed", f"not restored: {why}")
            undone = self._judge(obj, ours)
            undone = await self._followed(kube) if undone is RESTORED else undone
            return undone if ours or undone is not RESTORED else self._back_already(obj)
        return Undone("failed", f"it kept changing while it was restored ({ATTEMPTS} attempts)")

    async def _gone(self, kube: Kube) -> Undone:
        """How it ended where the object is gone: one that was made from its live state holds our value still.

        Nobody can tell whose the value is there, and it is not written to: the new object is somebody else's.
        """
        other = await kube.find(self.ref.named) if self.ref.uid else None
        if other is None:
            return Undone("kept", "the object was deleted meanwhile, so there is nothing to restore")
        if not (held := [e for e in self.edits if e.written(other)]):
            return Undone("kept", "the object was replaced by another of its name, without our change")
        edit = held[0]
        now, before = edit.shown(edit.read(other)), edit.shown(edit.before)
        return Undone(
            "failed",
            f"the object was replaced by another of its name, where {edit.name} is still {now}, "
            f"and was {before}. Nothing is written to an object that this run did not change: set it back, "
            "or take it over with gameday recover --accept",
        )

    def _back_already(self, obj: Object) -> Undone:
        """Restored without us, and whose the field is: nobody knows whether the change was ever made."""
        name, who = self.edits[0].name, last_writer(obj, self.edits[0], self.manager)
        return Undone("undone", f"it was as before already: {name} is {who}'s") if who else RESTORED

    async def audit(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return await self._gone(kube)
        if left := self._ours(obj):
            edit = left[0] if left[0].written(obj) else left[0].as_stored(obj)
            return Undone("failed", f"still changed: {edit}")
        if is_marked(obj):
            return MARKED
        undone = self._judge(obj, [])
        return self._behind(obj) or undone if undone is RESTORED else undone

    async def ended_by_others(self, kube: Kube) -> Ended | None:
        obj = await kube.find(self.ref)
        if obj is None:
            return Ended(f"{self.ref} was deleted")
        if self._ours(obj) or any(e.strayed(obj, self.edits) for e in self.edits):
            return None
        if (by := last_writer(obj, self.edits[0], self.manager)) is None:
            return None
        edit = self.edits[0]
        return Ended(f"{self.ref}: {edit.name} is {edit.shown(edit.read(obj))}", by)

    async def _followed(self, kube: Kube) -> Undone:
        """How it ended when the controllers have followed the undo, or are not going to."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.follow_within
        while self.follows and (obj := await kube.find(self.ref)) and (behind := self._behind(obj)):
            if behind.state != "failed" or loop.time() > deadline:
                return behind
            await asyncio.sleep(FOLLOW_EVERY)
        return RESTORED

    def _behind(self, obj: Object) -> Undone | None:
        """The first field that a controller has not brought back yet."""
        for path, before in self.follows:
            if (now := at(obj, path)) != before:
                words = f"{'.'.join(path)} is {plain(now)}, and was {plain(before)}"
                text = f"{words}: no controller has followed the undo"
                return Undone("failed", text)
        return None

    def _ours(self, obj: Object) -> list[Edit]:
        """The edits that are in force, and ours: with what we wrote, or with what admission made of that.

        The latter is known by its owner, since a run that dies before it hears the answer can't record it.
        """
        return [e for e in self.edits if self._is_ours(obj, e)]

    def _is_ours(self, obj: Object, edit: Edit) -> bool:
        if edit.written(obj):
            return not foreign_owner(obj, edit, self.manager)
        return not (edit.contested or same(edit.read(obj), edit.before)) and is_held(obj, edit, self.manager)

    def _judge(self, obj: Object, restored: list[Edit]) -> Undone:
        if strayed := [e for e in self.edits if e.strayed(obj, self.edits)]:
            where, value = ".".join(strayed[0].path), strayed[0].shown(strayed[0].after)
            return Undone(
                "failed",
                f"{strayed[0].name} is not there any more, but {where} still holds {value} elsewhere",
            )
        foreign = [e for e in self.edits if e not in restored and not same(e.read(obj), e.before)]
        if foreign:
            who = foreign_owner(obj, foreign[0], self.manager)
            now, named = foreign[0].shown(foreign[0].read(obj)), f" ({who})" if who else ""
            return Undone(
                "kept", f"{foreign[0].name} was changed to {now} by someone else{named}, and left so"
            )
        return RESTORED

    async def _write(self, kube: Kube, obj: Object, values: list[tuple[Edit, Any]]) -> Object | None:
        """The object as the server stored it; None where it is another by now."""
        body = patch_body(obj, values)
        return await write_if(kube, obj, body, subresource=self.subresource, manager=self.manager)


def _altered(edits: Iterable[Edit]) -> str:
    """What admission changed, of edits as they were stored; "" for nothing."""
    changed = [
        f"{e.name}: {_short(e, e.sent[0])} was written, {_short(e, e.after)} was stored"
        for e in edits
        if e.sent
    ]
    return f"the API server's admission changed {'; '.join(changed)}" if changed else ""


def _short(edit: Edit, value: Any) -> str:
    return shorten(edit.shown(value), LONGEST)


async def until_in(ref: Ref, attempt: Callable[[bool], Awaitable[T | None]]) -> T:
    """Make a change of the version that was read, over lost answers and other people's changes.

    `attempt` hears whether an answer was lost, so that the change may be in already, and gives the object
    that it is in; None where the object changed, and is to be read again.
    """
    lost: Unreachable | None = None
    for _ in range(ATTEMPTS):
        try:
            if (done := await attempt(lost is not None)) is not None:
                return done
        except Unreachable as error:
            lost = error if error.may_land or lost is None else lost
        except (Refused, ApiError) as error:
            if lost:  # of a change whose answer was lost nobody knows that it was not made
                raise Unreachable(f"{lost}; then: {error}") from error
            raise
    raise lost or Refused(f"{ref}: others kept changing it ({ATTEMPTS} attempts)")


def is_marked(obj: Object) -> bool:
    """Whether `renew_version` was cut off between its two writes."""
    return OUTDATED_LABEL in labels_of(obj)


async def renew_version(kube: Kube, ref: Ref, unless: Callable[[Object], bool] = lambda obj: False) -> None:
    """Give an object another resourceVersion, so that a patch of an older one can't land any more.

    `unless` says of the object as it is that it needs none. A patch that changes nothing keeps the version:
    a label is set, and removed again, each in the version that was read. (An annotation of a Deployment would
    stay behind on its ReplicaSets.) After a kill in between the label says that the removal is left, a new
    version as well. Source: "Kubernetes API Concepts", resource versions.
    """
    while (obj := await kube.find(ref)) is not None:
        if (unless(obj) and not is_marked(obj)) or await _renewed(kube, obj):
            return


async def _renewed(kube: Kube, obj: Object) -> bool:
    """Whether the version that was read could be replaced; False when the object was changed meanwhile."""
    for label in [None] if is_marked(obj) else ["true", None]:
        written = await write_if(kube, obj, {"metadata": {"labels": {OUTDATED_LABEL: label}}})
        if written is None:
            return False
        obj = written
    return True


@dataclass(frozen=True)
class Create(Operation):
    """Create an object; undo deletes it, if it is ours, and waits until it is gone.

    The object is ours by its UID, and by the run's label where nobody heard the answer that gives the UID.
    `force` removes finalizers that nobody has removed `within` seconds; without it that is reported.
    `propagation` Foreground makes the object stay until all that it owns is gone.
    """

    kind: ClassVar[str] = "create"
    one_request: ClassVar[bool] = True
    ref: Ref
    run: str
    manifest: Object | None = None  # not recorded: undo needs the name alone
    force: bool = False
    within: float = GONE_WITHIN
    propagation: str = "Background"
    uids: tuple[str, ...] = ()  # those that the object may have, once an answer gave one

    @classmethod
    def of(cls, manifest: Object, run: str, force: bool = False, **options: Any) -> Self:
        """The operation for a manifest, which gets the run's label."""
        meta = manifest["metadata"]
        labelled = meta | {"labels": {**labels_of(manifest), RUN_LABEL: run}}
        return cls(Ref.of(manifest), run, manifest | {"metadata": labelled}, force, **options)

    @property
    def summary(self) -> str:
        return "create" + (" (finalizers may be removed by force)" if self.force else "")

    @property
    def undo_within(self) -> float:
        return UNDO_WITHIN + self.within

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref, made=True),)

    def to_data(self) -> dict[str, Any]:
        return {
            "op": self.kind,
            "ref": self.ref.to_data(),
            "run": self.run,
            "force": self.force,
            "within": self.within,
            "propagation": self.propagation,
            **({"uids": list(self.uids)} if self.uids else {}),
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        options = {k: data[k] for k in ("force", "within", "propagation") if k in data}
        return cls(Ref.from_data(data["ref"]), data["run"], uids=tuple(data.get("uids") or ()), **options)

    async def make(self, kube: Kube) -> Altered | None:
        """The object as it was stored, with its UID; None is for subclasses of other packages."""
        assert self.manifest is not None, "an operation read back from a record can only be undone"
        stored = await binding.create(kube, self.manifest)
        changed = alterations(self.manifest, stored)
        only_named = all(edit.path[0] == "metadata" for edit in changed)
        return Altered(replace(self, uids=(stored["metadata"]["uid"],)), _altered(changed), only_named)

    async def undo(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return RESTORED
        if not self._ours(obj):
            return Undone("kept", "an object of that name belongs to someone else")
        await kube.delete(Ref.of(obj), propagation=self.propagation)
        if await _gone(kube, Ref.of(obj), self.within):
            return RESTORED
        for _ in range(ATTEMPTS):
            stuck = await kube.find(Ref.of(obj))
            if stuck is None:
                return RESTORED
            why = await why_it_stays(kube, stuck)
            if not self.force:
                return Undone("failed", f"it is being deleted but does not go: {why}")
            if await write_if(kube, stuck, {"metadata": {"finalizers": None}}):
                return Undone("undone", f"finalizers removed by force: {why}")
        return Undone("failed", f"it kept changing while its finalizers were removed ({ATTEMPTS} attempts)")

    async def audit(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return RESTORED
        return (
            Undone("failed", f"still there: {await why_it_stays(kube, obj)}") if self._ours(obj) else RESTORED
        )

    async def ended_by_others(self, kube: Kube) -> Ended | None:
        obj = await kube.find(self.ref)
        if obj is None:
            return Ended(f"{self.ref} was deleted")
        return None if self._ours(obj) else Ended(f"{self.ref} is somebody else's by now")

    def in_version(self, api_version: str) -> Operation | None:
        return replace(self, ref=replace(self.ref, api_version=api_version))

    def _ours(self, obj: Object) -> bool:
        return is_of(self.run, obj, self.uids)


def is_of(run: str, obj: Object, uids: Collection[str]) -> bool:
    """Whether a run created an object: one of these, or one that carries its label.

    Admission may take the label off, and so may anybody later; the UID stays what the answer said.
    """
    return obj["metadata"]["uid"] in uids or labels_of(obj).get(RUN_LABEL) == run


async def _gone(kube: Kube, ref: Ref, within: float) -> bool:
    """Wait until an object is gone, at most `within` seconds."""
    delay = 0.05
    deadline = asyncio.get_running_loop().time() + within
    while await kube.find(ref) is not None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, 1.0)
    return True


async def why_it_stays(kube: Kube, obj: Object) -> str:
    """Why an object does not go: its finalizers, its conditions, and what was said of it."""
    finalizers = ", ".join(obj["metadata"].get("finalizers") or ["none"])
    conditions = obj.get("status", {}).get("conditions") or ()
    reasons = [f"{c['type']}={c['status']} {c.get('reason', '')}".strip() for c in conditions]
    said = [*complaints(obj), *await warnings_about(kube, Ref.of(obj))]
    return "; ".join([f"finalizers {finalizers}", *([", ".join(reasons)] if reasons else []), *said])


@dataclass(frozen=True)
class Evict(Operation):
    """Evict a pod, as its budgets allow. Irreversible: at most its controller makes another one."""

    kind: ClassVar[str] = "evict"
    irreversible: ClassVar[str] = (
        "what is gone does not come back; a controller, where there is one, makes another"
    )
    past: ClassVar[str] = "ended"
    one_request: ClassVar[bool] = True
    ref: Ref
    grace: int | None = None  # seconds; None is the pod's own terminationGracePeriodSeconds

    @property
    def summary(self) -> str:
        return self.kind

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        return cls(Ref.from_data(data["ref"]))

    async def make(self, kube: Kube) -> None:
        """Raises ApiError 429 while a PodDisruptionBudget forbids it; make it again later."""
        try:
            await kube.evict(self.ref, grace=self.grace)
        except ApiError as error:
            if not not_found(error) and not (error.status == 409 and "UID" in error.message):
                raise

    async def undo(self, kube: Kube) -> Undone:
        """A refused or cut off request may have changed nothing: then the very object is still there."""
        obj = await kube.find(self.ref) if self.ref.uid else None
        if obj is not None and "deletionTimestamp" not in obj["metadata"]:
            return Undone("undone", "it never came to it")
        return Undone("irreversible", self.irreversible)

    audit = undo


@dataclass(frozen=True)
class Delete(Evict):
    """Delete an object, budgets or not: its controller, if any, makes another. Irreversible as Evict is."""

    kind: ClassVar[str] = "delete"

    async def make(self, kube: Kube) -> None:
        await kube.delete(self.ref, grace=self.grace)


def from_data(data: dict[str, Any]) -> Operation:
    """The operation of a record. Raises RegistryError for a kind that is not installed, or is broken."""
    found: type[Operation] = registry.load(registry.OPERATIONS, data["op"])
    made: object = found.from_data(data)
    if not isinstance(made, Operation):
        raise TypeError(f"{found.__qualname__}.from_data gave a {type(made).__name__}, which is no operation")
    if not (isinstance(made.ref, Ref) and isinstance(made.summary, str)):  # which everybody asks for
        raise TypeError(f"{found.__qualname__} says no object (ref), or not in words what it does (summary)")
    return made
