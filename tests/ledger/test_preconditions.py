"""Each precondition of the Lease and of the record by itself, with no other safeguard before it.

Chance alone does not find what one of them is for: a process that was stopped is held back by the fence
already. Here somebody else comes exactly between a look and its write, and no fence is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.key import read_key
from gameday.ledger.lease import RunLease, Timing, epoch_of, ref_of
from gameday.ledger.node_pod import Settings, helpers
from gameday.ledger.node_pod import pod as a_pod
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.observer import Observer
from gameday.ledger.operations import RUN_LABEL
from gameday.ledger.packing import Record, unpack
from gameday.ledger.seal import Seal
from gameday.ledger.store import ClusterStore, record_ref
from gameday.node.task import Task
from gameday.platform.errors import ApiError
from gameday.platform.fence import Lost, Unsure
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import Alone
from tests.support.unruly import LOSE_REQUEST, Unruly

pytestmark = pytest.mark.fast

RUN = "preconditions"
LEASE, RECORD = ref_of(RUN), record_ref(RUN)
TIMING = Timing(duration=15, deadline=10.0, retry=3600.0)
FINALIZERS, NOTE = "finalizers", {"metadata": {"annotations": {"somebody": "was here"}}}


class Raced(Kube):
    """A client that lets somebody else come between its look and its write."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None
    at = "PATCH"
    of = ""  # only a write whose body mentions it

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        if self.meanwhile is not None and method == self.at and self.of in str(more.get("body")):
            come, self.meanwhile = self.meanwhile, None
            await come()
        return await super().request(method, path, **more)

    def let(self, somebody: Callable[[], Awaitable[Any]], at: str = "PATCH", of: str = "") -> None:
        self.meanwhile, self.at, self.of = somebody, at, of


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Kube]:
    """Somebody else's client."""
    async with await Kube.connect(server.kubeconfig) as client:
        await ensure_namespace(client)
        yield client


@pytest.fixture
async def raced(server: Unruly) -> AsyncIterator[Raced]:
    async with await Raced.connect(server.kubeconfig) as client:
        assert isinstance(client, Raced)
        yield client


# -- the Lease ---------------------------------------------------------------------------------


def lease(kube: Kube, now: float = 0.0) -> RunLease:
    return RunLease(kube, RUN, timing=TIMING, clock=lambda: now)


async def taken(kube: Kube) -> RunLease:
    """Somebody else's Lease, of a run whose owner is gone."""
    other = lease(kube)
    await kube.patch(LEASE, {"spec": {"holderIdentity": ""}}, "merge")
    await other.take()
    return other


async def whose(kube: Kube) -> tuple[str, int]:
    found = await kube.get(LEASE)
    return found["spec"]["holderIdentity"], epoch_of(found)


async def test_a_new_run_takes_no_lease_that_is_there(kube: Kube) -> None:
    first = lease(kube)
    await first.acquire()
    with pytest.raises(Lost, match="is alive"):
        await lease(kube).acquire()
    assert await whose(kube) == (first.holder, 1)


async def test_a_renewal_does_not_take_the_lease_back(kube: Kube, raced: Raced) -> None:
    mine = lease(raced)
    await mine.acquire()
    other = await taken(kube)
    with pytest.raises(Lost, match="took the run over"):
        await mine.renew()
    assert await whose(kube) == (other.holder, other.epoch)


async def test_a_renewal_that_is_overtaken_on_its_way(kube: Kube, raced: Raced) -> None:
    mine = lease(raced)
    await mine.acquire()
    raced.let(lambda: taken(kube))
    with pytest.raises(Lost):
        await mine.renew()
    assert (await whose(kube))[0] != mine.holder


async def test_one_of_two_takes_a_lease_that_ran_out(kube: Kube, raced: Raced) -> None:
    await lease(kube).acquire()
    await kube.patch(LEASE, {"spec": {"holderIdentity": ""}}, "merge")
    mine, quicker = lease(raced), lease(kube)
    raced.let(quicker.take)
    with pytest.raises(Lost, match="was quicker"):
        await mine.take()
    assert await whose(kube) == (quicker.holder, 2)


async def test_a_note_on_the_lease_keeps_nobody_from_taking_it(kube: Kube, raced: Raced) -> None:
    await lease(kube).acquire()
    await kube.patch(LEASE, {"spec": {"holderIdentity": ""}}, "merge")
    mine = lease(raced)
    raced.let(lambda: kube.patch(LEASE, NOTE, "merge"))
    await mine.take()
    assert await whose(kube) == (mine.holder, 2)
    assert (await kube.get(LEASE))["metadata"]["annotations"]["somebody"] == "was here"


async def test_each_taking_has_an_epoch_of_its_own(kube: Kube) -> None:
    """Also above one that only the record knows, where the Lease is gone."""
    await lease(kube).acquire()
    assert [(await taken(kube)).epoch for _ in range(2)] == [2, 3]
    await kube.patch(LEASE, {"metadata": {FINALIZERS: None}}, "merge")
    await kube.delete(LEASE)
    late = lease(kube)
    await late.take(least=7)
    assert (late.epoch, (await whose(kube))[1]) == (8, 8)


