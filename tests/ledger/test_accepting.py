"""What a person takes over is free for others; what is open still keeps its locks, as far as it may reach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.ledger import locks, restorations
from gameday.ledger.acceptance import ACCEPTED, accepted, what
from gameday.ledger.accepting import Acceptance, Accepted, NoEntry, accept
from gameday.ledger.edits import Edit
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.key import read_key
from gameday.ledger.lease import RunLease, ref_of
from gameday.ledger.ledger import Ledger
from gameday.ledger.locks import Lock, Locked
from gameday.ledger.operations import Create, Operation, Patch
from gameday.ledger.recovery import How, recover
from gameday.ledger.restorations import Restoration
from gameday.ledger.store import record_ref
from gameday.platform.fence import Lost
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.unruly import Unruly, connect

pytestmark = pytest.mark.fast

RUN = "accept-test"
MINE = Acceptance("alice", "2027-01-01T00:00:00Z", "it goes to the workshop")
CORDON = Edit(("spec", "unschedulable"), True)
NODES = [Ref("v1", "Node", name) for name in ("n0", "n1", "n2")]
LOCKS: list[Lock] = [("Node", "n0"), ("Node", "n1"), ("Node", "n2"), ("namespace", "team")]
OTHERS: Lock = ("Node", "theirs")


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Kube]:
    async with await connect(server) as client:
        await ensure_namespace(client)
        await RunLease(client, "other").acquire()
        await locks.acquire(client, "other", [OTHERS])
        for ref in NODES:
            await client.create(
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": ref.name}, "spec": {}}
            )
        yield client


async def patched(kube: Kube, ref: Ref, edit: Edit = CORDON) -> Patch:
    made = await Patch.of(kube, ref, edit)
    assert made is not None
    return made


def a_map(name: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "before"}}


async def begun(kube: Kube, folder: Path) -> tuple[Ledger, RunLease]:
    lease = RunLease(kube, RUN)
    await lease.acquire()
    await locks.acquire(kube, RUN, LOCKS)
    return unguarded(kube, RUN, folder, {"cluster": "here"}, lambda _: None, lease), lease


async def died(kube: Kube, folder: Path, *operations: Operation) -> None:
    """A run that made these changes, in this order, and whose Lease nobody holds any more."""
    ledger, lease = await begun(kube, folder)
    for number, operation in enumerate(operations, 1):
        await ledger.step(str(number)).perform([operation])
    await lease.release(restored=False)


async def takes(kube: Kube, number: int) -> Accepted:
    return await accept(kube, RUN, number, MINE)


async def test_what_was_taken_over_is_free_and_the_rest_is_not(kube: Kube, tmp_path: Path) -> None:
    await died(kube, tmp_path, *[await patched(kube, ref) for ref in NODES[:2]])
    done = await takes(kube, 1)
    assert [e.number for e in done.left] == [2]
    held = await locks.held(kube)
    assert ("Node", "n0") not in held[RUN]
    assert ("Node", "n1") in held[RUN]
    assert held["other"] == [OTHERS]
    await locks.acquire(kube, "other", [("Node", "n0")])
    with pytest.raises(Locked, match=f"Node n1 is a target of run {RUN}"):
        await locks.acquire(kube, "other", [("Node", "n1")])
    assert (await kube.get(NODES[0]))["spec"]["unschedulable"] is True  # the world stays


async def test_what_an_open_change_of_a_node_may_end_stays_locked(kube: Kube, tmp_path: Path) -> None:
    """The run had locked a namespace since a node's taint ends pods there: that taint is in force still."""
    taint = Edit(
        ("spec", "taints"),
        {"key": "k", "effect": "NoExecute"},
        item=(("effect", "NoExecute"), ("key", "k")),
    )
    await died(kube, tmp_path, await patched(kube, NODES[0]), await patched(kube, NODES[1], taint))
    await takes(kube, 1)
    assert ("namespace", "team") in (await locks.held(kube))[RUN]


async def test_two_changes_of_one_object_keep_it_locked_both(kube: Kube, tmp_path: Path) -> None:
    label = Edit(("metadata", "labels", "a"), "b")
    await died(kube, tmp_path, await patched(kube, NODES[0]), await patched(kube, NODES[0], label))
    await takes(kube, 1)
    assert ("Node", "n0") in (await locks.held(kube))[RUN]


