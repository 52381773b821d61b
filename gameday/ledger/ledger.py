"""The ledger of one run: intend, make, undo, audit.

An entry is durable in both stores before its change is made. Entries of one object are undone
last-in-first-out; different objects are independent, and are undone at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gameday import states
from gameday.events import Audited, Change, Emit, Warn
from gameday.experiment import registry
from gameday.ledger.concealed import conceal
from gameday.ledger.operations import Altered, Operation, Refused, Undone, touched
from gameday.ledger.owner import Owner
from gameday.ledger.scope import Scope
from gameday.ledger.store import LOCAL_FILE, ClusterStore, LocalStore, Record
from gameday.ledger.turn import Turn
from gameday.ledger.unreadable import NotUndone, read
from gameday.platform import fallback, fence
from gameday.platform.errors import ApiError, NotRecorded, NotServed, PlatformError, Unreachable, is_answer
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.shield import Overdue, at_most, or_leave, to_the_end, told_to_end
from gameday.states import Change as State

T = TypeVar("T")
UNDO_PATIENCE = 600.0  # seconds that an undo waits for an API server that went away
MAKE_WITHIN = 40.0  # seconds that a change under way has when it is to be undone: a request has 30
CUT_OFF_WITHIN = 10.0  # seconds that a change has to end once it is told to, as a program that is killed
AUDIT_WITHIN = 120.0  # seconds for a look at one object
AGAIN_WITHIN = 20.0  # seconds from the first undo in which what the audit finds left is tried again
WHOLE_RUN = "rollbacks"  # no step has this path, so its entries are undone when the run ends
IDENTITY = "identity"  # nor this one: the run's own identity is undone last of all, since it undoes the rest
AT_ONCE = 64  # changes under way at the same time
# Says no, by Refused, to changes of a step that nobody approved; the last one to be asked.
Admit = Callable[[str, Sequence[Operation]], None]


@dataclass
class Entry:
    """One change: its number in the run, the step it belongs to, and how far it has come."""

    number: int
    step: str
    operation: Operation
    state: State = State.INTENDED
    message: str = ""
    learned: Mapping[str, Any] = field(default_factory=dict)  # in making and undoing, for the evidence
    altered: str = ""  # how admission changed what was approved; "" where it did not
    package: str = ""  # which package's operation it is, for who can't read it; "" for this one's own
    acceptance: Mapping[str, str] = field(default_factory=dict)  # who took it over, when and why
    lands_until: float = 0.0  # when a `make` that was not answered can't land any more (monotonic, seconds)
    settled: bool = False  # whether no request of its `make` can land any more but for `lands_until`
    refused: str = ""  # the answer that refused its undo for certain, as admission does, last time
    hung: bool = False  # whether its undo was left behind, and may go on: another one is for who comes later

    @classmethod
    def of(cls, number: int, step: str, operation: Operation) -> Entry:
        """A change that is intended."""
        return cls(number, step, operation, package=registry.package(registry.OPERATIONS, operation.kind))

    def record(self) -> Record:
        data = self.operation.to_data()
        data = data if isinstance(self.operation, NotUndone) else conceal(data)
        record = {"n": self.number, "step": self.step, "state": self.state, "op": data}
        may_land = self.state is State.FAILED and (self.lands_until or not self.settled)
        record |= {"mayLand": True} if may_land else {}
        record |= {"acceptance": dict(self.acceptance)} if self.acceptance else {}
        return record | ({"package": self.package} if self.package else {})

    @classmethod
    def from_record(cls, record: Record, where: Ref, run: str) -> Entry:
        """Never raises: where a record can't be read, its operation says so. `where`: the ledger's object."""
        operation, word = read(record, where, run), record.get("state", State.MADE)
        package, settled = str(record.get("package", "")), word == State.MADE
        settled = settled or (word == State.FAILED and not record.get("mayLand"))
        told = record.get("acceptance")
        return cls(
            record["n"],
            record["step"],
            operation,
            State.recorded(word),
            package=package,
            acceptance={str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {},
            settled=settled,
        )

    @property
    def open(self) -> bool:
        """Whether there may be something left to undo."""
        return self.state.open

    def event(self) -> Change:
        """The change as the run's log has it."""
        return Change(
            entry=self.number,
            step=self.step,
            operation=self.operation.kind,
            object=str(self.operation.ref),
            state=self.state,
            sets=list(self.operation.sets),
            summary=self.operation.summary,
            message=self.message,
        )


