"""A record that is gone, or older than its run wrote it, is never taken for what there is to undo."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gameday.ledger.acceptance import ACCEPTED
from gameday.ledger.accepting import Acceptance, accept
from gameday.ledger.folder import read_folder
from gameday.ledger.keeping import ensure_namespace, remove
from gameday.ledger.key import read_key
from gameday.ledger.lease import SAID_ANNOTATION, RunLease, Timing, ref_of
from gameday.ledger.ledger import Ledger
from gameday.ledger.mark import RecordLost
from gameday.ledger.operations import Create
from gameday.ledger.packing import RECORD_KEY, Record, pack, unpack
from gameday.ledger.recovery import How, recover
from gameday.ledger.scope import Scope
from gameday.ledger.seal import Seal, digest_of
from gameday.ledger.store import record_ref
from gameday.platform.conditional import ATTEMPTS
from gameday.platform.errors import PlatformError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.unruly import LOSE_ANSWER, LOSE_REQUEST, Unruly

RUN = "mark-test"
SCOPE = Scope(frozenset({"default"}))
MINE = Acceptance("alice", "2027-01-01T00:00:00Z", "it goes to the workshop")
FORCE = How(force=True, timing=Timing(duration=1, deadline=60, retry=0.1))


def _map(name: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


async def _dead(kube: Kube, folder: Path) -> Ledger:
    """A run that made one change, and is killed."""
    await ensure_namespace(kube)
    lease = RunLease(kube, RUN, timing=FORCE.timing)
    await lease.acquire()
    ledger = unguarded(kube, RUN, folder, {"cluster": "here"}, lambda _: None, lease, SCOPE)
    await ledger.step("1").perform([Create.of(_map("a"), RUN)])
    return ledger


async def test_a_record_that_was_deleted_past_its_finalizer(server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        await remove(kube, await kube.get(record_ref(RUN)))
        for _ in range(2):
            with pytest.raises(RecordLost, match="recover --run mark-test --from FOLDER"):
                await recover(kube, RUN, lambda _: None, how=FORCE)
        assert await kube.find(Ref.of(_map("a"))) is not None
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None


async def test_a_record_that_was_rolled_back(server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        old = await kube.get(record_ref(RUN))
        await ledger.step("2").perform([Create.of(_map("b"), RUN)])
        body = {k: old[k] for k in ("data", "binaryData")}
        await kube.patch(record_ref(RUN), body, "merge")
        with pytest.raises(RecordLost, match="an older one"):
            await recover(kube, RUN, lambda _: None, how=FORCE)
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("b"))) is None


def _kept(obj: Object) -> Object:
    """What somebody keeps of a Lease or a record, to put it back later."""
    return {"metadata": {"annotations": obj["metadata"].get("annotations")}} | {
        k: obj[k] for k in ("data", "binaryData") if k in obj
    }


async def test_an_older_record_that_comes_back_with_an_older_lease(server: Unruly, tmp_path: Path) -> None:
    """The run itself wrote both, and they fit each other."""
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        old = {ref: _kept(await kube.get(ref)) for ref in (record_ref(RUN), ref_of(RUN))}
        await ledger.step("2").perform([Create.of(_map("b"), RUN)])
        for ref, body in old.items():
            await kube.patch(ref, body, "merge")
        for _ in range(2):
            with pytest.raises(RecordLost, match="an older one"):
                await recover(kube, RUN, lambda _: None, how=FORCE)
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("b"))) is None


async def test_a_lease_from_before_there_was_a_record(
    server: Unruly, tmp_path: Path, arriving: list[Callable[[], Awaitable[object]]]
) -> None:
    """It says, truly once, that nothing was changed: put back with the record gone, nobody believes it."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await ensure_namespace(kube)
        lease = RunLease(kube, RUN, timing=FORCE.timing)
        await lease.acquire()
        ledger = unguarded(kube, RUN, tmp_path, {"cluster": "here"}, lambda _: None, lease, SCOPE)
        for _ in range(ATTEMPTS):
            server.lose(LOSE_REQUEST, "POST .*namespaces/gameday/configmaps")
        with pytest.raises(Unreachable):
            await ledger.step("1").perform([Create.of(_map("a"), RUN)])
        old = _kept(await kube.get(ref_of(RUN)))
        server.obey()
        await ledger.step("1").perform([Create.of(_map("a"), RUN)])
        await kube.patch(ref_of(RUN), old, "merge")
        await remove(kube, await kube.get(record_ref(RUN)))
        for _ in range(2):
            with pytest.raises(RecordLost, match="is lost"):
                await recover(kube, RUN, lambda _: None, how=FORCE)
        assert await kube.find(Ref.of(_map("a"))) is not None