async def test_an_object_in_force_that_may_reach_nodes_keeps_them_locked(kube: Kube, tmp_path: Path) -> None:
    """An object of Chaos Mesh, say, acts on more than itself."""
    await died(kube, tmp_path, await patched(kube, NODES[0]), Create.of(a_map("chaos"), RUN))
    await takes(kube, 1)
    assert (await locks.held(kube))[RUN] == LOCKS


async def test_a_change_that_nobody_can_read_keeps_everything_locked(kube: Kube, tmp_path: Path) -> None:
    """It is of a package that is not installed here."""

    class Unknown(Create):
        def to_data(self) -> dict[str, object]:
            return {**super().to_data(), "op": "nobody-knows"}

    await died(kube, tmp_path, await patched(kube, NODES[0]), Unknown.of(a_map("b"), RUN))
    await takes(kube, 1)
    assert (await locks.held(kube))[RUN] == LOCKS


async def test_with_the_last_one_the_run_is_over(kube: Kube, tmp_path: Path) -> None:
    await died(kube, tmp_path, *[await patched(kube, ref) for ref in NODES[:2]])
    await takes(kube, 1)
    assert not (await takes(kube, 2)).left
    assert await locks.held(kube) == {"other": [OTHERS]}
    assert [await kube.find(r) for r in (record_ref(RUN), ref_of(RUN))] == [None, None]
    assert await read_key(kube, RUN) is None


async def test_a_recovery_restores_the_rest_and_frees_it(kube: Kube, tmp_path: Path) -> None:
    await died(kube, tmp_path, *[await patched(kube, ref) for ref in NODES[:2]])
    await takes(kube, 1)
    assert (await recover(kube, RUN, lambda _: None)).restored
    cordoned = [(await kube.get(ref))["spec"].get("unschedulable") for ref in NODES[:2]]
    assert cordoned == [True, None]
    assert await locks.held(kube) == {"other": [OTHERS]}


async def test_nothing_is_freed_of_a_run_that_is_alive(kube: Kube, tmp_path: Path) -> None:
    ledger, lease = await begun(kube, tmp_path)
    await ledger.step("1").perform([await patched(kube, NODES[0])])
    with pytest.raises(NoEntry, match=f"open are: {RUN}/1"):
        await takes(kube, 7)
    keeper = asyncio.create_task(lease.keep(lambda _: None))
    try:
        with pytest.raises(Lost, match="alive"):
            await takes(kube, 1)
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    assert (await locks.held(kube))[RUN] == LOCKS


def long_over(number: int) -> str:
    """The name of a run that ended before this one's: the higher, the later."""
    return f"over.{number:03}"


def said_at(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"


async def test_the_oldest_acceptances_are_forgotten_but_not_of_a_run_that_is_not_over(
    kube: Kube, tmp_path: Path
) -> None:
    """Of two hundred runs that ended, and of one, older than all, whose other change is open still."""
    await died(kube, tmp_path, *[await patched(kube, ref) for ref in NODES[:3]])
    old = Acceptance("bob", "2025-01-01T00:00:00Z", "the first")
    first = (await accept(kube, RUN, 1, old)).entry
    texts = {f"{long_over(n)}.1": json.dumps({"at": said_at(n), "digest": "d"}) for n in range(200)}
    await kube.patch(ACCEPTED, {"data": texts}, "merge")
    lease = RunLease(kube, "new")
    await lease.acquire()
    (tmp_path / "new").mkdir()
    ledger = unguarded(kube, "new", tmp_path / "new", {"cluster": "here"}, lambda _: None, lease)
    await ledger.step("1").perform([await patched(kube, NODES[0], Edit(("metadata", "labels", "a"), "b"))])
    await accept(kube, "new", 1, MINE, how=How(force=True))
    kept = {name.rpartition(".")[0] for name in (await kube.get(ACCEPTED))["data"]}
    assert kept == {RUN, "new", *(long_over(n) for n in range(101, 200))}
    assert await accepted(kube, RUN, await read_key(kube, RUN)) == {what(first.record())}


async def test_the_oldest_restorations_are_forgotten(kube: Kube) -> None:
    for n in range(103):
        await restorations.keep(kube, long_over(n), Restoration("alice", said_at(n), 1))
    kept = (await kube.get(restorations.RESTORED))["data"]
    assert set(kept) == {long_over(n) for n in range(3, 103)}
