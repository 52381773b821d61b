"""A request whose connection broke arrives after the undo, as from a proxy that kept it: nothing stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gameday.events import Emit, Event, Warn
from gameday.ledger.edits import Edit
from gameday.ledger.lease import RunLease, ref_of
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import ATTEMPTS, OUTDATED_LABEL, Create, Evict, Operation, Patch, Undone
from gameday.ledger.recovery import How, recover
from gameday.ledger.store import ensure_namespace, record_ref
from gameday.ledger.survey import survey
from gameday.platform.errors import ApiError, PlatformError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy
from tests.support.unruly import Unruly

RUN = "late-test"
Deliver = Callable[[], Awaitable[object]]
REF = Ref("v1", "ConfigMap", "late", "default")
MAP: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": REF.name, "namespace": REF.namespace},
    "data": {"n": "0"},
}
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "late", "namespace": "default"},
    "spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "nothing.invalid/app"}]},
}


@pytest.fixture
async def unlucky(kube: Kube, api_proxy: ApiProxy) -> AsyncIterator[Kube]:
    """The run's client; what stands between it and the API server keeps requests."""
    await ensure_namespace(kube)
    async with await Kube.connect(api_proxy.kubeconfig) as client:
        yield client


@pytest.fixture
async def target(kube: Kube) -> AsyncIterator[Ref]:
    await kube.create(MAP)
    yield REF
    await kube.delete(REF)


def delivering(proxy: ApiProxy, answers: list[int]) -> Emit:
    """Hears the ledger's events; what was postponed arrives once the ledger says that it may."""

    def hear(event: Event) -> None:
        if isinstance(event, Warn) and "may still arrive" in event.message:
            answers.extend(proxy.deliver())

    return hear


async def _send(ledger: Ledger, operation: Operation | None) -> None:
    with pytest.raises(Unreachable):
        await ledger.step("1").perform([operation])


async def test_a_patch(kube: Kube, unlucky: Kube, target: Ref, api_proxy: ApiProxy, tmp_path: Path) -> None:
    """None of its attempts lands: each was for a version that the undo replaced."""
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    for _ in range(ATTEMPTS):
        api_proxy.postpone("PATCH", "configmaps/late")
    await _send(ledger, await Patch.of(unlucky, target, Edit(("data", "n"), "1")))
    audits = await ledger.restore()
    assert len(answers := api_proxy.deliver()) == ATTEMPTS
    assert set(answers) <= {409, 422}
    found = await kube.get(target)
    assert found["data"] == {"n": "0"}
    assert OUTDATED_LABEL not in (found["metadata"].get("labels") or {})
    assert [a.state for a in audits] == ["restored"]
    await ledger.close(restored=True)