@pytest.mark.parametrize("restored", [True, False])
async def test_nobody_gives_another_ones_lease_back(kube: Kube, raced: Raced, restored: bool) -> None:
    mine = lease(raced)
    await mine.acquire()
    raced.let(lambda: taken(kube))
    await mine.release(restored=restored)
    holder, epoch = await whose(kube)
    assert (holder != mine.holder, bool(holder), epoch) == (True, True, 2)
    assert FINALIZERS in (await kube.get(LEASE))["metadata"]


async def test_a_lease_that_is_taken_while_it_is_removed_stays(kube: Kube, raced: Raced) -> None:
    """Between the two writes of a removal: the finalizer is off, and the deletion is on its way."""
    mine = lease(raced)
    await mine.acquire()
    raced.let(lambda: taken(kube), at="DELETE")
    await mine.release()
    assert (await whose(kube))[0] != mine.holder


async def test_nothing_is_changed_so_long_after_the_last_renewal(kube: Kube) -> None:
    now = [0.0]
    mine = RunLease(kube, RUN, timing=TIMING, clock=lambda: now[0])
    await mine.acquire()
    now[0] = TIMING.deadline - 0.1
    mine.check()
    now[0] = TIMING.deadline
    with pytest.raises(Unsure, match="last renewed 10 s ago"):
        mine.check()


async def test_a_lease_that_is_renewed_is_not_taken(kube: Kube) -> None:
    """The observer's clock says that it ran out, and then a renewal comes."""
    first = lease(kube)
    await first.acquire()
    now = [0.0]
    observer = Observer(lambda: now[0], gap=10**6)
    observer.look(await kube.get(LEASE))
    now[0] = TIMING.duration + 1.0
    assert observer.look(await kube.get(LEASE))
    await first.renew()
    assert not observer.look(await kube.get(LEASE))


# -- the record --------------------------------------------------------------------------------


def record(number: int) -> Record:
    return {"n": number, "step": "1", "state": "made", "op": {"op": "delete"}}


def owner(epoch: int = 1) -> Alone:
    mine = Alone()
    mine.epoch = epoch
    return mine


def store(kube: Kube, who: Alone) -> ClusterStore:
    return ClusterStore(kube, RUN, {}, who, None)


async def written(kube: Kube) -> tuple[str, int, list[int]]:
    """Who wrote the record, for which epoch, and its entries."""
    found = await kube.get(RECORD)
    seal = Seal.of(found)
    assert seal is not None
    return seal.writer, seal.epoch, sorted(r["n"] for r in unpack(found))


async def claimed(kube: Kube, epoch: int) -> Alone:
    other = owner(epoch)
    assert await store(kube, other).claim(await read_key(kube, RUN)) is not None
    return other


async def test_a_record_that_was_claimed_is_not_written_any_more(kube: Kube, raced: Raced) -> None:
    mine = store(raced, owner())
    await mine.append([record(1)])
    other = await claimed(kube, 2)
    with pytest.raises(Lost, match="restores it"):
        await mine.append([record(2)])
    assert await written(kube) == (other.holder, 2, [1])


async def test_a_write_that_is_overtaken_on_its_way(kube: Kube, raced: Raced) -> None:
    mine = store(raced, owner())
    await mine.append([record(1)])
    raced.let(lambda: claimed(kube, 2))
    with pytest.raises(Lost):
        await mine.append([record(2)])
    assert (await written(kube))[1:] == (2, [1])


async def test_a_label_on_the_record_keeps_nobody_from_writing_it(kube: Kube, raced: Raced) -> None:
    who = owner()
    mine = store(raced, who)
    await mine.append([record(1)])
    raced.let(lambda: kube.patch(RECORD, NOTE, "merge"))
    await mine.append([record(2)])
    assert await written(kube) == (who.holder, 1, [1, 2])


async def test_a_record_that_was_deleted_is_not_made_anew(kube: Kube, raced: Raced) -> None:
    """Perhaps somebody restored the run: what is written then would be executed again."""
    mine = store(raced, owner())
    await mine.append([record(1)])
    await kube.patch(RECORD, {"metadata": {FINALIZERS: None}}, "merge")
    await kube.delete(RECORD)
    with pytest.raises(Lost, match="was deleted"):
        await mine.append([record(2)])
    assert await kube.find(RECORD) is None


async def test_a_record_that_somebody_else_made_is_not_ours(kube: Kube, raced: Raced) -> None:
    other = owner()

    async def theirs() -> None:
        another = store(kube, other)
        another.key = await read_key(kube, RUN)
        await another.append([record(9)])

    raced.let(theirs, at="POST", of="binaryData")
    with pytest.raises(Lost):
        await store(raced, owner()).append([record(1)])
    assert await written(kube) == (other.holder, 1, [9])


