"""An orchestrator and two recoveries, killed, stopped and continued at any request, over a lossy connection.

All of it is the real ledger, store and Lease over HTTP; only the clocks are the test's, so that a Lease runs
out when it says so, and every process has another idea of the time. What must hold at every moment: no change
is in force without an open record of it; no two processes write the record in turns. And at the end one
recovery brings everything back, and leaves nothing of the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from multidict import CIMultiDict

from gameday.ledger.edits import Edit
from gameday.ledger.keeping import NAMESPACE, ensure_namespace
from gameday.ledger.lease import RunLease, Timing, ref_of
from gameday.ledger.observer import Observer
from gameday.ledger.operations import Patch
from gameday.ledger.packing import unpack
from gameday.ledger.recovery import How, recover
from gameday.ledger.seal import Seal
from gameday.ledger.store import record_ref
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.states import Change as State
from tests.support.ledgers import unguarded
from tests.support.unruly import LOSE_ANSWER, LOSE_REQUEST, unruly

pytestmark = pytest.mark.fast

RUN = "machine"
TIMING = Timing(duration=15, deadline=10.0, retry=3600.0)  # nothing renews by itself: rules do
OBJECTS = 3
VERBS = ["POST", "PATCH", "DELETE"]
QUIET, WAITED = 0.1, 2.5  # seconds in which a process does not get on, and those that pass meanwhile for all


def _ref(number: int) -> Ref:
    return Ref("v1", "ConfigMap", f"object-{number}", "default")


class Gated(Kube):
    """The client of one process: before a request leaves it, the process may have been stopped."""

    before: int = -1  # requests that pass until the process is stopped; -1: it runs
    go_on: asyncio.Event
    stopped: bool = False
    killed: bool = False
    sent: int = 0

    async def _headers(self, method: str, path: str) -> CIMultiDict[str]:
        headers = await super()._headers(method, path)
        self.sent += 1
        if self.before == 0:
            self.stopped = True
            await self.go_on.wait()
        if self.killed:
            raise asyncio.CancelledError  # whatever it wants to tidy up, nothing leaves it
        self.before -= self.before > 0
        return headers

    def stop_after(self, requests: int) -> None:
        self.before, self.go_on = requests, asyncio.Event()

    def resume(self) -> None:
        self.before, self.stopped = -1, False
        self.go_on.set()

    def kill(self) -> None:
        """Let all that it does end at its next request, also what no cancellation cuts short."""
        self.killed = True
        if self.stopped:
            self.go_on.set()


class Process:
    """One process, with a clock that began at another time than everybody else's."""

    def __init__(self, kube: Gated, machine: Machine, base: float) -> None:
        self.kube, self._machine, self._base = kube, machine, base
        self.observer = Observer(self.clock, gap=10**6)
        self.task: asyncio.Task[Any] | None = None
        self.dead = False

    def clock(self) -> float:
        return self._base + self._machine.now

    @property
    def free(self) -> bool:
        return not self.dead and self.task is None

    async def work(self, what: Coroutine[Any, Any, Any], stop_after: int | None) -> None:
        """Do something, to its end or to the request at which the process is stopped."""
        if stop_after is not None:
            self.kube.stop_after(stop_after)
        self.task = asyncio.ensure_future(what)
        await self.settle()

    async def settle(self) -> None:
        """Until the process is done, or stopped."""
        while self.task is not None:
            done, _ = await asyncio.wait({self.task}, timeout=QUIET)
            if done:
                error = self.task.exception()
                if error is not None and not isinstance(error, PlatformError):
                    raise error
                self.task = None
                self.kube.before = -1
            elif self.kube.stopped:
                return
            else:
                self._machine.now += WAITED  # it waits for something: time passes