async def test_a_patch_of_a_run_that_died(
    kube: Kube, unlucky: Kube, target: Ref, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    """Also where an earlier recovery was killed between its two writes."""
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    for _ in range(ATTEMPTS):
        api_proxy.postpone("PATCH", "configmaps/late")
    await _send(ledger, await Patch.of(unlucky, target, Edit(("data", "n"), "1")))
    await kube.patch(target, {"metadata": {"labels": {OUTDATED_LABEL: "true"}}}, "merge")
    assert RUN in {r.run for r in (await survey(kube)).runs}
    assert (await recover(kube, RUN, lambda _: None, how=How(force=True))).restored
    assert set(api_proxy.deliver()) <= {409, 422}
    after = await kube.get(target)
    assert after["data"] == {"n": "0"}
    assert OUTDATED_LABEL not in (after["metadata"].get("labels") or {})


async def test_a_patch_that_can_still_land_is_not_restored(
    kube: Kube, unlucky: Kube, target: Ref, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    """As with a Role that allows the change, but not the new version that outdates it."""
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    for _ in range(ATTEMPTS):
        api_proxy.postpone("PATCH", "configmaps/late")
    await _send(ledger, await Patch.of(unlucky, target, Edit(("data", "n"), "1")))
    api_proxy.fail("PATCH", "configmaps/late", 403, reason="Forbidden", message="no new version", times=2)
    await ledger.undo()
    (refused,) = await ledger.undo()
    assert refused.open
    (audit,) = await ledger.audit()
    assert audit.state == "left"
    assert "no new version" in audit.message
    assert [a.state for a in await ledger.restore()] == ["restored"]
    assert set(api_proxy.deliver()) <= {409, 422}
    assert (await kube.get(target))["data"] == {"n": "0"}
    await ledger.close(restored=True)


async def test_a_creation_that_the_server_gave_up_may_be_committed_later(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd's time-out is an answer to the API server, and none to the question whether the write is made."""
    monkeypatch.setattr(Create, "late", 2.0)
    api_proxy.fail(
        "POST", "default/configmaps", 500, reason="InternalError", message="etcdserver: request timed out"
    )
    operation = Create.of(MAP, RUN)
    assert operation.manifest

    def commit(event: Event) -> None:
        if isinstance(event, Warn) and "may still arrive" in event.message:
            committing.append(asyncio.ensure_future(kube.create(operation.manifest or {})))

    committing: list[asyncio.Future[Object]] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, commit)
    with pytest.raises(ApiError):
        await ledger.step("1").perform([operation])
    audits = await ledger.restore()
    assert [c.done() for c in committing] == [True]
    assert await kube.find(REF) is None
    assert [a.state for a in audits] == ["restored"]
    await ledger.close(restored=True)


async def test_a_creation(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be made conditional on anything, so the undo looks again when no server goes on with it."""
    monkeypatch.setattr(Create, "late", 2.0)
    answers: list[int] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, delivering(api_proxy, answers))
    api_proxy.postpone("POST", "namespaces/default/configmaps")
    await _send(ledger, Create.of(MAP, RUN))
    audits = await ledger.restore()
    assert answers == [201]
    assert await kube.find(REF) is None
    assert [a.state for a in audits] == ["restored"]
    await ledger.close(restored=True)


async def test_a_creation_of_a_run_that_died(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, arriving: list[Deliver]
) -> None:
    """It was sent, and has not arrived when the run is restored: as from a proxy that kept it."""
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    api_proxy.postpone("POST", "namespaces/default/configmaps")
    await _send(ledger, Create.of(MAP, RUN))
    arriving.append(_from(api_proxy))
    done = await recover(kube, RUN, lambda _: None, how=How(force=True))
    assert (done.restored, arriving, api_proxy.deliver()) == (True, [], [])
    assert await kube.find(REF) is None


def _from(proxy: ApiProxy) -> Deliver:
    async def deliver() -> object:
        return await asyncio.to_thread(proxy.deliver)

    return deliver


@pytest.mark.parametrize("what", ["secrets", "configmaps"])
async def test_a_record_of_a_run_that_died(
    what: str, kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, arriving: list[Deliver]
) -> None:
    """Its own objects arrive late: the key of the record, or the record itself."""
    lease = RunLease(unlucky, RUN)
    await lease.acquire()
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None, lease)
    api_proxy.postpone("POST", f"namespaces/gameday/{what}")
    api_proxy.hang_up("POST", f"namespaces/gameday/{what}", times=1000)
    with pytest.raises(Unreachable):
        await ledger.intend("1", [Create.of(MAP, RUN)])
    await lease.release(restored=False)  # so that nobody has to see it run out
    arriving.append(_from(api_proxy))
    done = await recover(kube, RUN, lambda _: None, how=How(force=True))
    assert (done.restored, arriving, api_proxy.deliver()) == (True, [], [])
    for ref in (record_ref(RUN), Ref("v1", "Secret", f"gameday-{RUN}", "gameday"), ref_of(RUN)):
        assert await kube.find(ref) is None, ref
    assert RUN not in [r.run for r in (await survey(kube)).runs]


async def test_nothing_is_waited_for_when_all_of_it_arrived(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    """The answer was lost, and the object is there: its one request is not under way any more."""
    heard: list[Event] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    api_proxy.postpone("POST", "namespaces/default/configmaps")
    await _send(ledger, Create.of(MAP, RUN))
    assert api_proxy.deliver() == [201]
    assert (await recover(kube, RUN, heard.append, how=How(force=True))).restored
    assert await kube.find(REF) is None
    assert not [e for e in heard if isinstance(e, Warn)]


async def test_nothing_is_waited_for_of_what_the_run_knew_to_be_made(kube: Kube, tmp_path: Path) -> None:
    """Though it is gone again by now, as when a run dies in the middle of its undo."""
    heard: list[Event] = []
    await ensure_namespace(kube)
    ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
    await ledger.step("1").perform([Create.of(MAP, RUN)])
    await kube.delete(REF)
    assert (await recover(kube, RUN, heard.append, how=How(force=True))).restored
    assert not [e for e in heard if isinstance(e, Warn)]


async def test_all_is_undone_at_once_that_waits_for_nothing(
    kube: Kube,
    unlucky: Kube,
    target: Ref,
    api_proxy: ApiProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many requests may still arrive, nothing else stays in force until then."""
    monkeypatch.setattr(Create, "late", 2.0)
    monkeypatch.setattr("gameday.ledger.ledger.AT_ONCE", 2)
    seen: list[Object] = []

    async def look() -> None:
        seen.append(await kube.get(target))

    looking: list[asyncio.Task[None]] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warn):
            looking.append(asyncio.create_task(look()))

    ledger = unguarded(unlucky, RUN, tmp_path, {}, hear)
    await ledger.step("1").perform([await Patch.of(unlucky, target, Edit(("data", "n"), "1"))])
    for number in range(4):
        api_proxy.postpone("POST", "namespaces/default/configmaps")
        named = {**MAP, "metadata": {**MAP["metadata"], "name": f"late-{number}"}}
        await _send(ledger, Create.of(named, RUN))
    assert {a.state for a in await ledger.restore()} == {"restored"}
    await asyncio.gather(*looking)
    assert [s["data"] for s in seen] == [{"n": "0"}]
    await ledger.close(restored=True)


async def test_a_creation_whose_first_undo_fails(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the moment ends no waiting."""
    monkeypatch.setattr(Create, "late", 2.0)
    answers: list[int] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, delivering(api_proxy, answers))
    api_proxy.postpone("POST", "namespaces/default/configmaps")
    await _send(ledger, Create.of(MAP, RUN))
    api_proxy.fail("GET", "configmaps/late", 403, reason="Forbidden", message="not for a moment", times=2)
    audits = await ledger.restore()
    assert answers == [201]
    assert await kube.find(REF) is None
    assert [a.state for a in audits] == ["restored"]
    await ledger.close(restored=True)


async def test_an_eviction(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of it is what became of it in the end."""
    monkeypatch.setattr(Evict, "late", 2.0)
    answers: list[int] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, delivering(api_proxy, answers))
    made = await kube.create(POD)
    api_proxy.postpone("POST", "pods/late/eviction")
    await _send(ledger, Evict(Ref.of(made)))
    audits = await ledger.restore()
    assert answers == [201]
    assert [a.state for a in audits] == ["irreversible"]
    await ledger.close(restored=True)


@dataclass(frozen=True)
class Careless(Create):
    """Does not wait for what it asked for, and fails of something else."""

    error: BaseException = field(default_factory=AssertionError)

    async def make(self, kube: Kube) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [KeyError("status"), PlatformError("it took too long"), asyncio.CancelledError()], ids=repr
)
async def test_a_failure_that_is_no_answer(
    error: BaseException, kube: Kube, tmp_path: Path, arriving: list[Deliver]
) -> None:
    """A defect, a client that gave up, a cancellation: none says that the world said no."""
    await ensure_namespace(kube)
    ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
    operation = replace(Careless.of(MAP, RUN), error=error)
    arriving.append(lambda: kube.create(operation.manifest or {}))
    with pytest.raises(type(error)):
        await ledger.step("1").perform([operation])
    assert [a.state for a in await ledger.restore()] == ["restored"]
    assert arriving == []
    assert await kube.find(REF) is None
    await ledger.close(restored=True)


@dataclass(frozen=True)
class Slow(Careless):
    """An undo that takes long: what happens until it ends, happens after it has deleted the object."""

    meanwhile: list[Deliver] = field(default_factory=list)

    async def undo(self, kube: Kube) -> Undone:
        undone = await super().undo(kube)
        while self.meanwhile:
            await self.meanwhile.pop()()
        return undone


async def test_an_undo_that_began_too_early_is_not_the_last_one(server: Unruly, tmp_path: Path) -> None:
    """The request arrives after the undo's work, and the minute is over before the undo ends."""
    async with await Kube.connect(server.kubeconfig) as kube:
        await ensure_namespace(kube)
        ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
        operation = replace(Slow.of(MAP, RUN), error=PlatformError("it took too long"))
        (entry,) = await ledger.intend("1", [operation])
        with pytest.raises(PlatformError):
            await ledger.make(entry)

        async def arrives() -> None:
            await kube.create(operation.manifest or {})
            entry.lands_until = time.monotonic()

        operation.meanwhile.append(arrives)
        await ledger.undo("1")
        assert operation.meanwhile == []
        assert await kube.find(REF) is None
        await ledger.close(restored=True)


async def test_nothing_is_waited_for_when_nothing_was_sent(
    unlucky: Kube, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    heard: list[Event] = []
    ledger = unguarded(unlucky, RUN, tmp_path, {}, heard.append)
    entries = await ledger.intend("1", [Create.of(MAP, RUN)])
    api_proxy.cut()
    unlucky.patience = 0.0
    with pytest.raises(Unreachable):
        await ledger.make(entries[0])
    api_proxy.restore()
    unlucky.patience = 5.0
    assert [a.state for a in await ledger.restore()] == ["restored"]
    assert not [e for e in heard if isinstance(e, Warn) and "may still arrive" in e.message]
    await ledger.close(restored=True)


async def test_a_deletion_that_the_transport_sent_twice(
    unlucky: Kube, target: Ref, api_proxy: ApiProxy
) -> None:
    """The second connection is refused, so that nothing left by it; the first request did leave."""
    await unlucky.get(target)
    api_proxy.hold("DELETE", REF.name)
    deleting = asyncio.create_task(unlucky.delete(target))

    async def on_its_way() -> bool:
        return any(r.startswith("DELETE") for r in api_proxy.requests)

    await eventually(on_its_way)
    await asyncio.to_thread(api_proxy.cut)
    with pytest.raises(Unreachable) as raised:
        await deleting
    await asyncio.to_thread(api_proxy.restore)
    api_proxy.relent()
    assert raised.value.may_land