async def test_nothing_is_made_before_its_record_is_marked(
    server: Unruly, tmp_path: Path, arriving: list[Callable[[], Awaitable[object]]]
) -> None:
    """Else a record that is taken away meanwhile would not be missed."""
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        for _ in range(ATTEMPTS):
            server.lose(LOSE_REQUEST, "PATCH .*secrets")
        with pytest.raises(Unreachable):
            await ledger.step("2").perform([Create.of(_map("b"), RUN)])
        assert await kube.find(Ref.of(_map("b"))) is None
        server.obey()
        assert (await recover(kube, RUN, lambda _: None, how=FORCE)).restored


@pytest.mark.parametrize("mark", ["done", "9 done", f"9 done {'0' * 64}", "999 abc", ""])
@pytest.mark.parametrize("gone", [False, True], ids=["", "and the record is gone"])
async def test_a_mark_that_somebody_else_wrote(mark: str, gone: bool, server: Unruly, tmp_path: Path) -> None:
    """Who may write Leases, but not read the run's key, says neither that it is done nor how far it was."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        body = {"metadata": {"annotations": {SAID_ANNOTATION: mark}}}
        await kube.patch(ref_of(RUN), body, "merge")
        if gone:
            await remove(kube, await kube.get(record_ref(RUN)))
            for _ in range(2):
                with pytest.raises(RecordLost, match="is lost"):
                    await recover(kube, RUN, lambda _: None, how=FORCE)
            return
        again = await recover(kube, RUN, lambda _: None, how=FORCE)
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None


def _secret(data: dict[str, str]) -> Object:
    meta = {"name": f"gameday-{RUN}", "namespace": "gameday"}
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "gameday.dev/ledger-key"}
    return kind | {"metadata": meta, "data": data}


@pytest.mark.parametrize("data", [{"key": base64.b64encode(b"known" * 7).decode()}, {"key": "!"}, {}])
async def test_a_key_that_somebody_else_put_there_signs_nothing(
    data: dict[str, str], server: Unruly, tmp_path: Path
) -> None:
    """Whoever made it could sign what the run never wrote. The run ends there, and leaves it to them."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await ensure_namespace(kube)
        planted = await kube.create(_secret(data))
        lease = RunLease(kube, RUN, timing=FORCE.timing)
        await lease.acquire()
        ledger = unguarded(kube, RUN, tmp_path, {"cluster": "here"}, lambda _: None, lease, SCOPE)
        with pytest.raises(PlatformError, match="is there already, and run mark-test did not make it"):
            await ledger.step("1").perform([Create.of(_map("a"), RUN)])
        await ledger.undo()
        await ledger.close(restored=True)
        await lease.release()
        assert await kube.find(Ref.of(_map("a"))) is None
        assert await kube.find(record_ref(RUN)) is None
        left = await kube.get(Ref.of(planted))
        assert left["metadata"]["uid"] == planted["metadata"]["uid"]


