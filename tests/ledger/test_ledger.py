"""The ledger is durable before a change, gathers its writes, and undoes what another process left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.events import Event
from gameday.ledger.edits import Edit
from gameday.ledger.lease import RunLease, Timing
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Create, Patch
from gameday.ledger.recovery import How, recover
from gameday.ledger.store import NAMESPACE, ensure_namespace, records, unpack
from gameday.ledger.survey import survey
from gameday.platform.fence import Lost
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.proxy import ApiProxy

RUN = "ledger-test"
# An observer gives such a Lease up soon; its holder does not, however slow the machine is.
BRIEF = Timing(duration=1, deadline=60, retry=0.1)


def _config_map(number: int) -> Object:
    meta = {"name": f"ledger-{number}", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": "0"}}


@pytest.fixture
async def ledger(kube: Kube, tmp_path: Path) -> AsyncIterator[Ledger]:
    await ensure_namespace(kube)
    made = unguarded(kube, RUN, tmp_path, {"experiment": "test"}, lambda _: None)
    yield made
    await made.undo()
    await made.close(restored=True)


async def _recorded(kube: Kube) -> list[str]:
    found = [r for r in await records(kube) if r["metadata"]["name"] == f"gameday-{RUN}"]
    return [r["state"] for f in found for r in unpack(f)]


async def test_an_entry_is_on_disk_and_in_the_cluster_before_its_change(
    kube: Kube, ledger: Ledger, tmp_path: Path
) -> None:
    entries = await ledger.intend("1", [Create.of(_config_map(0), RUN)])
    assert await kube.find(entries[0].operation.ref) is None
    assert json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[-1])["state"] == "intended"
    assert await _recorded(kube) == ["intended"]
    await ledger.make(entries[0])
    assert await kube.find(entries[0].operation.ref) is not None
    await ledger.undo()
    assert await kube.find(entries[0].operation.ref) is None
    assert await _recorded(kube) == ["undone"]


async def test_a_hundred_entries_are_a_handful_of_writes(
    kube: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    async with await Kube.connect(api_proxy.kubeconfig) as counted:
        ledger = unguarded(counted, RUN, tmp_path, {}, lambda _: None)
        try:
            await asyncio.gather(
                *(ledger.intend(str(n), [Create.of(_config_map(n), RUN)]) for n in range(100))
            )
        finally:
            await ledger.close(restored=True)
    writes = [r for r in api_proxy.requests if "configmaps" in r and r.split()[0] in ("POST", "PATCH")]
    assert len(ledger.entries) == 100
    assert len(writes) <= 4


async def test_nothing_is_changed_when_it_cannot_be_written_down(
    kube: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    async with await Kube.connect(api_proxy.kubeconfig) as failing:
        failing.patience = 0.1
        ledger = unguarded(failing, RUN, tmp_path, {}, lambda _: None)
        api_proxy.fail("POST", "configmaps", 500, reason="InternalError", message="no leader", times=10)
        with pytest.raises(Exception, match="no leader"):
            await ledger.step("1").perform([Create.of(_config_map(1), RUN)])
        await ledger.close(restored=True)
    assert await kube.find(Ref.of(_config_map(1))) is None


async def test_an_undo_waits_until_the_credentials_are_taken_again(
    kube: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    told: list[Event] = []
    obj = _config_map(7)
    async with await Kube.connect(api_proxy.kubeconfig) as ours:
        ledger = unguarded(ours, RUN, tmp_path, {}, told.append)
        await ledger.step("1").perform([Create.of(obj, RUN)])
        for method in ("GET", "DELETE", "PATCH"):
            api_proxy.fail(method, "ledger-7", 401, reason="Unauthorized", message="Unauthorized", times=3)
        (undone,) = await ledger.undo()
        assert undone.state == "undone"
        await ledger.close(restored=True)
    assert await kube.find(Ref.of(obj)) is None
    assert any("still trying to undo" in str(e) and "credentials" in str(e) for e in told)


async def test_entries_of_one_object_are_undone_in_reverse(kube: Kube, ledger: Ledger) -> None:
    step = ledger.step("1")
    await step.perform([Create.of(_config_map(2), RUN)])
    ref = Ref.of(_config_map(2))
    for value in ("1", "2", "3"):
        await step.perform([await Patch.of(kube, ref, Edit(("data", "n"), value))])
    undone = await ledger.undo()
    assert [e.number for e in undone] == [4, 3, 2, 1]
    assert {e.state for e in undone} == {"undone"}


async def test_a_step_takes_back_its_own_and_what_is_inside_it(ledger: Ledger) -> None:
    for step in ("1", "1.2", "10", "2"):
        await ledger.step(step).perform([Create.of(_config_map(hash(step) % 10**6), RUN)])
    assert {e.step for e in await ledger.undo("1")} == {"1", "1.2"}
    assert {e.step for e in await ledger.undo()} == {"10", "2"}


async def _renew(lease: RunLease) -> None:
    while True:
        await lease.renew()


async def test_another_process_recovers_from_the_record_alone(kube: Kube, tmp_path: Path) -> None:
    await ensure_namespace(kube)
    lease = RunLease(kube, RUN, timing=BRIEF)
    await lease.acquire()
    about = {"experiment": "test", "by": "somebody"}
    dead = unguarded(kube, RUN, tmp_path, about, lambda _: None, lease)
    await dead.step("1").perform([Create.of(_config_map(3), RUN), Create.of(_config_map(4), RUN)])
    found = next(r for r in (await survey(kube)).runs if r.run == RUN)
    assert (found.alive, found.by, len(found.open)) == (True, "somebody", 2)
    renewing = asyncio.create_task(_renew(lease))
    with pytest.raises(Lost, match="is alive"):
        await recover(kube, RUN, lambda _: None)
    renewing.cancel()
    heard: list[Event] = []
    result = await recover(kube, RUN, heard.append, how=How(force=True))
    assert result.restored
    assert {e.state for e in result.undone} == {"undone"}
    assert await kube.find(Ref.of(_config_map(3))) is None
    assert RUN not in {r.run for r in (await survey(kube)).runs}
    assert await kube.find(Ref("coordination.k8s.io/v1", "Lease", f"gameday-{RUN}", NAMESPACE)) is None


async def test_a_record_whose_first_answer_was_lost_is_neither_doubled_nor_left(
    kube: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    """The server wrote it, and the connection broke before it could say so."""
    await ensure_namespace(kube)
    async with await Kube.connect(api_proxy.kubeconfig) as unlucky:
        ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
        api_proxy.hang_up("POST", "configmaps")
        await ledger.intend("1", [Create.of(_config_map(5), RUN)])
        assert await _recorded(kube) == ["intended"]
        await ledger.undo()
        await ledger.close(restored=True)
    assert await _recorded(kube) == []
