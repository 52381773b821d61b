"""One owner at a time: whoever lost the run changes nothing, and whoever takes it knows all that was done."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from gameday.ledger.edits import Edit
from gameday.ledger.folder import NoLedger, read_folder
from gameday.ledger.janitor import Janitor
from gameday.ledger.keeping import NAMESPACE, ensure_namespace
from gameday.ledger.lease import RunLease, Timing, ref_of
from gameday.ledger.ledger import Ledger
from gameday.ledger.observer import Observer
from gameday.ledger.operations import Patch
from gameday.ledger.packing import RECORD_KEY, pack
from gameday.ledger.recovery import How, recover
from gameday.ledger.scope import Scope
from gameday.ledger.store import record_ref
from gameday.ledger.survey import survey
from gameday.platform.errors import Unreachable
from gameday.platform.fence import Lost, Unsure
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.unruly import LOSE_ANSWER, LOSE_REQUEST, Unruly, connect

pytestmark = pytest.mark.fast

RUN = "fence-test"
# An observer gives such a Lease up soon; its holder does not, however slow the machine is.
BRIEF = Timing(duration=1, deadline=60, retry=0.05)
TOUCHED = Ref("v1", "ConfigMap", "touched", "default")
SCOPE = Scope(frozenset({"default"}))


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Kube]:
    async with await connect(server) as client:
        await ensure_namespace(client)
        await client.create(_config_map(TOUCHED.name))
        yield client


@dataclass
class Clock:
    """A monotonic clock that a test moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Run:
    """An orchestrator's side of a run."""

    kube: Kube
    lease: RunLease
    ledger: Ledger

    @classmethod
    async def begin(cls, kube: Kube, folder: Path, timing: Timing = BRIEF, **options: Any) -> Run:
        lease = RunLease(kube, RUN, timing=timing, **options)
        await lease.acquire()
        ledger = unguarded(kube, RUN, folder, {"cluster": "c"}, lambda _: None, lease, SCOPE)
        return cls(kube, lease, ledger)

    @classmethod
    async def in_force(cls, kube: Kube, folder: Path, timing: Timing = BRIEF) -> Run:
        """A run with one change made; its Lease is renewed until then, as a run's own keeper does."""
        run = await cls.begin(kube, folder, timing)
        keeper = asyncio.create_task(run.lease.keep(lambda _: None))
        try:
            await run.change("changed")
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        return run

    async def change(self, value: str) -> None:
        operation = await Patch.of(self.kube, TOUCHED, Edit(("data", "n"), value))
        await self.ledger.step("1").perform([operation])


