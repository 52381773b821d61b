"""A record that can't be read stops nobody: the rest is restored, and what is left is told."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.ledger.edits import Edit
from gameday.ledger.key import make_key, new_key, remove_key
from gameday.ledger.operations import Create, Patch
from gameday.ledger.seal import sign_entry
from gameday.ledger.store import NAMESPACE, RECORD_KEY, ensure_namespace, pack, unpack
from gameday.ledger.survey import entries_of, survey
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.experiments import CORDON, write
from tests.support.program import Program

RUN = "unreadable-test"
STRANGE = {
    "n": 2,
    "step": "1",
    "state": "made",
    "op": {"op": "teleport", "ref": Ref("v1", "Node", "gpu-0").to_data()},
}


def _config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


def _record(data: str) -> Object:
    meta = {
        "name": f"gameday-{RUN}",
        "namespace": NAMESPACE,
        "labels": {"gameday.dev/run": RUN, "gameday.dev/ledger": "true"},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "binaryData": {RECORD_KEY: data}}


@pytest.fixture
async def entry(kube: Kube) -> AsyncIterator[dict[str, Any]]:
    """The record of a change that is in force."""
    await ensure_namespace(kube)
    create = Create.of(_config_map("unreadable"), RUN)
    await create.make(kube)
    record = {"n": 1, "step": "1", "state": "made", "op": create.to_data()}
    key = new_key()
    await make_key(kube, RUN, key)
    yield sign_entry(key, RUN, record, 1)
    await create.undo(kube)
    await kube.delete(Ref("v1", "ConfigMap", f"gameday-{RUN}", NAMESPACE))
    await kube.delete(Ref("coordination.k8s.io/v1", "Lease", f"gameday-{RUN}", NAMESPACE))
    await remove_key(kube, RUN)


def _cut(records: list[dict[str, Any]]) -> str:
    """As a write that broke off: the first record is whole, the rest is not."""
    text = "".join(json.dumps(r) + "\n" for r in records) + "x" * 5000
    packed = gzip.compress(text.encode(), 0)
    return base64.b64encode(packed[: len(packed) - 4000]).decode()


@pytest.mark.parametrize("damage", ["unknown kind", "cut off"])
async def test_the_rest_is_restored_and_the_reader_told(
    damage: str, gameday: Program, kube: Kube, entry: dict[str, Any], tmp_path: Any
) -> None:
    await kube.create(_record(pack([entry, STRANGE]) if damage == "unknown kind" else _cut([entry])))
    words = "'teleport', which gameday" if damage == "unknown kind" else "is damaged (1 change could be read"
    status = gameday("status")
    assert status.code == 0, status.output
    assert "ConfigMap default/unreadable" in status.output
    refused = gameday.run(write(tmp_path, method=[CORDON]))
    assert refused.code == 4, refused.output
    assert f"gameday recover --run {RUN}" in refused.output
    recovered = gameday("recover", "--run", RUN, "--force")
    assert recovered.code == 5, recovered.output
    assert await kube.find(Ref.of(_config_map("unreadable"))) is None
    assert words in recovered.output
    assert f"gameday recover --run {RUN} --forget" in recovered.output
    left = next(run for run in (await survey(kube)).runs if run.run == RUN)
    assert {e.operation.kind for e in left.open} == {"unreadable"}
    assert gameday("recover", "--run", RUN, "--forget").code == 0
    assert RUN not in {run.run for run in (await survey(kube)).runs}


@pytest.mark.fast
@pytest.mark.parametrize(
    "data",
    ["", "!", "AAAA", base64.b64encode(gzip.compress(b"[]\n{}\nnull\n", mtime=0)).decode()],
)
def test_whatever_is_in_a_record_is_an_entry_that_says_so(data: str) -> None:
    record = _record(data)
    entries = entries_of(record, unpack(record), None)
    assert [e.operation.kind for e in entries] == ["unreadable"]
    assert f"the record of run {RUN} is damaged" in entries[0].operation.summary


@pytest.mark.fast
def test_a_known_operation_with_damaged_data_is_told_by_its_object() -> None:
    ref = Ref("v1", "Node", "gpu-0")
    data = Patch(ref, (Edit(("spec", "unschedulable"), True),), "gameday-run").to_data() | {"edits": None}
    record = _record(pack([{"n": 1, "step": "1", "state": "made", "op": data}]))
    (entry,) = entries_of(record, unpack(record), None)
    assert (entry.operation.kind, entry.operation.ref) == ("unreadable", ref)
    assert entry.operation.to_data() == data
