"""Sampling against a real Prometheus: complete curves through outages, and gaps where nobody saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from gameday.events import Alert, Event, Gap, QueryDeclared, Samples, Warn
from gameday.platform.prometheus import Prometheus
from gameday.run.alert_watch import AlertWatch
from gameday.run.sampling import Query, Sampler
from tests.support.monitoring import Exporter, PrometheusServer, Wire, free_port
from tests.support.polling import eventually
from tests.support.promlike import PrometheusLike

E = TypeVar("E", bound=Event)
HEAT = Query("temperature", "steady-state", "heat")


class Recorder(list[Event]):
    """What was emitted."""

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self if isinstance(event, kind)]

    def times(self, query: int) -> list[float]:
        """The moments of a query's points, in the order they came."""
        return [
            point[0]
            for samples in self.of(Samples)
            if samples.query == query
            for series in samples.series
            for point in series["points"]
        ]


@contextlib.asynccontextmanager
async def running(sampler: Sampler) -> AsyncIterator[None]:
    task = asyncio.create_task(sampler.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def points(told: Recorder, query: int, count: int) -> None:
    async def there() -> int:
        return len(told.times(query))

    await eventually(there, lambda n: n >= count)


async def warned(told: Recorder, text: str) -> None:
    async def texts() -> list[str]:
        return [w.message for w in told.of(Warn)]

    await eventually(texts, lambda found: any(text in t for t in found))


async def test_each_moment_is_asked_for_once(server: PrometheusServer) -> None:
    told = Recorder()
    async with Prometheus(server.url) as prometheus:
        sampler = Sampler(prometheus, [HEAT, Query("up"), HEAT], told.append, step=0.5, every=0.3, settle=0.3)
        async with running(sampler):
            await points(told, 1, 6)
        await sampler.flush()
    declared = told.of(QueryDeclared)
    assert [(d.query, d.expression, d.purpose, d.name) for d in declared] == [
        (1, "temperature", "steady-state", "heat"),
        (2, "up", "observe", ""),
        (3, "ALERTS", "alerts", ""),
    ]
    times = told.times(1)
    assert times == [times[0] + 0.5 * n for n in range(len(times))]
    assert all(t % 0.5 == 0 for t in times)
    assert time.time() - times[-1] < 1.5
    labels = next(s for s in told.of(Samples) if s.query == 1).series[0]["labels"]
    assert labels == {"__name__": "temperature", "instance": labels["instance"], "job": "test"}
    assert not told.of(Gap)
    assert not told.of(Warn)


async def test_what_prometheus_saw_while_it_could_not_be_reached_is_fetched_later(
    server: PrometheusServer,
) -> None:
    told, wire = Recorder(), Wire(server.port)
    await wire.restore()
    async with Prometheus(wire.url) as prometheus:
        sampler = Sampler(prometheus, [HEAT], told.append, step=1.0, every=0.2, settle=0.3)
        async with running(sampler):
            await points(told, 1, 2)
            await wire.cut()
            await warned(told, "cannot be asked")
            cut = time.time()
            await eventually(clock, lambda now: now > cut + 3)
            await wire.restore()
            await eventually(last(told, 1), lambda at: at > cut + 3)
        await sampler.flush()
    times = told.times(1)
    assert times == [times[0] + n for n in range(len(times))]
    assert not told.of(Gap)
    assert len(told.of(Warn)) == 1
    await wire.cut()


async def test_what_prometheus_itself_did_not_see_is_a_gap(own_server: PrometheusServer) -> None:
    told = Recorder()
    async with Prometheus(own_server.url) as prometheus:
        sampler = Sampler(prometheus, [HEAT], told.append, step=0.5, every=0.2, settle=0.3)
        async with running(sampler):
            await points(told, 1, 4)
            own_server.kill()
            down = time.time()
            await warned(told, "cannot be asked")
            await own_server.start()
            up = time.time()
            await eventually(last(told, 1), lambda at: at > up)
            own_server.kill()  # and does not come back
        ended = time.time()
        await eventually(_now, lambda now: now > ended + 1.5)  # so that samples are due
        await sampler.flush()
    gap, rest = [g for g in told.of(Gap) if g.query == 1]
    assert rest.start == max(told.times(1)) + 0.5
    assert "cannot be asked" in rest.reason
    # the newest sample is as old as usual for a step more, and the first scrape comes before `start` ends
    assert down - 1 < gap.start < down + 2
    assert up - 3 < gap.end < up + 1.5
    assert "down" in gap.reason
    times = told.times(1)
    assert not [t for t in times if gap.start <= t < gap.end]
    whole = {times[0] + 0.5 * n for n in range(int((times[-1] - times[0]) / 0.5) + 1)}
    assert {t for t in whole if not gap.start <= t < gap.end} == set(times)
    assert max(Counter(times).values()) == 1


async def test_a_prometheus_that_hangs_delays_nothing(server: PrometheusServer) -> None:
    told, wire = Recorder(), Wire(server.port)
    wire.silent = True
    await wire.restore()
    async with Prometheus(wire.url, timeout=60) as prometheus:
        sampler = Sampler(prometheus, [HEAT, Query("up")], told.append)
        started = time.monotonic()
        async with running(sampler):
            await eventually(last_declared(told), bool)
        await sampler.flush(within=0.3)
        assert time.monotonic() - started < 2
    assert {g.query for g in told.of(Gap)} == {1, 2, 3}
    assert all("did not answer" in g.reason for g in told.of(Gap))
    await wire.cut()


async def test_a_wrong_query_is_told_once_and_stops_no_other(server: PrometheusServer) -> None:
    told = Recorder()
    queries = [Query("sum(("), Query("temperature * on (job) group_left up"), Query("nothing_here"), HEAT]
    async with Prometheus(server.url) as prometheus:
        sampler = Sampler(prometheus, queries, told.append, step=0.5, every=0.1, settle=0.3)
        async with running(sampler):
            await points(told, 4, 4)
        await sampler.flush()
    assert [w.message for w in told.of(Warn) if "sum((" in w.message and "parse error" in w.message]
    assert len(told.of(Warn)) == 1
    gaps = {g.query: g.reason for g in told.of(Gap)}
    assert "parse error" in gaps[1]
    assert gaps[3] == "no data"
    assert gaps.keys() == {1, 3}
    assert len(told.of(Gap)) == 2


async def test_too_many_series_are_cut_with_one_warning(server: PrometheusServer, exporter: Exporter) -> None:
    exporter.values |= {f'many{{n="{n:03}"}}': n for n in range(250)}
    told = Recorder()
    async with Prometheus(server.url) as prometheus:
        await eventually(lambda: prometheus.instant("many"))
        sampler = Sampler(prometheus, [Query("many")], told.append, step=0.5, every=0.1, settle=0.3)
        async with running(sampler):
            await eventually(last(told, 1), lambda at: at > 0)
            await points(told, 1, 600)
    assert {len(s.series) for s in told.of(Samples) if s.query == 1} == {200}
    (warning,) = told.of(Warn)
    assert "more than 200 series" in warning.message


async def test_numbers_that_are_none_are_written_as_prometheus_does(
    server: PrometheusServer, exporter: Exporter
) -> None:
    exporter.values |= {"odd": "NaN", "big": "+Inf", "part": "0.25", "huge": "1e300"}
    told = Recorder()
    async with Prometheus(server.url) as prometheus:
        await eventually(lambda: prometheus.instant("part"))
        queries = [Query(name) for name in ("odd", "big", "part", "huge", "temperature")]
        sampler = Sampler(prometheus, queries, told.append, step=0.5, every=0.1, settle=0.3)
        async with running(sampler):
            await points(told, 5, 4)
        await sampler.flush()
    values = {s.query: s.series[0]["points"][-1][1] for s in told.of(Samples) if s.query <= 5}
    assert values == {1: "NaN", 2: "+Inf", 3: 0.25, 4: 1e300, 5: 20}
    assert isinstance(values[5], int)


async def test_alerts_are_told_as_they_change(server: PrometheusServer, exporter: Exporter) -> None:
    told = Recorder()

    async def states() -> list[str]:
        return [a.state for a in told.of(Alert) if a.alert == "TooHot"]

    async with Prometheus(server.url) as prometheus:
        sampler = Sampler(prometheus, [], told.append, step=0.5, every=0.2, settle=0.3)
        async with running(sampler):
            exporter.values["temperature"] = 60
            await eventually(states, lambda s: s[-1:] == ["firing"])
            exporter.values["temperature"] = 20
            await eventually(states, lambda s: s[-1:] == ["resolved"])
        await sampler.flush()
    assert (await states())[-2:] == ["firing", "resolved"]
    alert = told.of(Alert)[-1]
    assert alert.labels["severity"] == "page"
    assert alert.labels["alertname"] == "TooHot"
    assert "alertstate" not in alert.labels
    assert any(s.query == 1 for s in told.of(Samples))  # the curve of ALERTS itself
    assert not told.of(Gap)


@settings(max_examples=25, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.integers(1, 2000), st.booleans()), min_size=1, max_size=8),
    holes=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 200)), max_size=3),
)
async def test_every_moment_is_either_sampled_or_in_a_gap(
    rounds: list[tuple[int, bool]], holes: list[tuple[int, int]]
) -> None:
    """In compressed time: whatever the order of outages and holes, nothing is lost and nothing told twice."""
    now = 1_700_000_000.0
    start = int(now)
    missing = {start + 5 * n for first, length in holes for n in range(first, first + length)}
    like = PrometheusLike(value=lambda query, at: None if at in missing or query == "ALERTS" else 1.5)
    told = Recorder()
    async with Prometheus(await like.start()) as prometheus:
        sampler = Sampler(prometheus, [HEAT], told.append, clock=lambda: now)
        for steps, up in rounds:
            now += 5 * steps
            like.up = up
            await sampler.sample(now)
        await sampler.flush()
    await like.stop()
    times = told.times(1)
    assert max(Counter(times).values(), default=1) == 1
    gone: Counter[float] = Counter()
    for gap in told.of(Gap):
        if gap.query == 1:
            gone.update(range(int(gap.start), int(gap.end), 5))
    assert max(gone.values(), default=1) == 1
    assert set(times) | gone.keys() == set(range(start, int(now) + 5, 5))
    assert not set(times) & gone.keys()
    if rounds[-1][1]:
        assert gone.keys() == missing & set(range(start, int(now) + 5, 5))


