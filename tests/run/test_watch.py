"""What the watch makes of what probes see, and of what happens to them: nothing unseen is ever healthy.

Readings come from a server that speaks Prometheus' protocol; a probe that misbehaves is installed as those
of other packages are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from gameday import extend
from gameday.events import Event, Probed
from gameday.experiment import registry
from gameday.experiment.concrete import experiment_model
from gameday.experiment.model import Spec as BaseSpec
from gameday.extend import Measurement
from gameday.platform.errors import PlatformError
from gameday.platform.prometheus import Prometheus, Sample
from gameday.platform.world import World
from gameday.report import wording
from gameday.run.watch import Watch
from tests.support.packages import package
from tests.support.polling import eventually
from tests.support.promlike import PrometheusLike
from tests.support.threads import LoopThread

pytestmark = pytest.mark.fast

FAST = {"interval": "500ms", "timeout": "1s"}
PROBE: dict[str, Any] = {"name": "p", "prometheus": "up", "is": ">= 1", **FAST}
ABORT: dict[str, Any] = {"name": "a", "prometheus": "up", "is": "< 1", **FAST}


def vector(*values: str, **more: Any) -> bytes:
    """An answer with a series for each value."""
    result = [{"metric": {"i": str(i)}, "value": [1, value]} for i, value in enumerate(values)]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data, **more}).encode()


SERIES = json.dumps({"metric": {"i": "0"}, "value": [1, "5"]}).encode()
NOTHING_SEEN = {
    "no series": vector(),
    "NaN": vector("NaN"),
    "infinite": vector("+Inf"),
    "one of two is NaN": vector("5", "NaN"),
    "a page": b"<html>log in</html>",
    "half an answer": vector("5")[:40],
    "deeply nested": b"[" * 100_000,
    "text": b'{"status":"success","data":{"resultType":"string","result":[1,"5"]}}',
    "not a number": vector("five"),
    "no labels": vector("5").replace(b'{"i": "0"}', b"null"),
    "no data at all": b'{"status":"success"}',
    "a part of it": vector("5", warnings=["receive series from Addr: store-1: context deadline exceeded"]),
    "too many series": vector(*["5"] * 10_001),
    "a million series": vector("5").replace(SERIES, b", ".join([SERIES] * 1_000_000)),
    "one series twice": vector("5").replace(
        b'"result": [', b'"result": [{"metric":{"i":"0"},"value":[1,"7"]},'
    ),
}


FAILURES = {
    "value": ValueError("no JSON"),
    "key": KeyError("status"),
    "recursion": RecursionError(),
    "exit": SystemExit(3),
    "cancelled": asyncio.CancelledError(),
    "group": ExceptionGroup("several", [KeyError("items")]),
    "cancelled group": BaseExceptionGroup("several", [asyncio.CancelledError()]),
}


class Misbehaving(extend.Probe["Misbehaving.Spec"]):
    """A probe of somebody's package, that fails in a way of its own or hangs when it is told to."""

    class Spec(BaseSpec):
        fails: str = Field("", description="How.")
        says: bool | float = Field(5.0, description="Its value.")

    hangs: ClassVar[bool] = False

    async def measure(self, spec: Misbehaving.Spec, world: World) -> Measurement:
        if spec.fails:
            raise FAILURES[spec.fails]
        while self.hangs:  # and takes no notice of its time-out
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return Measurement((("", spec.says),))


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[PrometheusLike]:
    fake = PrometheusLike()
    fake.lie = answer
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def server() -> AsyncIterator[PrometheusLike]:
    async with serving(vector("5")) as fake:
        yield fake


class Watched:
    """A watch that runs, what it wrote and why it aborted."""

    def __init__(self, watch: Watch, aborts: list[str], events: list[Event]) -> None:
        self.watch, self.aborts, self.events = watch, aborts, events
        self.task = asyncio.create_task(watch.run())

    async def state(self, name: str, state: str) -> None:
        """Wait until the last reading of a check is so."""

        async def last() -> str:
            written = [e.state for e in self.events if isinstance(e, Probed) and e.probe == name]
            return written[-1] if written else ""

        await eventually(last, lambda now: now == state, every=0.02)

    async def aborted(self) -> str:
        async def first() -> str:
            return self.aborts[0] if self.aborts else ""

        return await eventually(first, every=0.02)


