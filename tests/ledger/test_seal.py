"""What a signature is of: every field that a recovery reads, and those that nobody has thought of yet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.lease import RunLease, Timing
from gameday.ledger.ledger import Entry
from gameday.ledger.operations import Create
from gameday.ledger.packing import RECORD_KEY, Record, pack, unpack
from gameday.ledger.recovery import How, recover
from gameday.ledger.scope import Scope
from gameday.ledger.seal import SEAL, Seal, entry_holds, sign_entry
from gameday.ledger.store import record_ref
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.states import Change
from tests.support.ledgers import unguarded
from tests.support.unruly import Unruly

KEY, RUN = b"k" * 32, "seal-test"
FORCE = How(force=True, timing=Timing(duration=1, deadline=60, retry=0.1))
A_MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}


def full_record() -> Record:
    """An entry with every field that a record can have."""
    entry = Entry.of(1, "1", Create.of(A_MAP, RUN))
    entry.state, entry.package, entry.acceptance = Change.FAILED, "acme", {"by": "alice"}
    return sign_entry(KEY, RUN, entry.record(), 1)


FIELDS = sorted(full_record().keys() - {"mac"})


@pytest.mark.fast
def test_the_record_above_has_every_field_that_decides() -> None:
    """All that `Entry.from_record` gives comes from it: a new field of an entry has to be written above."""
    from_a_record = {"number", "step", "operation", "state", "package", "acceptance", "settled"}
    of_this_process = {"message", "learned", "altered", "lands_until", "hung", "refused"}
    assert {f.name for f in dataclasses.fields(Entry)} == from_a_record | of_this_process
    assert set(FIELDS) == {"n", "step", "op", "state", "package", "acceptance", "mayLand", "epoch"}


@pytest.mark.fast
@pytest.mark.parametrize("field", FIELDS)
def test_an_entry_without_a_field_or_with_another_value_is_not_the_runs(field: str) -> None:
    record = full_record()
    assert entry_holds(KEY, RUN, record)
    assert not entry_holds(KEY, RUN, {k: v for k, v in record.items() if k != field})
    assert not entry_holds(KEY, RUN, record | {field: "another"})


@pytest.mark.fast
def test_an_entry_with_a_field_that_the_run_did_not_write_is_not_the_runs() -> None:
    assert not entry_holds(KEY, RUN, full_record() | {"new": None})


@pytest.mark.fast
@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Seal) if f.name != "mac"])
def test_a_head_with_another_value_is_not_the_runs(field: str) -> None:
    seal = Seal(1, "me", 2, "digest", {"namespaces": ["default"]}).signed(KEY, RUN)
    kept = Seal.of({"data": {SEAL: seal.to_text()}})
    assert kept == seal
    assert kept.holds(KEY, RUN)
    changes: dict[str, Any] = {field: {} if field == "scope" else 3}
    assert not dataclasses.replace(seal, **changes).holds(KEY, RUN)


@pytest.mark.parametrize("change", ["mayLand", "scope"])
async def test_what_somebody_changes_beside_an_operation_decides_nothing(
    change: str, server: Unruly, tmp_path: Path
) -> None:
    """That a request may still arrive stays with an entry; a narrower scope keeps nothing back."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await ensure_namespace(kube)
        lease = RunLease(kube, RUN, timing=FORCE.timing)
        await lease.acquire()
        scope = Scope(frozenset({"default"}))
        ledger = unguarded(kube, RUN, tmp_path, {"cluster": "here"}, lambda _: None, lease, scope)
        (entry,) = await ledger.step("1").perform([Create.of(A_MAP, RUN)])
        await ledger.cluster.append([entry.record() | {"state": "failed", "mayLand": True}])
        found = await kube.get(record_ref(RUN))
        (record,), seal = unpack(found), Seal.of(found)
        assert seal is not None
        if change == "mayLand":
            body = {"binaryData": {RECORD_KEY: pack([{k: v for k, v in record.items() if k != "mayLand"}])}}
        else:
            narrow = dataclasses.replace(seal, scope={"namespaces": ["elsewhere"]})
            body = {"data": {SEAL: narrow.to_text()}}
        await kube.patch(record_ref(RUN), body, "merge")
        result = await recover(kube, RUN, lambda _: None, how=FORCE)
        assert not result.restored  # what the record may lack is asked in either case
        executed = await kube.find(Ref.of(A_MAP)) is None
        assert executed == (change == "scope")