async def test_one_of_two_claims_a_record(kube: Kube, raced: Raced) -> None:
    await store(kube, owner()).append([record(1)])
    raced.let(lambda: claimed(kube, 3))
    with pytest.raises(Lost, match="took run preconditions over first"):
        await store(raced, owner(2)).claim(await read_key(kube, RUN))
    assert (await written(kube))[1] == 3


@pytest.mark.parametrize("epoch", [1, 2])
async def test_no_record_of_this_epoch_or_a_later_one_is_claimed(kube: Kube, epoch: int) -> None:
    first = owner(2)
    await store(kube, first).append([record(1)])
    with pytest.raises(Lost, match="over first"):
        await store(kube, owner(epoch)).claim(await read_key(kube, RUN))
    assert (await written(kube))[:2] == (first.holder, 2)


async def test_a_claim_that_never_arrived_is_sent_again(server: Unruly, kube: Kube) -> None:
    await store(kube, owner()).append([record(1)])
    who = owner(2)
    server.lose(LOSE_REQUEST, "PATCH .*configmaps")
    assert await store(kube, who).claim(await read_key(kube, RUN)) is not None
    assert (await written(kube))[0] == who.holder


@pytest.mark.parametrize("at", ["PATCH", "DELETE"])
async def test_a_record_that_is_claimed_while_it_is_removed_stays(kube: Kube, raced: Raced, at: str) -> None:
    """Before the finalizer is off, and between that and the deletion."""
    mine = store(raced, owner())
    await mine.append([record(1)])
    raced.let(lambda: claimed(kube, 2), at=at, of="" if at == "DELETE" else FINALIZERS)
    with pytest.raises(Lost, match="is another's"):
        await mine.remove()
    assert (await written(kube))[1:] == (2, [1])
    assert await read_key(kube, RUN) is not None


async def test_a_record_is_not_written_by_who_lost_the_run(kube: Kube) -> None:
    """Asked before anything is sent, the key of the record included."""

    class Gone(Alone):
        def check(self, *, undoing: bool = False) -> None:
            raise Lost("somebody else has it")

    with pytest.raises(Lost):
        await store(kube, Gone()).append([record(1)])
    assert await kube.find(RECORD) is None
    assert await read_key(kube, RUN) is None


async def test_a_removal_whose_answer_is_lost_is_looked_at_again(server: Unruly, kube: Kube) -> None:
    mine = store(kube, owner())
    await mine.append([record(1)])
    assert await kube.find(RECORD) is not None
    server.lose(LOSE_REQUEST, "DELETE .*configmaps")
    await mine.remove()
    assert await kube.find(RECORD) is None


# -- a program's pod ---------------------------------------------------------------------------


def pod(run: str) -> Object:
    meta = {"name": "program", "namespace": "default", "labels": {RUN_LABEL: run}}
    spec = {"containers": [{"name": "program", "image": "python"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def test_a_pod_that_took_the_name_of_a_program_is_not_deleted(kube: Kube, raced: Raced) -> None:
    """It comes after the look that found our own."""
    ours = Ref.of(await kube.create(pod(RUN)))
    await kube.patch(ours, {"status": {"phase": "Running"}}, "merge", subresource="status")
    task = Task("program", "kubelet-stop", lease=("gameday", LEASE.name), pod=("default", "program"))
    program = NodeProgram(ours.named, RUN, "gone-node", task, Settings("python"))

    async def another() -> None:
        await kube.delete(ours, grace=0)
        await kube.create(pod("another-run"))

    raced.let(another, at="DELETE")
    await program.undo(raced)
    found = await kube.get(ours.named)
    assert (found["metadata"]["labels"][RUN_LABEL], "deletionTimestamp" in found["metadata"]) == (
        "another-run",
        False,
    )


PLANTED: dict[str, Callable[[Object], Object]] = {
    "Pod": lambda o: {**o, "spec": {**o["spec"], "containers": [{"name": "program", "image": "theirs"}]}},
    "RoleBinding": lambda o: {**o, "roleRef": {**o["roleRef"], "kind": "ClusterRole", "name": "admin"}},
}


@pytest.mark.parametrize("kind", PLANTED)
async def test_an_object_that_was_put_there_for_a_program_is_not_taken_for_its_own(
    kind: str, kube: Kube
) -> None:
    """It carries the run's label, and runs something else, or gives the program other rights."""
    task = Task("program", "kubelet-stop", lease=("gameday", LEASE.name), pod=("default", "program"))
    ref, settings = Ref("v1", "Pod", "program", "default"), Settings("python")
    program = NodeProgram(ref, RUN, "some-node", task, settings)
    made = [
        *helpers(ref, task, RUN, program.files),
        a_pod(ref, task, RUN, "some-node", settings, "run", program.files),
    ]
    (wanted,) = (o for o in made if o["kind"] == kind and o["metadata"]["namespace"] == "default")
    planted = Ref.of(await kube.create(PLANTED[kind](wanted)))
    with pytest.raises(ApiError, match="already exists"):
        await program.make(kube)
    await kube.delete(planted, grace=0)
    await program.make(kube)
    await program.make(kube)  # as after an answer that was lost: what is there is its own