class Machine(RuleBasedStateMachine):
    """The rules; each is one thing that may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.changes = 0
        self.everyone: list[Process] = []
        self.writes: list[tuple[int, str]] = []  # epoch and writer of each version of the record
        self.run(self._start())

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(what)

    async def _start(self) -> None:
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.server = await self.stack.enter_async_context(unruly(self.folder))
        self.server.store.observers.append(self._written)
        self.admin = await self.stack.enter_async_context(await Kube.connect(self.server.kubeconfig))
        await ensure_namespace(self.admin)
        for number in range(OBJECTS):
            meta = {"name": f"object-{number}", "namespace": "default"}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": "before"}}
            await self.admin.create(body)

    @initialize(bases=st.permutations([0.0, 1e6, 50.0]))
    def processes(self, bases: list[float]) -> None:
        self.run(self._processes(bases))

    async def _processes(self, bases: list[float]) -> None:
        self.orchestrator, *self.recoveries = [await self._process(base) for base in bases]
        self.lease = RunLease(self.orchestrator.kube, RUN, timing=TIMING, clock=self.orchestrator.clock)
        kube, about = self.orchestrator.kube, {"cluster": "c"}
        self.ledger = unguarded(kube, RUN, self.folder, about, lambda _: None, self.lease)
        await self.lease.acquire()
        await self._change(0)

    async def _process(self, base: float) -> Process:
        client = await Gated.connect(self.server.kubeconfig)
        assert isinstance(client, Gated)
        self.everyone.append(Process(await self.stack.enter_async_context(client), self, base))
        return self.everyone[-1]

    def _written(self, where: Any, event: Any) -> None:
        if where[2] != f"gameday-{RUN}" or where[0][1] != "configmaps" or event.kind == "DELETED":
            return
        seal = Seal.of(event.new.object)
        assert seal is not None
        self.writes.append((seal.epoch, seal.writer))

    # -- what may happen -----------------------------------------------------------------------

    stops = st.none() | st.integers(0, 8)

    @precondition(lambda self: self.orchestrator.free)
    @rule(number=st.integers(0, OBJECTS - 1), stop=stops)
    def change(self, number: int, stop: int | None) -> None:
        self.run(self.orchestrator.work(self._change(number), stop))

    async def _change(self, number: int) -> None:
        self.changes += 1
        edit = Edit(("data", "n"), str(self.changes))
        operation = await Patch.of(self.orchestrator.kube, _ref(number), edit)
        try:
            await self.ledger.step(str(number)).perform([operation])
        except Exception as error:
            if not isinstance(error, PlatformError) and type(error).__name__ != "Refused":
                raise

    @precondition(lambda self: self.orchestrator.free)
    @rule(number=st.integers(0, OBJECTS - 1), stop=stops)
    def undo(self, number: int, stop: int | None) -> None:
        self.run(self.orchestrator.work(self.ledger.undo(str(number)), stop))

    @precondition(lambda self: self.orchestrator.free)
    @rule(stop=stops)
    def renew(self, stop: int | None) -> None:
        self.run(self.orchestrator.work(self.lease.renew(), stop))

    @precondition(lambda self: self.orchestrator.free and self.changes > 2)
    @rule(stop=stops)
    def end(self, stop: int | None) -> None:
        self.run(self.orchestrator.work(self._end(), stop))
        if self.orchestrator.task is None:
            self.orchestrator.dead = True

    async def _end(self) -> None:
        await self.ledger.undo()
        restored = not any(a.state == "left" for a in await self.ledger.audit())
        await self.ledger.close(restored=restored)
        await self.lease.release(restored=restored)
        self.orchestrator.dead = True

    @rule(which=st.integers(0, 1), stop=stops, waits=st.booleans())
    def restore(self, which: int, stop: int | None, waits: bool) -> None:
        process = self.recoveries[which]
        if process.free:
            self.run(process.work(self._watch(process, waits), None))
            self.run(process.work(self._recover(process), stop))

    async def _watch(self, process: Process, waits: bool) -> None:
        """Look at the Lease, and wait for its duration, in which nobody else comes to do anything."""
        lease = await process.kube.find(ref_of(RUN))
        if lease is not None and waits:
            process.observer.look(lease)
            self.now += TIMING.duration + 1

    async def _recover(self, process: Process) -> None:
        lease = await process.kube.find(ref_of(RUN))
        if lease is not None and not process.observer.look(lease):
            return
        if lease is None and await process.kube.find(record_ref(RUN)) is None:
            return
        # What a stopped process has not sent it asks about before it does: nothing arrives late.
        how = How(observer=process.observer, timing=TIMING, clock=process.clock, late=0.0)
        await recover(process.kube, RUN, lambda _: None, how=how)

    @precondition(lambda self: self.orchestrator.free and self.recoveries[0].free)
    @rule(number=st.integers(0, OBJECTS - 1), stop=st.integers(0, 6), stop_other=stops)
    def overtaken(self, number: int, stop: int, stop_other: int | None) -> None:
        """Stopped in the middle of a change for longer than the Lease, and restored meanwhile."""
        self.change(number, stop)
        self.restore(0, stop_other, True)
        self.resume(0)

    @rule(which=st.integers(0, 2))
    def resume(self, which: int) -> None:
        process = [self.orchestrator, *self.recoveries][which]
        if process.task is not None and not process.dead:
            process.kube.resume()
            self.run(process.settle())

    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        """A recovery that was killed is started anew, as another process."""
        process = [self.orchestrator, *self.recoveries][which]
        if process.free and which:
            return
        process.dead = True
        if which:
            self.recoveries[which - 1] = self.run(self._process(process.clock() - self.now + 7))

    @rule(seconds=st.sampled_from([1, 4, 9, 16, 40]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(
        what=st.sampled_from([LOSE_REQUEST, LOSE_ANSWER]), verb=st.sampled_from(["POST", "PATCH", "DELETE"])
    )
    def lose(self, what: str, verb: str) -> None:
        self.server.obey()
        self.server.lose(what, f"^{verb} ")

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def no_change_without_an_open_record(self) -> None:
        record = self._stored(f"gameday-{RUN}", NAMESPACE)
        read = unpack(record) if record else []
        recorded = {r["op"]["ref"]["name"] for r in read if State(r["state"]).open}
        for number in range(OBJECTS):
            obj = self._stored(f"object-{number}", "default")
            assert obj is not None
            if obj["data"]["n"] != "before":
                assert f"object-{number}" in recorded, f"{obj['data']} is in force, and nobody knows: {read}"

    @invariant()
    def one_writer_after_the_other(self) -> None:
        assert self.writes == sorted(self.writes, key=lambda w: w[0]), self.writes
        writers: dict[int, str] = {}
        for epoch, writer in self.writes:
            assert writers.setdefault(epoch, writer) == writer, f"two writers in epoch {epoch}"

    def _stored(self, name: str, namespace: str) -> Object | None:
        found = self.server.store.get(("", "configmaps"), namespace, name)
        return json.loads(found.encoded) if found else None

    def teardown(self) -> None:
        if currently_in_test_context():
            event(f"epochs written: {max((e for e, _ in self.writes), default=0)}")
        try:
            if hasattr(self, "orchestrator"):
                self.run(self._everything_comes_back())
        finally:
            self.run(self._stop())
            self.loop.close()

    async def _everything_comes_back(self) -> None:
        """A last recovery, while those that were stopped go on, sooner or later."""
        self.server.obey()
        for process in (self.orchestrator, *self.recoveries):
            if process.task is not None and not process.dead:
                process.kube.resume()
                await process.settle()
        self.no_change_without_an_open_record()
        last = await self._process(-5.0)
        for _ in range(4):
            self.now += 8
            await last.work(self._recover(last), None)
        for number in range(OBJECTS):
            assert (await self.admin.get(_ref(number)))["data"]["n"] == "before"
        for ref in (record_ref(RUN), ref_of(RUN), Ref("v1", "Secret", f"gameday-{RUN}", NAMESPACE)):
            assert await self.admin.find(ref) is None, f"{ref} was left"

    async def _stop(self) -> None:
        """End what is under way while its loop is there: the garbage collector would do it later, without."""
        for process in self.everyone:
            process.kube.kill()
        under_way = [process.task for process in self.everyone if process.task is not None]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.stack.aclose()


_CI = settings(
    max_examples=int(os.environ.get("GAMEDAY_MACHINE", "15")),
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestOneOwner = Machine.TestCase
TestOneOwner.settings = _CI


@pytest.mark.parametrize(
    ("stop", "other"), [*((n, None) for n in range(7)), *((3, n) for n in (0, 2, 4, 6, 8, 10))]
)
def test_overtaken_at_each_request(stop: int, other: int | None) -> None:
    """What the rules find by chance, at each request of a change and of the recovery that overtakes it."""
    machine = Machine()
    try:
        machine.processes([0.0, 1e6, 50.0])
        machine.overtaken(1, stop, other)
        machine.no_change_without_an_open_record()
        machine.one_writer_after_the_other()
    finally:
        machine.teardown()