@asynccontextmanager
async def watching(
    server: PrometheusLike, steady: list[dict[str, Any]], aborts: list[dict[str, Any]]
) -> AsyncIterator[Watched]:
    spec: Any = experiment_model((), ("prometheus", "misbehaving")).model_fields["spec"].annotation
    probe = spec.model_fields["steady_state"].annotation.__args__[0]
    abort = spec.model_fields["abort_if"].annotation.__args__[0]
    written: list[Event] = []
    reasons: list[str] = []
    async with Prometheus(server.url) as prometheus:
        world = World(kube=None, prometheus=prometheus)  # type: ignore[arg-type]
        watch = Watch(
            [probe.model_validate(p) for p in steady],
            [abort.model_validate(a) for a in aborts],
            world,
            written.append,
            reasons.append,
        )
        watched = Watched(watch, reasons, written)
        try:
            yield watched
        finally:
            Misbehaving.hangs = False
            watched.task.cancel()
            await asyncio.gather(watched.task, return_exceptions=True)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The probe `misbehaving`, installed as pip would."""
    folder = tmp_path_factory.mktemp("site-packages")
    package(folder, "misbehaving", "", f"[gameday.probes]\nmisbehaving = {__name__}:Misbehaving\n")
    sys.path.insert(0, str(folder))
    registry.forget()
    yield
    sys.path.remove(str(folder))
    registry.forget()


MISBEHAVING: dict[str, Any] = {"name": "m", "misbehaving": {}, "is": ">= 1", **FAST}


async def test_what_is_not_seen_is_not_steady_and_makes_an_abort_condition_blind() -> None:
    async def lied_to(lie: bytes) -> tuple[list[str], str, list[str]]:
        async with serving(vector("5")) as server, watching(server, [PROBE], [ABORT]) as watched:
            assert await watched.watch.baseline(20) == []
            server.lie = lie
            watched.watch.mark(during=False)
            complaints = await watched.watch.steady_again(0.3)
            reason = await watched.aborted()
            server.lie = vector("5")
            return complaints, reason, await watched.watch.steady_again(20)

    for complaints, reason, later in await asyncio.gather(*map(lied_to, NOTHING_SEEN.values())):
        assert len(complaints) == 1
        assert complaints[0].startswith("p: ")
        assert reason.startswith("blind: the abort condition “a”: "), (complaints, reason)
        assert later == []


async def test_nothing_begins_with_a_blind_abort_condition() -> None:
    async def lied_to(lie: bytes) -> list[str]:
        steady = [{**PROBE, "prometheus": "1", "timeout": "30s"}]  # many at once: one may be slow
        async with serving(lie) as server, watching(server, steady, [ABORT]) as watched:
            return await watched.watch.baseline(8)

    for complaints in await asyncio.gather(*map(lied_to, NOTHING_SEEN.values())):
        assert len(complaints) == 1
        assert "the abort condition 'a' (`up`) is blind before anything is touched" in complaints[0]


async def test_an_answer_in_part_is_a_state_of_its_own_and_health_only_where_that_is_allowed(
    server: PrometheusLike,
) -> None:
    """Half of the series are missing, and the others look well."""
    allowed = {**PROBE, "name": "allowed", "prometheus": {"query": "up", "partial": "allow"}}
    async with watching(server, [PROBE, allowed], [{**ABORT, "prometheus": "1"}]) as watched:
        assert await watched.watch.baseline(10) == []
        server.lie = vector("5", warnings=["store-1: no addresses"])
        await watched.state("p", "partial")
        watched.watch.mark(during=False)
        (complaint,) = await watched.watch.steady_again(3)
        assert complaint.startswith("p: known only in part (Prometheus answered `up` only in part: store-1")
        said = [e.message for e in watched.events if isinstance(e, Probed) and e.probe == "allowed"]
        assert said[-1] == "allowed, though only in part: store-1: no addresses"


async def test_an_alarm_is_heard_though_a_part_is_missing(server: PrometheusLike) -> None:
    async with watching(server, [{**PROBE, "prometheus": "1"}], [{**ABORT, "is": "> 9"}]) as watched:
        assert await watched.watch.baseline(10) == []
        server.lie = vector("NaN", "0", "+Inf")
        assert await watched.aborted() == "a: +Inf is > 9"


async def test_an_abort_condition_may_be_blind_for_as_long_as_it_says(server: PrometheusLike) -> None:
    patient, impatient = {**ABORT, "name": "patient", "blindFor": "1h"}, {**ABORT, "blindFor": "100ms"}
    async with watching(server, [{**PROBE, "prometheus": "1"}], [patient, impatient]) as watched:
        assert await watched.watch.baseline(10) == []
        server.lie = vector()
        assert "blind: the abort condition “a”: no data" in await watched.aborted()
        await watched.state("patient", "no-data")
    assert not [reason for reason in watched.aborts if "patient" in reason]


async def test_one_of_many_is_enough_to_abort_unless_the_file_says_all(server: PrometheusLike) -> None:
    steady = {**PROBE, "prometheus": "1"}
    async with watching(server, [steady], [{**ABORT, "match": "all", "name": "all"}, ABORT]) as watched:
        assert await watched.watch.baseline(10) == []
        server.lie = vector("5", "0")
        assert await watched.aborted() == "a: 0 is < 1"
        await watched.state("all", "broken")
        server.lie = vector("0", "0")
        await watched.state("all", "holds")


async def test_a_share_of_the_baseline_holds_only_against_a_baseline(server: PrometheusLike) -> None:
    shared = {**PROBE, "is": ">= 80% of baseline"}
    less = {**ABORT, "is": "< 50% of baseline"}
    async with watching(server, [shared], [less]) as watched:
        await watched.state("p", "no-baseline")
        assert watched.aborts == []
        assert await watched.watch.baseline(10) == []
        server.lie = vector("3")
        await watched.state("p", "broken")
        assert watched.aborts == []
        server.lie = vector("2")
        assert await watched.aborted() == "a: 2 is < 50% of baseline"


@pytest.mark.parametrize(("answer", "said"), [(("5", "6"), "2 series"), (("NaN",), "can't be a baseline")])
async def test_what_can_be_no_baseline(answer: tuple[str, ...], said: str, server: PrometheusLike) -> None:
    server.lie = vector(*answer)
    async with watching(server, [{**PROBE, "is": ">= 80% of baseline"}], []) as watched:
        (complaint,) = await watched.watch.baseline(1.2)
    assert said in complaint


@pytest.mark.parametrize(
    "bounds", [{"is": ">= 80% of baseline"}, {"is": ">= 0", "during": "> 50% of baseline"}], ids=str
)
async def test_a_share_of_nothing_is_no_baseline(bounds: dict[str, str], server: PrometheusLike) -> None:
    """A platform that was dead before would pass. It may come up while the baseline is awaited."""
    server.lie = vector("0")
    async with watching(server, [PROBE | bounds], []) as watched:
        await watched.state("p", "no-data")
        (complaint,) = await watched.watch.baseline(0.1)
        share = bounds.get("during", bounds["is"])
        assert f"0 can't be a baseline: nothing would ever be on the wrong side of “{share}”" in complaint
        server.lie = vector("5")
        assert await watched.watch.baseline(20) == []


async def test_an_abort_condition_is_no_share_of_nothing(server: PrometheusLike) -> None:
    server.lie = vector("0")
    async with watching(server, [{**PROBE, "is": "== 0"}], [{**ABORT, "is": "< 50% of baseline"}]) as watched:
        await watched.state("a", "no-data")
        (complaint,) = await watched.watch.baseline(0.1, steady=False)
        assert "is blind before anything is touched: no data" in complaint
        assert "0 can't be a baseline" in complaint


async def test_no_errors_are_a_baseline_for_what_watches_over_a_rise(server: PrometheusLike) -> None:
    server.lie = vector("0")
    steady = {**PROBE, "is": "<= 120% of baseline"}
    async with watching(server, [steady], [{**ABORT, "is": "> 200% of baseline"}]) as watched:
        assert await watched.watch.baseline(20) == []
        server.lie = vector("1")
        await watched.state("p", "broken")
        assert await watched.aborted() == "a: 1 is > 200% of baseline"


async def test_whatever_a_probe_raises_is_its_reading(server: PrometheusLike) -> None:
    steady: list[dict[str, Any]] = [
        PROBE,
        *({**MISBEHAVING, "name": f, "misbehaving": {"fails": f}} for f in FAILURES),
    ]
    async with watching(server, steady, []) as watched:
        (complaint,) = await watched.watch.baseline(1.5)
        assert complaint.count("could not be asked") == len(FAILURES)
        server.lie = vector()
        await watched.state("p", "no-data")  # the others are asked as before
        assert not watched.task.done()


@pytest.mark.parametrize(("value", "words"), [(True, "true"), (False, "false")])
async def test_a_value_is_said_as_json_has_it(
    server: PrometheusLike, value: bool | float, words: str
) -> None:
    wrong = {**MISBEHAVING, "misbehaving": {"says": value}, "is": "unheard of"}
    async with watching(server, [wrong], []) as watched:
        (complaint,) = await watched.watch.baseline(1)
        assert complaint.endswith(f"m: {words} is not unheard of")
        seen = [e for e in watched.events if isinstance(e, Probed) and e.value is not None]
        assert {wording.probe_line(e) for e in seen} == {
            f"Probe m broken: {words}, expected unheard of",
        }


async def test_a_probe_that_hangs_makes_its_abort_condition_blind(server: PrometheusLike) -> None:
    slow = {**MISBEHAVING, "timeout": "100ms", "is": "< 1"}
    async with watching(server, [PROBE], [slow]) as watched:
        assert await watched.watch.baseline(10) == []
        Misbehaving.hangs = True
        assert "blind: the abort condition “m”: could not be asked (did not answer" in await watched.aborted()
        watched.task.cancel()
        await asyncio.wait({watched.task}, timeout=20)
        assert watched.task.done(), "nobody waits for the probe"


async def test_a_probe_that_hangs_is_never_steady_again(server: PrometheusLike) -> None:
    async with watching(server, [PROBE, {**MISBEHAVING, "timeout": "100ms"}], []) as watched:
        assert await watched.watch.baseline(10) == []
        Misbehaving.hangs = True
        watched.watch.mark(during=False)
        (complaint,) = await watched.watch.steady_again(3)
        assert complaint == "m: could not be asked (did not answer within 0.1 s)"


async def test_what_is_ignored_while_a_fault_is_in_is_no_proof_of_health(server: PrometheusLike) -> None:
    async with watching(server, [{**PROBE, "during": "ignore"}], []) as watched:
        assert await watched.watch.baseline(10) == []
        server.lie = vector("0")
        watched.watch.mark(during=True)
        assert await watched.watch.steady_again(1.2) == ['p: 0 for {i="0"} is not >= 1']
    assert watched.watch.broken == {}


async def test_a_probe_without_a_measurement_while_a_fault_is_in_is_unseen(server: PrometheusLike) -> None:
    ignored = PROBE | {"name": "q", "during": "ignore"}
    slow = {"interval": "1h"}  # asked when a fault goes in, and not again
    async with watching(server, [PROBE | slow, ignored | slow], []) as watched:
        assert await watched.watch.baseline(20) == []
        assert watched.watch.unseen == [], "no fault was in"
        server.up = False
        watched.watch.mark(during=True)
        await watched.state("p", "unreachable")
        assert watched.watch.unseen == ["p"], "nothing is expected of q"
        assert not watched.watch.broken
        server.up = True
        watched.watch.mark(during=True)
        await watched.state("p", "holds")
        assert watched.watch.unseen == []
        told = [e.measured for e in watched.events if isinstance(e, Probed) and e.probe == "p"]
    assert (told[0], told[-1]) == (0, 1)


async def test_a_probe_that_can_not_be_asked_while_a_fault_is_in_did_not_hold(server: PrometheusLike) -> None:
    async with watching(server, [PROBE], []) as watched:
        assert await watched.watch.baseline(10) == []
        watched.watch.mark(during=True)
        server.up = False

        async def broken() -> str:
            return watched.watch.broken.get("p", "")

        assert "could not be asked" in await eventually(broken, every=0.02)


async def test_nobody_waits_for_a_watch_that_is_over(server: PrometheusLike) -> None:
    async with watching(server, [PROBE], []) as watched:
        assert await watched.watch.baseline(10) == []
        watched.task.cancel()
        await asyncio.wait({watched.task})
        watched.watch.mark(during=False)
        assert await watched.watch.steady_again(3600) == ["p: has not answered yet"]


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metric", "value", "resultType", "result", "vector", "scalar", "warnings"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ENVELOPES = st.builds(
    lambda kind, result, more: {
        "status": "success",
        "data": {"resultType": kind, "result": result},
        **more,
    },
    st.sampled_from(["vector", "scalar", "matrix", "string", 7, None]),
    ANY | st.lists(st.fixed_dictionaries({"metric": ANY, "value": ANY}), max_size=3),
    st.dictionaries(st.sampled_from(["warnings", "infos", "error"]), ANY, max_size=2),
)


@pytest.fixture
def liar() -> Iterator[Callable[[bytes], list[Sample]]]:
    """Asks a query whose answer is given."""
    thread, server = LoopThread("liar"), PrometheusLike()
    thread.call(server.start())
    client = Prometheus(server.url)
    thread.call(client.__aenter__())

    def ask(lie: bytes) -> list[Sample]:
        server.lie = lie
        return thread.call(client.instant("up", limit=10))

    yield ask
    thread.call(client.__aexit__())
    thread.call(server.stop())
    thread.close()


@settings(max_examples=80, deadline=None, suppress_health_check=[*HealthCheck])
@given(lie=(ENVELOPES | ANY).map(lambda a: json.dumps(a).encode()) | st.binary(min_size=1))
def test_any_answer_is_values_or_an_error_in_words(liar: Callable[[bytes], list[Sample]], lie: bytes) -> None:
    with contextlib.suppress(PlatformError):
        for labels, value in liar(lie):
            assert isinstance(labels, dict)
            assert isinstance(value, float)