async def clock() -> float:
    return time.time()


def last(told: Recorder, query: int) -> Any:
    async def ask() -> float:
        return max(told.times(query), default=0.0)

    return ask


def last_declared(told: Recorder) -> Any:
    async def ask() -> list[QueryDeclared]:
        return told.of(QueryDeclared)

    return ask


async def _now() -> float:
    return time.time()


async def test_samples_of_which_there_may_be_more_are_kept_and_marked() -> None:
    """A range with warnings looks like a whole one: the chart must say where it is not."""
    now = 1_700_000_000.0
    like = PrometheusLike(value=lambda query, at: None if query == "ALERTS" else 1.0)
    told = Recorder()
    async with Prometheus(await like.start()) as prometheus:
        sampler = Sampler(prometheus, [HEAT], told.append, clock=lambda: now)
        for warning in ("", "store-1 is away", ""):
            now, like.warning = now + 50, warning
            await sampler.sample(now)
        await sampler.flush()
    await like.stop()
    assert len(told.times(1)) == len(set(told.times(1))) == 31
    (gap,) = [gap for gap in told.of(Gap) if gap.query == 1]
    assert (gap.start, gap.end) == (1_700_000_055, 1_700_000_105)
    assert (gap.reason, gap.partial) == ("only in part: store-1 is away", True)
    assert len([w for w in told.of(Warn) if "only in part: store-1 is away" in w.message]) >= 1


