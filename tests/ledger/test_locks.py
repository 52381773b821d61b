"""Locks on targets: all or none, in one write; overlapping runs are refused, and told which other it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.ledger import locks
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.lease import RunLease
from gameday.ledger.locks import Lock, Locked, gathered, lock_of, meeting
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.unruly import LOSE_ANSWER, LOSE_REQUEST, Unruly, connect

pytestmark = pytest.mark.fast

NODE: Lock = ("Node", "gpu-0")
WEB: Lock = ("namespace", "inference", "Deployment", "web")


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Kube]:
    async with await connect(server) as client:
        await ensure_namespace(client)
        for run in ("a", "b"):
            await RunLease(client, run).acquire()
        yield client


async def test_disjoint_runs_go_side_by_side_and_overlapping_ones_are_refused(kube: Kube) -> None:
    await locks.acquire(kube, "a", [NODE, WEB])
    await locks.acquire(kube, "b", [("Node", "gpu-1"), ("namespace", "inference", "Deployment", "other")])
    for wanted in (NODE, WEB, ("namespace", "inference"), ("Node",)):
        with pytest.raises(Locked, match=r"run (a|b) as well"):
            await locks.acquire(kube, "c", [wanted])
    assert set(await locks.held(kube)) == {"a", "b"}
    await locks.release(kube, "a")
    await locks.release(kube, "b")
    assert await kube.find(locks.LOCKS) is None


async def test_locks_that_are_taken_later_come_to_those_that_are_held(kube: Kube) -> None:
    await locks.acquire(kube, "a", [NODE])
    await locks.acquire(kube, "b", [WEB])
    with pytest.raises(Locked):
        await locks.acquire(kube, "a", [("Node", "gpu-1"), WEB])
    assert (await locks.held(kube))["a"] == [NODE]
    await locks.acquire(kube, "a", [("Node", "gpu-1")])
    assert (await locks.held(kube))["a"] == [NODE, ("Node", "gpu-1")]


async def test_of_runs_that_start_at_once_one_gets_all_and_the_others_nothing(server: Unruly) -> None:
    async with await connect(server) as first, await connect(server) as second:
        await ensure_namespace(first)
        runs = [f"run-{n}" for n in range(6)]
        for run in runs:
            await RunLease(first, run).acquire()
        wanted = [("Node", f"gpu-{n}") for n in range(50)]
        asked = [locks.acquire((first, second)[n % 2], run, wanted) for n, run in enumerate(runs)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        (winner,) = [run for run, e in zip(runs, ended, strict=True) if e is None]
        assert all(isinstance(e, Locked) and f"run {winner}" in str(e) for e in ended if e is not None)
        assert list(await locks.held(first)) == [winner]


async def test_hundreds_of_targets_are_one_write(server: Unruly, kube: Kube) -> None:
    server.changes.clear()
    await locks.acquire(
        kube, "a", [("Node", f"n-{n}") for n in range(150)] + [("x", str(n)) for n in range(999)]
    )
    assert len(server.changes) == 1
    assert len((await locks.held(kube))["a"]) == 151


@pytest.mark.parametrize("lost", [LOSE_REQUEST, LOSE_ANSWER])
async def test_a_lost_answer_is_no_other_run(lost: str, server: Unruly, kube: Kube) -> None:
    server.lose(lost, "(POST|PATCH) .*configmaps")
    await locks.acquire(kube, "a", [NODE])
    assert {*await locks.held(kube)} == {"a"}
    server.lose(lost, "(DELETE|PATCH) .*configmaps")
    await locks.release(kube, "a")
    assert await locks.held(kube) == {}


async def test_locks_of_a_run_that_is_nowhere_any_more_are_dropped(kube: Kube) -> None:
    await locks.acquire(kube, "gone", [NODE])
    await locks.acquire(kube, "a", [NODE])
    assert set(await locks.held(kube)) == {"a"}


@pytest.mark.parametrize("text", ["", "null", "[[]]", "[1]", '{"a": 1}', "[[null]]"])
async def test_entries_that_nobody_of_us_wrote_stop_nobody(text: str, kube: Kube) -> None:
    await locks.acquire(kube, "a", [NODE])
    await kube.patch(locks.LOCKS, {"data": {"x": text}}, "merge")
    await locks.acquire(kube, "b", [WEB])
    assert {"a", "b"} <= set(await locks.held(kube))


def test_pods_stand_for_their_namespace() -> None:
    pod, web = Ref("v1", "Pod", "web-1", "inference"), Ref("apps/v1", "Deployment", "web", "inference")
    assert meeting([lock_of(pod)], [lock_of(web)])
    assert not meeting([lock_of(pod)], [lock_of(Ref("apps/v1", "Deployment", "web", "other"))])
    assert meeting([lock_of(Ref("v1", "Namespace", "inference"))], [lock_of(web)])


_LOCKS = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), max_size=6)


@given(_LOCKS, _LOCKS)
def test_meeting_is_mutual_and_gathering_loses_nothing(mine: list[Lock], others: list[Lock]) -> None:
    met = any(a[: len(b)] == b or b[: len(a)] == a for a in mine for b in others)
    assert bool(meeting(mine, others)) == bool(meeting(others, mine)) == met
    assert bool(meeting(gathered(mine), gathered(others))) == met