@dataclass
class Ledger:
    """All changes of a run. `local` is None when another machine restores from the cluster's record."""

    kube: Kube
    run: str
    cluster: ClusterStore
    local: LocalStore | None
    emit: Emit
    admit: Admit
    owner: Owner
    scope: Scope | None  # None: not bounded
    entries: list[Entry] = field(default_factory=list)
    _told: bool = False  # that an undo has to wait
    _chains: dict[object, list[Entry]] = field(default_factory=dict)  # the changes of each object
    _locks: dict[object, asyncio.Lock] = field(default_factory=dict)  # held while an object's are undone
    _turns: dict[str, list[Turn]] = field(default_factory=dict)  # of each step's executions, until its undo

    @classmethod
    def begin(
        cls,
        kube: Kube,
        run: str,
        folder: Path,
        about: dict[str, str],
        emit: Emit,
        *,
        admit: Admit,
        owner: Owner,
        scope: Scope | None,
    ) -> Ledger:
        """An empty ledger for a new run, as whose field manager the client writes from now on."""
        kube.write_as(manager_of(run))
        store = ClusterStore(kube, run, about, owner, scope)
        local = LocalStore(folder / LOCAL_FILE)
        local.begin({"run": run, "about": about, "scope": scope.to_data() if scope else {}})
        return cls(kube, run, store, local, emit, admit, owner, scope)

    @classmethod
    def taken(
        cls, kube: Kube, run: str, store: ClusterStore, entries: list[Entry], emit: Emit, owner: Owner
    ) -> Ledger:
        """The ledger of a run that was taken over: its record is claimed, and was judged.

        Its process may have died with requests on their way: what they do is undone, too.
        """
        for entry in entries:
            if entry.state in (State.INTENDED, State.FAILED) and not (
                entry.settled or entry.operation.hopeless
            ):
                entry.lands_until = time.monotonic() + entry.operation.late
        return cls(kube, run, store, None, emit, _only_undone, owner, None, entries)

    def __post_init__(self) -> None:
        known, self.entries = self.entries, []
        self._add(known)

    def _add(self, entries: list[Entry]) -> None:
        self.entries += entries
        for entry in entries:
            chain = self._chains.setdefault(_key(entry.operation), [])
            for earlier in chain:
                earlier.operation = earlier.operation.below(entry.operation)
            chain.append(entry)

    def step(self, step: str) -> StepLedger:
        """The ledger as one step sees it."""
        turn = Turn(step)
        self._turns.setdefault(step, []).append(turn)
        return StepLedger(self, step, turn)

    async def end(self, step: str | None = None, *, but: str = "") -> None:
        """Refuse changes of a step and its inner steps, or of all `but` one, and wait for those under way.

        A step that is executed again begins anew.
        """
        ending = [s for s in self._turns if s != but and (step is None or _within(s, step))]
        turns = [turn for s in ending for turn in self._turns.pop(s)]
        await asyncio.gather(*(turn.end() for turn in turns))

    async def intend(self, step: str, operations: Iterable[Operation]) -> list[Entry]:
        """Write changes down. When this returns they may be made. Raises Failure."""
        operations = list(operations)
        self.admit(step, operations)
        await self.owner.sure()
        first = len(self.entries) + 1
        entries = [Entry.of(n, step, o) for n, o in enumerate(operations, first)]
        if not entries:
            return []
        self._check(entries)
        self._add(entries)
        try:
            await self._store(entries)
        except BaseException:
            for entry in entries:  # nothing was made: nothing is to be undone
                entry.state = State.NOT_MADE
            raise
        for entry in entries:
            self._tell(entry)
        return entries

    def _check(self, entries: Iterable[Entry]) -> None:
        """Raises Refused where a change can't be undone apart from another one, or from the record."""
        for entry in entries:
            operation = entry.operation
            for touch in touched(operation):
                if self.scope and not operation.irreversible and not self.scope.covers(touch.ref):
                    raise Refused(f"{touch.ref} is not in what was approved for this run")
            for other in self._chains.get(_key(entry.operation), ()):
                if other.open and (why := entry.operation.clash(other.operation)):
                    raise Refused(f"{entry.operation.ref}: step {other.step} changed it already: {why}")

    async def make(self, entry: Entry) -> None:
        """Make an intended change; may be called again after it failed.

        A cancellation waits for the request under way: otherwise it could reach the cluster after
        the undo has looked. An operation that can be cut off for certain says so. One that does not end all
        the same is left behind: it can send nothing more, and what it sent may come late.
        """
        if entry.state is State.NOT_MADE:
            entry.state, entry.message, entry.settled = State.INTENDED, "", False
            await self._store([entry])
        await self.owner.sure()
        with fence.under(self.owner.check):
            patience = 0.0 if entry.operation.interruptible else MAKE_WITHIN
            recorded = await to_the_end(self._make(entry), interrupt_after=patience)
        if entry.operation.late and not entry.operation.irreversible and not recorded:
            await self._store_if_possible([entry])  # else a recovery waits for a request that came long ago

    async def _make(self, entry: Entry) -> bool:
        """Whether the record has it as it was made."""
        try:
            made = await or_leave(entry.operation.make(self.kube), within=CUT_OFF_WITHIN)
        except BaseException as error:  # a cancellation, too, may cut it off at any request
            if told_to_end() and not entry.operation.interruptible:
                text = f"the change did not end within {MAKE_WITHIN:g} s of its undo being called for"
                self._warn(f"{entry.operation.ref}: {text}, and is undone without waiting for it")
            if not is_answer(error):
                entry.lands_until = time.monotonic() + entry.operation.late
            elif entry.operation.not_made(error) and not entry.lands_until and not entry.operation.carries:
                await self._close([entry], State.NOT_MADE, str(error))
            raise
        entry.state, entry.settled = State.MADE, True
        if isinstance(made, Altered):
            entry.operation, entry.learned = made.operation, made.learned
            entry.altered = "" if made.as_approved else made.why
            await self._store_if_possible([entry])
        else:
            entry.learned = made or {}
        self._tell(entry)
        if isinstance(made, Altered) and made.why:
            self._warn(f"{entry.operation.ref}: {made.why}")
        return isinstance(made, Altered)

    async def _close(self, entries: list[Entry], state: State, message: str) -> None:
        for entry in entries:
            entry.state, entry.message = state, message
            self._tell(entry)
        await self._store_if_possible(entries)

    async def undo(self, step: str | None = None, *, but: str = "", stopping: bool = False) -> list[Entry]:
        """Take back what is in force (of one step and its inner steps, or all `but` one). Never raises.

        Whoever still acts for these steps changes nothing any more.
        `stopping`: all other steps are taken back, too, so that a controller has first to follow the undo of
        what they changed later on the same objects. Returns the entries of the step that were undone, kept or
        failed, newest first.
        """
        await self.end(step, but=but)
        wanted = (e for e in reversed(self.entries) if e.open and e.step != but)
        mine = [e for e in wanted if step is None or _within(e.step, step)]
        chains: dict[object, list[Entry]] = {}
        for entry in mine:
            chains.setdefault(_key(entry.operation), []).append(entry)
        first = self._pull(chains) if stopping else []
        heirs = await self._undo_chains(chains)
        if late := [e for e in mine if e.lands_until and e.operation.late]:
            await self._store_if_possible([*heirs, *first, *mine])
            await self._outwait(late)
            heirs += await self._undo_chains(chains)
        await self._store_if_possible([*heirs, *first, *mine])
        return mine

    def _pull(self, chains: Mapping[object, list[Entry]]) -> list[Entry]:
        """Put into each object's chain what came later, of whatever step, and a controller has to follow."""
        pulled = []
        for key, chain in chains.items():
            known, oldest = {e.number for e in chain}, chain[-1].number
            later = [e for e in self._chains[key] if e.number > oldest and e.number not in known]
            pulled += (more := [e for e in later if e.open and e.settled and e.operation.followed])
            chain += more
            chain.sort(key=lambda e: e.number, reverse=True)
        return pulled

    async def _undo_chains(self, chains: Mapping[object, Sequence[Entry]]) -> list[Entry]:
        limit = asyncio.Semaphore(AT_ONCE)
        heirs = await asyncio.gather(*(self._undo_chain(k, chain, limit) for k, chain in chains.items()))
        return [entry for part in heirs for entry in part]

    async def accept(self, entry: Entry, acceptance: Mapping[str, str], message: str) -> None:
        """Close an entry for whose change a person answers from now on. Raises what the stores raise."""
        entry.state, entry.acceptance, entry.message = State.ACCEPTED, acceptance, message
        await self._store([entry])
        self._tell(entry)

    async def leave(self, step: str, why: str) -> None:
        """Close what is in force of a step without an undo, since the experiment wants none."""
        await self._close([e for e in self.entries if e.open and e.step == step], State.IRREVERSIBLE, why)

    async def _undo_chain(self, key: object, chain: Sequence[Entry], limit: asyncio.Semaphore) -> list[Entry]:
        """Undo the changes of one object, the newest first. Returns those that took some of them over.

        Others may undo changes of the same object at the same time: one after the other, since what one of
        them writes is what the next one finds.
        """
        heirs: list[Entry] = []
        async with self._locks.setdefault(key, asyncio.Lock()):
            for entry in chain:
                if not entry.open:
                    continue
                if self._hand_over(entry, heirs):
                    outcome = Undone(
                        "undone", f"it goes back with change {heirs[-1].number}, which came later"
                    )
                else:
                    async with limit:
                        began = time.monotonic()
                        outcome = await self._patiently(entry)
                    if outcome.state != "failed" and entry.lands_until > began:
                        continue  # it stays open, and is undone again when its request can't arrive any more
                known = entry.state, entry.message
                entry.state, entry.message = State(outcome.state), outcome.message
                entry.learned = {**entry.learned, **outcome.learned}
                if not (entry.refused and known == (entry.state, entry.message)):
                    self._tell(entry)
        return heirs

    def _hand_over(self, entry: Entry, heirs: list[Entry]) -> bool:
        """Let the next later change of the same fields take over this one's undo.

        Returns whether nothing is left to undo here. A kill in between loses nothing: as long as the record
        holds both changes in their old form, undoing all of it in reverse order ends at the same value.
        """
        for later in self._chains[_key(entry.operation)]:
            if later.number <= entry.number or not later.open:
                continue
            if (handed := later.operation.over(entry.operation)) is None:
                continue
            rest, later.operation = handed
            later.lands_until = max(later.lands_until, entry.lands_until)
            heirs.append(later)
            if rest is None:
                entry.lands_until = 0.0
                return True
            entry.operation = rest
        return False

    async def _patiently(self, entry: Entry) -> Undone:
        """Undo, through an API server that is away, overloaded or takes no credentials, for UNDO_PATIENCE."""
        if entry.state is State.MADE and entry.operation.irreversible:
            return Undone("irreversible", entry.operation.irreversible)
        if entry.hung:
            return Undone("failed", entry.message)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UNDO_PATIENCE
        delay = 0.2
        while True:
            try:
                if entry.lands_until and await self._landed(entry):
                    entry.lands_until = 0.0
                return _answer(await self._undo_as_owner(entry))
            except fence.Lost as lost:
                return Undone("failed", f"not undone here: {lost}")
            except Overdue as overdue:
                entry.hung, text = True, f"its undo {overdue}, and is not waited for"
                self._warn(f"{entry.operation.ref}: {text}")
                return Undone("failed", text)
            except ApiError as error:
                if error.status < 500 and error.status not in (401, 409, 429):
                    self._refused(entry, str(error))
                    return Undone("failed", str(error))
                last: Exception = error
            except (Unreachable, fence.Unsure) as error:
                last = error
            except Exception as error:
                return Undone("failed", f"{type(error).__name__}: {error}")
            if loop.time() + delay > deadline:
                return Undone("failed", str(last))
            if not self._told:
                self._told = True
                self._warn(f"still trying to undo: {last}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    def _refused(self, entry: Entry, why: str) -> None:
        """Say at once, and once, what keeps a change in force: whoever can lift that should hear of it."""
        if why != entry.refused:
            entry.refused = why
            self._warn(f"{entry.operation.ref}: its undo is refused, and will be tried again: {why}")

    async def _landed(self, entry: Entry) -> bool:
        """Whether all that was sent has arrived. A change that carries others' does not say so of theirs."""
        if entry.operation.carries:
            return False
        return await at_most(
            AUDIT_WITHIN, self._where_served(entry.operation, lambda o: o.has_landed(self.kube))
        )

    async def _outwait(self, late: Sequence[Entry]) -> None:
        """Wait until no request can arrive any more; the undo that follows takes back what they did."""
        seconds = max(e.lands_until for e in late) - time.monotonic()
        if seconds > 0:
            more = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
            message = (
                f"{late[0].operation.ref}{more}: a request that was not answered may still arrive, "
                f"so the object is looked at again in {seconds:.0f} s"
            )
            self._warn(message)
            await asyncio.sleep(seconds)
        for entry in late:
            entry.lands_until = 0.0

    async def restore(self) -> list[Audited]:
        """Undo everything and audit it; what is left is tried again for AGAIN_WITHIN."""
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + AGAIN_WITHIN, 0.5
        while True:
            await self.undo()
            audits = await self.audit()
            left = [a for a in audits if a.state == states.Audit.LEFT]
            if not left or loop.time() + delay > deadline or not self._can_go_on():
                return audits
            message = f"not as before yet, and tried again: {left[0].object}: {left[0].message}"
            self._warn(message)
            await asyncio.sleep(delay)
            delay *= 2

    def _can_go_on(self) -> bool:
        """Whether trying again could restore anything: the run is ours, and something is left to execute."""
        try:
            self.owner.check(undoing=True)
        except fence.Lost:
            return False
        except fence.Unsure:
            return True
        return any(e.open and not (e.hung or e.operation.hopeless) for e in self.entries)

    async def _undo_as_owner(self, entry: Entry) -> Undone:
        """Nothing is sent once the run may be another's. Raises fence.Fenced, or Unreachable.

        What the run's own identity is denied, whoever started the run sends.
        """
        try:
            async with asyncio.timeout(UNDO_PATIENCE):
                await self.owner.sure(undoing=True)
        except TimeoutError:
            raise Unreachable("the run's Lease could not be renewed") from None
        within = entry.operation.undo_within
        with fence.under(partial(self.owner.check, undoing=True)), fallback.to_ourselves():
            if not entry.settled:
                await at_most(within, self._where_served(entry.operation, lambda o: o.outdate(self.kube)))
                entry.settled = True
            return await at_most(within, self._where_served(entry.operation, lambda o: o.undo(self.kube)))

    async def _where_served(self, operation: Operation, act: Callable[[Operation], Awaitable[T]]) -> T:
        """Act on an object in another version of its API, where the one of its change is not served any more.

        Raises NotServed where that can't be.
        """
        try:
            return await act(operation)
        except NotServed:
            ref = await self.kube.served(operation.ref)
            there = operation.in_version(ref.api_version) if ref != operation.ref else None
            if there is None:
                raise
            return await act(there)

    async def audit(self) -> list[Audited]:
        """Read everything that was touched again. What is not as before (`left`) is open from then on."""
        limit = asyncio.Semaphore(AT_ONCE)
        touched = self._outermost()
        seen = await asyncio.gather(*(self._seen(e, o, limit) for e, o in touched))
        reopened = []
        for (entry, operation), result in zip(touched, seen, strict=True):
            if result.state == State.FAILED and not entry.open:
                entry.operation, entry.state, entry.message = operation, State.FAILED, result.message
                reopened.append(entry)
        await self._store_if_possible(reopened)
        audits = [_audited(o, r) for (_, o), r in zip(touched, seen, strict=True)]
        found = list({(a.object, a.state, a.message): a for a in audits}.values())
        for event in found:
            self.emit(event)
        return found

    def _outermost(self) -> list[tuple[Entry, Operation]]:
        """The changes to be audited: those of one field count as one, with the first one's `before`."""
        found: list[tuple[Entry, Operation]] = []
        for chain in self._chains.values():
            below: list[tuple[Entry, Operation]] = []
            for entry in (e for e in chain if e.state is not State.NOT_MADE):
                operation, rests = entry.operation, []
                for earlier, lower in below:
                    rest, operation = operation.over(lower) or (lower, operation)
                    rests += [(earlier, rest)] if rest is not None else []
                below = [*rests, (entry, operation)]
            found += below
        return found

    async def _seen(self, entry: Entry, operation: Operation, limit: asyncio.Semaphore) -> Undone:
        if entry.state in (State.IRREVERSIBLE, State.ACCEPTED):
            return Undone(entry.state, entry.message)
        if entry.open and not operation.verifiable:
            return Undone("failed", entry.message or "it was not undone")
        if entry.open and not entry.settled:  # what is seen now says nothing of what lands in a moment
            return Undone("failed", f"a request that was not answered may still arrive: {entry.message}")

        async def look(seen: Operation) -> Undone:
            if entry.open and seen is not operation:  # what it does not show may be in force
                return Undone("failed", entry.message or "it was not undone")
            return _answer(await seen.audit(self.kube))

        try:
            async with limit:
                return await at_most(AUDIT_WITHIN, self._where_served(operation, look))
        except Overdue as overdue:
            return Undone("failed", f"its audit {overdue}")
        except Exception as error:
            return Undone("failed", str(error) or type(error).__name__)

    def over(self, entry: Entry) -> list[Entry]:
        """Later changes that other steps made to the same object, and did not put back."""
        later = (e for e in self._chains[_key(entry.operation)] if e.number > entry.number)
        return [e for e in later if e.step != entry.step and e.state in _LIES]

    async def close(self, *, restored: bool) -> None:
        """End the run: its record leaves the cluster if, and only if, everything is restored."""
        if self.local is not None:
            self.local.close()
        if restored:
            await self.cluster.remove()

    async def _store_if_possible(self, entries: list[Entry]) -> None:
        """Undo is idempotent: a record that is behind the truth costs a second look, no more."""
        records = [e.record() for e in entries]
        if records and self.local is not None:
            await self.local.note(records)
        with contextlib.suppress(PlatformError, NotRecorded):
            if records:
                await self.cluster.append(records)

    async def _store(self, entries: list[Entry]) -> None:
        records = [e.record() for e in entries]
        if self.local is not None:
            await self.local.append(records)
        await self.cluster.append(records)

    def _warn(self, message: str) -> None:
        self.emit(Warn(source="ledger", message=message))

    def _tell(self, entry: Entry) -> None:
        self.emit(entry.event())


@dataclass(frozen=True)
class StepLedger:
    """The ledger, bound to one execution of a step. `entries` are those that came by this one."""

    ledger: Ledger
    step: str
    turn: Turn
    entries: list[Entry] = field(default_factory=list)

    @property
    def kube(self) -> Kube:
        return self.ledger.kube

    @property
    def run(self) -> str:
        return self.ledger.run

    @property
    def of_the_run(self) -> StepLedger:
        """The ledger for changes that are taken back when the run ends, and not with the step."""
        return StepLedger(self.ledger, WHOLE_RUN, self.turn)

    async def intend(self, operations: Iterable[Operation]) -> list[Entry]:
        """Write changes down. Raises Failure; Refused once the step's undo has begun, as `make` does."""
        return await self.turn.take(self._intend(operations))

    async def _intend(self, operations: Iterable[Operation]) -> list[Entry]:
        entries = await self.ledger.intend(self.step, operations)
        self.entries.extend(entries)
        return entries

    async def make(self, entry: Entry) -> None:
        """Make a change that was written down."""
        await self.turn.take(self.ledger.make(entry))

    def over(self, entry: Entry) -> list[Entry]:
        """As `Ledger.over`."""
        return self.ledger.over(entry)

    async def perform(self, operations: Iterable[Operation | None]) -> list[Entry]:
        """Intend all, then make all at the same time. Raises the first failure, after all have ended."""
        entries = await self.intend(o for o in operations if o is not None)
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(entry: Entry) -> None:
            async with limit:
                await self.make(entry)

        results: list[Any] = await asyncio.gather(*(one(e) for e in entries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return entries


def _only_undone(step: str, operations: Sequence[Operation]) -> None:
    """The admission to a ledger that was taken over."""
    raise Refused(f"step {step}: the run was taken over to be undone, and changes nothing more")


def _answer(outcome: object) -> Undone:
    """The answer of an operation, of whatever package. Raises TypeError for what is no answer."""
    if isinstance(outcome, Undone):
        return outcome
    raise TypeError(f"the operation answered {outcome!r} in place of an Undone")


_LIES = (State.INTENDED, State.MADE, State.FAILED, State.IRREVERSIBLE)  # states of a change that is there


def _audited(operation: Operation, seen: Undone) -> Audited:
    state = State(seen.state).audit
    return Audited(
        object=str(operation.ref),
        state=state,
        message=seen.message,
        read_back=operation.verifiable,
        done=operation.past if state is states.Audit.IRREVERSIBLE else "",
    )


def _key(operation: Operation) -> object:
    """The object, by whatever version of its API it is changed."""
    return operation.ref.identity


def manager_of(run: str) -> str:
    """The field manager of a run's changes; API servers take at most 128 characters (metav1 validation)."""
    return f"gameday-{run}"[:128]


def _within(step: str, outer: str) -> bool:
    return step == outer or step.startswith(outer + ".")


__all__ = ["Entry", "Ledger", "Refused", "StepLedger"]