async def test_an_alert_that_a_part_of_an_answer_leaves_out_is_not_over() -> None:
    def alerts(*names: str, **more: Any) -> bytes:
        labels = [{"__name__": "ALERTS", "alertname": name, "alertstate": "firing"} for name in names]
        result = [{"metric": each, "value": [1, "1"]} for each in labels]
        data = {"resultType": "vector", "result": result}
        return json.dumps({"status": "success", "data": data, **more}).encode()

    like, told = PrometheusLike(), Recorder()
    async with Prometheus(await like.start()) as prometheus:
        watch = AlertWatch(prometheus, told.append)
        for answer in (alerts("A"), alerts("B", warnings=["store-1 is away"]), alerts("B")):
            like.lie = answer
            await watch.poll()
    await like.stop()
    assert [(a.alert, a.state) for a in told.of(Alert)] == [
        ("A", "firing"),
        ("B", "firing"),
        ("A", "resolved"),
    ]


async def test_that_nobody_tells_of_alerts_is_said_where_they_are_evaluated_elsewhere() -> None:
    like, told = PrometheusLike(), Recorder()
    elsewhere = f"http://127.0.0.1:{free_port()}"
    async with Prometheus(await like.start(), rules_url=elsewhere) as prometheus:
        watch = AlertWatch(prometheus, told.append)
        await watch.poll()
        await watch.poll()
    await like.stop()
    (warn,) = told.of(Warn)
    assert elsewhere in warn.message
    assert "the connection was refused" in warn.message