@pytest.mark.parametrize("lost", [LOSE_REQUEST, LOSE_ANSWER])
async def test_a_key_whose_answer_was_lost_is_the_runs_own(lost: str, server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        for _ in range(3):
            server.lose(lost, "POST .*secrets")
        await _dead(kube, tmp_path)
        assert (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
        assert await read_key(kube, RUN) is None


async def _forge(kube: Kube, records: list[Record], *, sealed: bool = True) -> None:
    """What somebody makes of a record who may write ConfigMaps, but not read the run's key."""
    data = pack(records)
    seal = Seal(99, "x", 10**6, digest_of(data)).to_text() if sealed else None
    await kube.patch(record_ref(RUN), {"data": {"seal": seal}, "binaryData": {RECORD_KEY: data}}, "merge")


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "without a seal"])
@pytest.mark.parametrize("state", ["", "not-made", "undone", "kept", "accepted", "irreversible"])
async def test_a_record_that_proves_nothing_restores_nothing(
    state: str, sealed: bool, server: Unruly, tmp_path: Path
) -> None:
    """Neither an empty record nor what it says of its entries; the run's folder outranks both."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        written = unpack(await kube.get(record_ref(RUN)))
        await _forge(kube, [r | {"state": state} for r in written] if state else [], sealed=sealed)
        for _ in range(2):
            result = await recover(kube, RUN, lambda _: None, how=FORCE)
            assert not result.restored
            assert any("recover --run mark-test --from FOLDER" in a.message for a in result.audits)
            assert await kube.find(record_ref(RUN)) is not None
            assert await kube.find(ref_of(RUN)) is not None
            assert await read_key(kube, RUN) is not None
        assert await kube.find(Ref.of(_map("a"))) is not None
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None
        assert await read_key(kube, RUN) is None


async def test_the_command_says_so_of_an_empty_record(server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        await _forge(kube, [])
        assert "mark-test: NOT fully restored" in await _recovered(server, "--run", RUN, "--force")


async def test_an_older_record_after_one_that_proves_nothing(server: Unruly, tmp_path: Path) -> None:
    """Whoever claims a forged record does not take it for the newest: an older one is still seen as one."""
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        old = await kube.get(record_ref(RUN))
        await ledger.step("2").perform([Create.of(_map("b"), RUN)])
        await _forge(kube, [])
        assert not (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
        await kube.patch(record_ref(RUN), {k: old[k] for k in ("data", "binaryData")}, "merge")
        with pytest.raises(RecordLost, match="an older one"):
            await recover(kube, RUN, lambda _: None, how=FORCE)


async def test_the_folder_outranks_an_older_state_that_the_run_signed(server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        (entry,) = await ledger.intend("2", [Create.of(_map("b"), RUN)])
        await ledger.cluster.append([entry.record() | {"state": "not-made"}])  # as after a first try
        old = await kube.get(record_ref(RUN))
        await ledger.make(entry)
        await kube.patch(record_ref(RUN), {k: old[k] for k in ("data", "binaryData")}, "merge")
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("b"))) is None


async def test_two_entries_under_one_number(server: Unruly, tmp_path: Path) -> None:
    """The one that the run signed is undone; the other is neither executed nor ever signed."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        await kube.create(_map("theirs"))
        (written,) = unpack(await kube.get(record_ref(RUN)))
        await _forge(kube, [written, written | {"op": Create.of(_map("theirs"), RUN).to_data()}])
        for _ in range(2):
            assert not (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
        assert await kube.find(Ref.of(_map("a"))) is None
        assert await kube.find(Ref.of(_map("theirs"))) is not None


async def test_nobody_takes_a_change_over_by_writing_a_config_map(server: Unruly, tmp_path: Path) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        await remove(kube, await kube.get(record_ref(RUN)))
        meta = {"name": ACCEPTED.name, "namespace": ACCEPTED.namespace}
        data = {f"{RUN}.1": "{}"}
        await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None


async def test_who_answers_for_what_a_record_lacks_does_not_answer_for_what_it_lacks_later(
    server: Unruly, tmp_path: Path
) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        await ledger.step("2").perform([Create.of(_map("b"), RUN), Create.of(_map("c"), RUN)])
        first, second, _ = unpack(await kube.get(record_ref(RUN)))
        await _forge(kube, [first, second | {"mac": "theirs"}])
        assert not (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
        done = await accept(kube, RUN, 0, MINE, how=FORCE)
        assert [e.number for e in done.left] == [2]
        again = await recover(kube, RUN, lambda _: None, how=FORCE)  # it stands for what was lacking then
        assert [e.number for e in again.undone if e.open] == [2]

        signed = unpack(await kube.get(record_ref(RUN)))
        await _forge(kube, [r for r in signed if r["n"] != 2])
        for _ in range(2):
            later = await recover(kube, RUN, lambda _: None, how=FORCE)
            assert not later.restored
            assert [e.number for e in later.undone if e.open] == [0]
        assert await kube.find(record_ref(RUN)) is not None
        assert await kube.find(Ref.of(_map("b"))) is not None
        assert not (await accept(kube, RUN, 0, MINE, how=FORCE)).left


async def test_who_answers_for_what_a_record_lacks_does_not_answer_for_a_damaged_folder(
    server: Unruly, tmp_path: Path
) -> None:
    async with await Kube.connect(server.kubeconfig) as kube:
        ledger = await _dead(kube, tmp_path)
        await ledger.step("2").perform([Create.of(_map("b"), RUN)])
        await _forge(kube, unpack(await kube.get(record_ref(RUN)))[:1])
        assert not (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
        assert not (await accept(kube, RUN, 0, MINE, how=FORCE)).left
        file = tmp_path / "ledger.jsonl"
        lines = file.read_text().splitlines()
        file.write_text("".join(f"{'x' if json.loads(line).get('n') == 2 else line}\n" for line in lines))
        for _ in range(2):
            folder = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
            assert not folder.restored
            assert any("is damaged" in a.message for a in folder.audits)
        assert await kube.find(Ref.of(_map("b"))) is not None
        assert not (await accept(kube, RUN, 0, MINE, how=FORCE)).left
        assert (await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))).restored


async def test_who_answers_for_what_others_wrote_does_not_answer_for_what_the_run_did(
    server: Unruly, tmp_path: Path
) -> None:
    """Somebody writes another change under the number of the run's, and it is taken over in its place."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        (written,) = unpack(await kube.get(record_ref(RUN)))
        await _forge(kube, [written | {"op": Create.of(_map("theirs"), RUN).to_data()}])
        await accept(kube, RUN, 1, MINE, how=FORCE)
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None


async def test_a_record_and_a_lease_that_were_deleted(server: Unruly, tmp_path: Path) -> None:
    """The key alone says that there was a run, and that it did not end."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await _dead(kube, tmp_path)
        for ref in (record_ref(RUN), ref_of(RUN)):
            await remove(kube, await kube.get(ref))
        for _ in range(2):
            said = await _recovered(server, "--run", RUN, "--force")
            assert "NOT restored: the record of run mark-test is lost" in said
        again = await recover(kube, RUN, lambda _: None, how=FORCE, local=read_folder(tmp_path))
        assert again.restored
        assert await kube.find(Ref.of(_map("a"))) is None
        assert "nothing to recover" in await _recovered(server, "--run", RUN)


async def _recovered(server: Unruly, *options: str) -> str:
    """What `gameday recover` says."""
    command = (sys.executable, "-m", "gameday", "recover", *options)
    env = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    asked = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=STDOUT)
    return (await asked.communicate())[0].decode()


async def test_no_cut_between_two_writes_of_the_end_is_taken_for_a_loss(
    server: Unruly, tmp_path: Path
) -> None:
    """The run ends after each number of writes in turn; whoever recovers it then hears of no loss."""
    async with await Kube.connect(server.kubeconfig) as kube:
        for writes in range(12):
            (folder := tmp_path / str(writes)).mkdir()
            ledger = await _dead(kube, folder)
            await ledger.undo()
            server.stop_after(writes)
            done = await _tried(ledger)
            server.obey()
            assert (await recover(kube, RUN, lambda _: None, how=FORCE)).restored
            if done:
                return
        raise AssertionError("closing never ended")


async def _tried(ledger: Ledger) -> bool:
    try:
        await ledger.close(restored=True)
    except Exception:
        return False
    return True