def _config_map(name: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": "before"}}


async def _value(kube: Kube) -> str:
    return str((await kube.get(TOUCHED))["data"]["n"])


async def _restore(kube: Kube, **options: Any) -> bool:
    result = await recover(kube, RUN, lambda _: None, how=How(timing=BRIEF, **options))
    return result.restored


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def _nothing_is_left(kube: Kube) -> None:
    found = await survey(kube)
    assert not found.runs
    assert await kube.find(Ref("v1", "Secret", f"gameday-{RUN}", NAMESPACE)) is None


# -- who owns the run ------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 0, 1])
async def test_no_wall_clock_says_whether_a_run_is_alive(hours: int, kube: Kube, tmp_path: Path) -> None:
    run = await Run.in_force(kube, tmp_path)
    told = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    observer = Observer()
    lease = await kube.patch(ref_of(RUN), {"spec": {"renewTime": told}}, "merge")
    assert not observer.look(lease)
    await run.lease.renew()
    assert not observer.look(await kube.get(ref_of(RUN)))
    assert await _restore(kube)  # nobody renews it while this watches
    assert await _value(kube) == "before"


async def test_an_observer_counts_no_time_in_which_it_could_not_ask(kube: Kube) -> None:
    clock = Clock()
    lease = RunLease(kube, RUN, timing=Timing(duration=15))
    await lease.acquire()
    found = await kube.get(ref_of(RUN))
    observer = Observer(clock, gap=2.0)
    assert not observer.look(found)
    clock.now += 3600  # the API server was away
    assert not observer.look(found)
    for _ in range(7):
        clock.now += 2
        expired = observer.look(found)
    assert expired


async def test_who_lost_the_run_changes_nothing_and_writes_no_record(kube: Kube, tmp_path: Path) -> None:
    run = await Run.in_force(kube, tmp_path)
    taker = RunLease(kube, RUN, timing=BRIEF)
    await taker.take(force=True)
    for attempt in (run.lease.renew(), run.change("again")):
        with pytest.raises(Lost, match="took the run over"):
            await attempt
    undone = await run.ledger.undo()
    assert {e.state for e in undone} == {"failed"}
    assert "not undone here" in undone[0].message
    assert await _value(kube) == "changed"
    await run.ledger.close(restored=False)
    await run.lease.release()
    await taker.release(restored=False)
    assert await _restore(kube)
    assert await _value(kube) == "before"
    await _nothing_is_left(kube)


async def test_who_comes_back_when_all_is_restored_makes_nothing_and_leaves_nothing(
    kube: Kube, tmp_path: Path
) -> None:
    run = await Run.in_force(kube, tmp_path)
    assert await _restore(kube, force=True)
    with pytest.raises(Lost, match="deleted"):
        await run.change("again")
    await run.ledger.undo()
    assert await _value(kube) == "before"
    await run.ledger.close(restored=True)
    await run.lease.release()
    await _nothing_is_left(kube)


async def test_a_record_that_was_claimed_is_not_overwritten(kube: Kube, tmp_path: Path) -> None:
    """A 409 is no reason to write again: the record is read, and it is another's."""
    run = await Run.in_force(kube, tmp_path, Timing(duration=1))
    taker = RunLease(kube, RUN, timing=BRIEF)
    await taker.take(force=True)
    with pytest.raises(Lost, match=f"{taker.holder} wrote the record|took the run over"):
        await _claim_and_write(kube, taker, run)
    assert await _value(kube) == "changed"


async def _claim_and_write(kube: Kube, taker: RunLease, run: Run) -> None:
    from gameday.ledger.key import read_key
    from gameday.ledger.store import ClusterStore

    assert await ClusterStore(kube, RUN, {}, taker, None).claim(await read_key(kube, RUN))
    before = (await kube.get(record_ref(RUN)))["metadata"]["resourceVersion"]
    try:
        await run.change("again")
    finally:
        assert (await kube.get(record_ref(RUN)))["metadata"]["resourceVersion"] == before


async def test_only_ones_own_lease_is_released(kube: Kube) -> None:
    old = RunLease(kube, RUN, timing=BRIEF)
    await old.acquire()
    new = RunLease(kube, RUN, timing=BRIEF)
    await new.take(force=True)
    await old.release()
    held = await kube.get(ref_of(RUN))
    assert (held["spec"]["holderIdentity"], held["spec"]["leaseTransitions"]) == (new.holder, 2)


async def test_of_two_takers_one_is_told_that_it_was_too_late(server: Unruly, kube: Kube) -> None:
    await RunLease(kube, RUN, timing=BRIEF).acquire()
    async with await connect(server) as other:
        takers = [RunLease(k, RUN, timing=BRIEF) for k in (kube, other)]
        ended = await asyncio.gather(*(t.take() for t in takers), return_exceptions=True)
    assert sorted(type(e).__name__ for e in ended) == ["Lost", "NoneType"]


async def test_a_note_on_the_lease_costs_its_holder_nothing(kube: Kube) -> None:
    lease = RunLease(kube, RUN, timing=BRIEF)
    await lease.acquire()
    await kube.patch(lease.ref, {"metadata": {"annotations": {"gameday.dev/note-1": "a: b"}}}, "merge")
    await lease.renew()
    lease.check()


# -- the moment of sending -------------------------------------------------------------------------


class Stopped(Kube):
    """A client whose process is stopped for a while, with a request prepared and not yet sent."""

    at: Any = staticmethod(lambda: None)

    async def _headers(self, method: str, path: str) -> CIMultiDict[str]:
        headers = await super()._headers(method, path)
        if method == "PATCH" and TOUCHED.name in path:
            self.at()
        return headers


async def test_a_request_that_was_prepared_before_a_long_stop_is_not_sent(
    server: Unruly, kube: Kube, tmp_path: Path
) -> None:
    clock = Clock()
    async with await Stopped.connect(server.kubeconfig) as stopped:
        assert isinstance(stopped, Stopped)
        run = await Run.begin(stopped, tmp_path, Timing(), clock=clock)
        stopped.at = lambda: setattr(clock, "now", clock.now + 60)  # SIGSTOP, SIGCONT
        with pytest.raises(Unsure, match="last renewed 60 s ago"):
            await run.change("changed")
        assert not [c for c in server.changes if TOUCHED.name in c]
        stopped.at = lambda: None
        await run.ledger.undo()  # learns that the run is its own still
        await run.change("changed")
        assert await _value(kube) == "changed"


# -- lost answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [LOSE_REQUEST, LOSE_ANSWER])
@pytest.mark.parametrize("what", ["POST .*configmaps", "PATCH .*configmaps/gameday-", "POST .*secrets"])
async def test_a_lost_answer_of_the_record_is_no_takeover(
    lost: str, what: str, server: Unruly, kube: Kube, tmp_path: Path
) -> None:
    run = await Run.begin(kube, tmp_path)
    if what.startswith("PATCH"):
        await run.change("first")
    server.lose(lost, what)
    await run.change("second")
    assert await _restore(kube, force=True)
    assert await _value(kube) == "before"
    await _nothing_is_left(kube)


@pytest.mark.parametrize("lost", [LOSE_REQUEST, LOSE_ANSWER])
@pytest.mark.parametrize("what", ["POST .*leases", "PATCH .*leases", "DELETE .*leases"])
async def test_a_lost_answer_of_the_lease_is_no_takeover(
    lost: str, what: str, server: Unruly, kube: Kube
) -> None:
    lease = RunLease(kube, RUN, timing=BRIEF)
    server.lose(lost, what)
    await lease.acquire()
    with contextlib.suppress(Unreachable):
        await lease.renew()
    await lease.renew()
    await lease.release()
    await _nothing_is_left(kube)


# -- what others do to our objects -----------------------------------------------------------------


async def test_a_deleted_namespace_loses_nothing(kube: Kube, tmp_path: Path) -> None:
    """Finalizers keep Lease, record and key; the run aborts, and a recovery of it works, in there."""
    run = await Run.in_force(kube, tmp_path)
    await kube.delete(Ref("v1", "Namespace", NAMESPACE))
    heard: list[str] = []
    keeper = asyncio.create_task(run.lease.keep(heard.append))
    await _until(lambda: bool(heard))
    keeper.cancel()
    assert "is being deleted" in heard[0]
    with pytest.raises(Lost):
        await run.change("again")
    assert await _restore(kube, force=True)
    assert await _value(kube) == "before"
    async with asyncio.timeout(60):
        while await kube.find(Ref("v1", "Namespace", NAMESPACE)) is not None:
            pass


async def test_a_run_whose_objects_were_removed_undoes_from_memory(kube: Kube, tmp_path: Path) -> None:
    run = await Run.in_force(kube, tmp_path)
    for ref in (record_ref(RUN), ref_of(RUN)):
        await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
        await kube.delete(ref)
    await run.lease.renew()
    with pytest.raises(Lost):
        await run.change("again")
    await run.ledger.undo()
    assert await _value(kube) == "before"
    await run.ledger.close(restored=True)
    await run.lease.release()
    await _nothing_is_left(kube)


async def test_from_the_folder_alone(kube: Kube, tmp_path: Path) -> None:
    await Run.in_force(kube, tmp_path)
    for ref in (record_ref(RUN), ref_of(RUN), Ref("v1", "Secret", f"gameday-{RUN}", NAMESPACE)):
        await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
        await kube.delete(ref)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"n": 2, "step"')  # the last line was cut off
    local = read_folder(tmp_path)
    assert (local.run, local.cluster, [r["n"] for r in local.records]) == (RUN, "c", [1])
    result = await recover(kube, RUN, lambda _: None, local=local)
    assert result.restored
    assert await _value(kube) == "before"
    await _nothing_is_left(kube)


def test_a_folder_that_others_may_write_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    (tmp_path / "ledger.jsonl").chmod(0o666)
    with pytest.raises(NoLedger, match="written by others"):
        read_folder(tmp_path)


# -- records that nobody can believe ---------------------------------------------------------------

NOTHING = {"withheld", "unreadable"}  # the forged entries, and what stands for those that were there before
TOOL = {"type": "process", "path": "/bin/touch"}


def _forged(name: str, folder: Path) -> Object:
    """What somebody who may write ConfigMaps makes of one, to have a command run by whoever restores."""
    activity = {"name": "x", "type": "action", "provider": TOOL | {"arguments": [str(folder / "owned")]}}
    op = {
        "op": "activity",
        "name": "x",
        "what": "[red]\x1b]0;x\x07",
        "undo": activity,
        "configuration": {},
        "secrets": {},
        "timeout": 5,
        "chain": "",
    }
    scale = {
        "op": "patch",
        "ref": TOUCHED.to_data(),
        "edits": [{"path": ["data", "n"], "before": "owned", "after": "before"}],
    }
    records = [{"n": n, "step": "1", "state": "made", "op": o} for n, o in enumerate((op, scale), 1)]
    meta = {
        "name": f"gameday-{name}",
        "namespace": NAMESPACE,
        "labels": {"gameday.dev/run": name, "gameday.dev/ledger": "true"},
        "annotations": {"gameday.dev/by": "[/]\x1b[2J" * 1000},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {"seal": json.dumps({"epoch": 10**9, "writer": "x", "serial": 1, "digest": "", "scope": {}})},
        "binaryData": {RECORD_KEY: pack(records)},
    }


async def test_a_forged_record_executes_nothing(kube: Kube, tmp_path: Path) -> None:
    await kube.create(_forged("forged", tmp_path))
    result = await recover(kube, "forged", lambda _: None)
    assert not result.restored
    assert {e.operation.kind for e in result.undone} == NOTHING
    assert any(str(tmp_path / "owned") in e.message for e in result.undone)  # it is shown in full
    assert not (tmp_path / "owned").exists()
    assert await _value(kube) == "before"
    (run,) = (await survey(kube)).runs
    assert not run.proved
    allowed = await recover(kube, "forged", lambda _: None, how=How(allow_unverified=True))
    assert {e.operation.kind for e in allowed.undone} == {"activity", "patch"}


@pytest.mark.parametrize("change", ["entry", "added", "other run"])
async def test_a_changed_record_executes_only_what_the_run_wrote(
    change: str, kube: Kube, tmp_path: Path
) -> None:
    run = await Run.in_force(kube, tmp_path)
    await run.lease.release(restored=False)
    from gameday.ledger.store import unpack

    (written,) = unpack(await kube.get(record_ref(RUN)))
    forged = unpack(_forged("x", tmp_path))
    if change == "entry":
        entries = [written | {"op": forged[1]["op"]}]
    elif change == "added":
        entries = [written, forged[0] | {"n": 2, "mac": written["mac"], "epoch": 1}]
    else:
        entries = [written]
        other = _forged("other", tmp_path)
        other["binaryData"] = {RECORD_KEY: pack(entries)}
        await kube.create(other)
        result = await recover(kube, "other", lambda _: None)
        assert {e.operation.kind for e in result.undone} == NOTHING
        return
    await kube.patch(record_ref(RUN), {"binaryData": {RECORD_KEY: pack(entries)}}, "merge")
    result = await recover(kube, RUN, lambda _: None)
    assert not result.restored
    assert not (tmp_path / "owned").exists()
    assert await _value(kube) == ("before" if change == "added" else "changed")


async def test_what_was_not_approved_is_neither_made_nor_undone(kube: Kube, tmp_path: Path) -> None:
    await kube.create(_config_map("x") | {"metadata": {"name": "x", "namespace": "kube-system"}})
    run = await Run.begin(kube, tmp_path)
    elsewhere = await Patch.of(kube, Ref("v1", "ConfigMap", "x", "kube-system"), Edit(("data", "n"), "1"))
    with pytest.raises(Exception, match="not in what was approved"):
        await run.ledger.step("1").perform([elsewhere])
    assert await kube.find(record_ref(RUN)) is None


STRANGERS: list[Object] = [
    {},
    {"labels": {"gameday.dev/ledger": "true"}},
    {"labels": {"gameday.dev/ledger": "true", "gameday.dev/run": "other"}},
    {"labels": {"gameday.dev/ledger": "true", "gameday.dev/run": "stranger"}, "name": "gameday-stranger"},
]


async def test_strangers_with_our_label_stop_nobody(kube: Kube, tmp_path: Path) -> None:
    run = await Run.in_force(kube, tmp_path)
    await run.lease.release(restored=False)
    for number, meta in enumerate(STRANGERS):
        named = {"name": f"stranger-{number}", "namespace": NAMESPACE} | meta
        await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named})
    await kube.create(_forged("forged", tmp_path))
    told: list[Any] = []
    strange: list[str] = []
    janitor = Janitor(kube, told.append, strange.append)
    await janitor.look()
    await _until(lambda: len(told) == 2)
    assert {t.run: t.left for t in told} == {RUN: False, "forged": True}
    assert len(strange) == 3
    assert await _value(kube) == "before"


async def test_a_record_with_entries_that_were_not_sealed_is_never_restored(
    kube: Kube, tmp_path: Path
) -> None:
    """Who can write ConfigMaps can take entries out: what they were nobody knows, and that is said."""
    run = await Run.in_force(kube, tmp_path)
    await run.lease.release(restored=False)
    none = {"binaryData": {RECORD_KEY: pack([])}}
    await kube.patch(record_ref(RUN), none, "merge")
    for _ in range(2):  # the second one finds what the first one wrote down
        result = await recover(kube, RUN, lambda _: None, how=How(timing=BRIEF))
        assert not result.restored
        assert "its entries are not those that were sealed" in result.audits[0].message
    assert await kube.find(record_ref(RUN)) is not None
    assert await _value(kube) == "changed"
