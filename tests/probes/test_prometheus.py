"""The Prometheus client and the probes over it, against a real Prometheus and against what is none."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import encode_basic_auth, web
from pydantic import ValidationError

from gameday.experiment.model import PrometheusAccess
from gameday.masking import mask_text
from gameday.platform.errors import ConfigError, PartialAnswer, PlatformError, Unreachable
from gameday.platform.prometheus import Prometheus, PrometheusError
from gameday.platform.world import World
from gameday.probes.alert import Alert, AlertSpec
from gameday.probes.prometheus import PrometheusQuery, PrometheusSpec
from tests.support.monitoring import Exporter, free_port
from tests.support.polling import eventually, left_at_once

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


def world(prometheus: Prometheus | None) -> World:
    return World(kube=None, prometheus=prometheus)  # type: ignore[arg-type]


async def test_values_of_a_query(prometheus: Prometheus) -> None:
    assert await prometheus.instant("1 + 1") == [({}, 2.0)]
    ((labels, value),) = await prometheus.instant('queue{name="a"}')
    assert (labels["__name__"], labels["name"], value) == ("queue", "a", 3.0)
    assert await prometheus.instant("nothing_of_that_name") == []
    assert math.isnan((await prometheus.instant('queue{name="b"}'))[0][1])
    assert (await prometheus.instant("limit"))[0][1] == math.inf
    assert (await prometheus.instant("-limit"))[0][1] == -math.inf
    assert await prometheus.instant("queue", at=1_000_000_000) == []


async def test_a_query_longer_than_a_url_may_be(prometheus: Prometheus) -> None:
    query = f'count(up{{job!="{"a" * 100_000}"}})'
    assert await prometheus.instant(query) == [({}, 1.0)]
    with pytest.raises(PrometheusError) as refused:
        await prometheus.instant(query + "!")
    assert len(str(refused.value)) < 500


async def test_a_range_lies_on_the_grid(prometheus: Prometheus) -> None:
    now = time.time()
    (series,) = await prometheus.range("vector(7)", now - 60, now, 5)
    times = [at for at, _ in series.points]
    assert times == list(range(math.ceil((now - 60) / 5) * 5, int(now) + 1, 5))
    assert {value for _, value in series.points} == {7.0}
    assert await prometheus.range("up", 101, 104, 5) == []
    (dense,) = await prometheus.range("vector(1)", 1000.05, 1000.45, 0.1)
    assert [at for at, _ in dense.points] == [1000.1, 1000.2, 1000.3, 1000.4]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sum(", "parse error"),
        ("up[5m]", "gives a matrix"),
        ('"text"', "gives a string"),
        ("queue / ignoring(name) group_left queue", "many-to-many|found duplicate series"),
    ],
)
async def test_a_wrong_query_says_what_is_wrong(prometheus: Prometheus, query: str, said: str) -> None:
    with pytest.raises(PrometheusError, match=said):
        await prometheus.instant(query)


async def test_too_many_points_are_refused_in_the_servers_words(prometheus: Prometheus) -> None:
    with pytest.raises(PrometheusError, match="exceeded maximum resolution of 11,000 points"):
        await prometheus.range("up", 0, 11_002, 1)


async def test_about_the_server(prometheus: Prometheus) -> None:
    assert await prometheus.ready()
    assert (await prometheus.version()).startswith(("2.", "3."))
    assert await prometheus.has_alert_rule("TooHot") is True
    assert await prometheus.has_alert_rule("TooHotte") is False


async def test_nobody_there() -> None:
    port = free_port()
    async with Prometheus(f"http://127.0.0.1:{port}") as nobody:
        with pytest.raises(
            Unreachable, match=f"127.0.0.1:{port}/? cannot be asked: the connection was refused"
        ):
            await nobody.instant("up")
        assert not await nobody.ready()
    async with Prometheus("http://no-such-host.invalid") as unknown:
        with pytest.raises(Unreachable, match=r"no-such-host\.invalid is not known"):
            await unknown.instant("up")


async def test_a_server_that_hangs_can_be_left_at_once(serve: Serve) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    asked = asyncio.Event()
    async with Prometheus(await serve(hang), timeout=0.2) as prometheus:
        with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            await prometheus.instant("up")
        asked.clear()
        task = asyncio.create_task(prometheus.instant("up", timeout=60))
        await asked.wait()
        assert await left_at_once(task)


def answer(status: int, text: str, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return handler


@pytest.mark.parametrize(
    ("status", "text", "kind", "said"),
    [
        (200, "<html>Grafana</html>", PrometheusError, "this is not a Prometheus .*Grafana"),
        (200, '{"status": "success", "data": {}}', PrometheusError, "not in the form of its API"),
        (200, "[" * 100_000, PrometheusError, "this is not a Prometheus"),
        (302, "", PrometheusError, "redirects to /graph"),
        (401, "", PrometheusError, "GAMEDAY_PROMETHEUS_TOKEN"),
        (401, "no org id", PrometheusError, "X-Scope-OrgID"),
        (403, "Forbidden (user=system:serviceaccount:a:b)", PrometheusError, r"may not query it .*a:b"),
        (404, "nothing", PrometheusError, "is a path missing"),
        (405, "", PrometheusError, "neither POST nor GET"),
        (400, "Client sent an HTTP request to an HTTPS server.", PrometheusError, "write https://"),
        (429, "slow down", Unreachable, "HTTP 429, slow down"),
        (503, "Service Unavailable", Unreachable, "not ready"),
        (
            503,
            '{"status":"error","errorType":"unavailable","error":"TSDB not ready"}',
            Unreachable,
            "TSDB not",
        ),
        (503, '{"status":"error","errorType":"timeout","error":"too slow"}', PrometheusError, "too slow"),
        (200, " " * (17 << 20), PrometheusError, "larger than 4 MiB"),
    ],
)
async def test_what_answers_is_no_prometheus(
    serve: Serve, status: int, text: str, kind: type[PlatformError], said: str
) -> None:
    async with Prometheus(await serve(answer(status, text, Location="/graph"))) as prometheus:
        with pytest.raises(kind, match=said):
            await prometheus.instant("up")


async def test_credentials_are_sent_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def who(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.headers.get("Authorization", "")))
        return web.json_response({"status": "error", "errorType": "bad_data", "error": "no"}, status=400)

    seen: list[tuple[str, str]] = []
    url = await serve(who)
    monkeypatch.setenv("GAMEDAY_PROMETHEUS_TOKEN", "t0ken")
    with_user = url.replace("http://", "http://me:s3cret@") + "/prefix/"
    for address in (url, with_user):
        async with Prometheus(address) as prometheus:
            assert "s3cret" not in prometheus.url
            with pytest.raises(PrometheusError) as failed:
                await prometheus.instant("up")
            assert "s3cret" not in str(failed.value)
    assert seen == [
        ("/api/v1/query", "Bearer t0ken"),
        ("/prefix/api/v1/query", encode_basic_auth("me", "s3cret")),
    ]


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://x", "http://", "", "http://[::1"])
def test_a_wrong_address_is_a_mistake_of_the_user(url: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        Prometheus(url)


@pytest.mark.parametrize("user", ["me", "me@corp.example"])
@pytest.mark.parametrize("password", ["zx@xq/zy", "zx/xq@zy", "zx?xq", "zx#xq", "@/xq", "zx[xq"])
def test_a_password_that_breaks_the_address_in_two_is_refused_and_not_shown(password: str, user: str) -> None:
    """Its first half would be sent to its second half: `xq` is the host of http://me:zx@xq/zy@prometheus."""
    address = f"http://{user}:{password}@prometheus:9090"
    with pytest.raises(ConfigError, match="not an address") as refused:
        Prometheus(address)
    told = mask_text(f"{refused.value} {address}/x is not there")
    assert not [part for part in ("zx", "xq", "zy") if part in told], told
    with pytest.raises(ValidationError, match=r"an @ stands after the host|is not a URL"):
        PrometheusAccess(url=address)


def test_a_password_that_is_percent_encoded_is_taken() -> None:
    assert Prometheus("http://me:p%40ss%2Fword@prometheus:9090").url == "http://prometheus:9090"


async def test_the_prometheus_probe_names_each_series(prometheus: Prometheus) -> None:
    probe, query = PrometheusQuery(), "sum by (name) (last_over_time(queue[1m]) * 2)"  # a scrape may fail
    measured = await probe.measure(PrometheusSpec(query=query), world(prometheus))
    assert dict(measured.series)['{name="a"}'] == 6.0
    assert [name for name, _ in measured.series] == ['{name="a"}', '{name="b"}']
    assert (await probe.measure(PrometheusSpec(query="1"), world(prometheus))).series == (("", 1.0),)
    assert (await probe.measure(PrometheusSpec(query="nothing"), world(prometheus))).series == ()
    with pytest.raises(PlatformError, match="--prometheus"):
        await probe.measure(PrometheusSpec(query="up"), world(None))


async def test_the_alert_probe_knows_its_states(prometheus: Prometheus, exporter: Exporter) -> None:
    async def state(name: str, **labels: str) -> list[object]:
        spec = AlertSpec(name=name, labels=labels)
        return [value for _, value in (await Alert().measure(spec, world(prometheus))).series]

    assert await state("TooHot") == ["inactive"]
    assert await state("NeverYet") == ["inactive"]
    exporter.values["temperature"] = 60
    await eventually(lambda: state("TooHot"), lambda s: s == ["firing"])
    assert await state("TooHot", severity="page") == ["firing"]
    assert await state("TooHot", severity='"') == ["inactive"]
    exporter.values["temperature"] = -5
    await eventually(lambda: state("Frozen"), lambda s: s == ["pending"])
    exporter.values["temperature"] = 20
    await eventually(lambda: state("Frozen"), lambda s: s == ["inactive"])


async def test_an_alert_that_no_rule_makes_is_no_data(prometheus: Prometheus) -> None:
    measured = await Alert().measure(AlertSpec(name="TooHotte"), world(prometheus))
    assert measured.series == ()
    assert "no alert rule named TooHotte" in measured.message


def test_short_forms_and_mistakes() -> None:
    assert PrometheusSpec.model_validate("up").query == "up"
    assert AlertSpec.model_validate("TooHot").name == "TooHot"
    with pytest.raises(ValidationError, match="not the name of a Prometheus label"):
        AlertSpec.model_validate({"name": "a", "labels": {'x="y"} or up{z': "1"}})


VECTOR = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]},
}


@pytest.mark.parametrize("status", [403, 405, 501])
async def test_a_server_that_lets_only_get_through_is_asked_by_get(serve: Serve, status: int) -> None:
    seen: list[web.Request] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append(request)
        if request.method == "POST":
            return web.Response(status=status)
        return web.json_response(VECTOR)

    async with Prometheus(await serve(respond) + "/?namespace=ml") as client:
        assert await client.instant("up > 0") == await client.instant("up > 0") == [({}, 1.0)]
    assert [r.method for r in seen] == ["POST", "GET", "GET"]
    assert {r.query.get("namespace") for r in seen} == {"ml"}
    assert {r.query["query"] for r in seen[1:]} == {"up > 0"}


async def test_credentials_that_are_refused_by_both_methods_keep_their_sentence(serve: Serve) -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=403)

    async with Prometheus(await serve(respond)) as client:
        with pytest.raises(PrometheusError, match=r"HTTP 403.*credentials are known, but may not query"):
            await client.check()


@pytest.mark.parametrize(
    "data", [{"groups": None}, {"groups": []}, {"groups": [{"name": "a", "rules": None}]}, {}]
)
async def test_a_server_that_lists_no_rules_at_all_may_leave_them_to_another(
    serve: Serve, data: dict[str, object]
) -> None:
    """VictoriaMetrics answers so for vmalert, and Go writes an empty list as null."""

    async def respond(request: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": data})

    async with Prometheus(await serve(respond)) as client:
        assert await client.has_alert_rule("GpuLost") is None


@pytest.mark.parametrize("told", [{"warnings": ["a store is away"]}, {"isPartial": True}])
async def test_a_part_of_an_answer_is_none(serve: Serve, told: dict[str, object]) -> None:
    """Thanos warns; VictoriaMetrics' cluster says isPartial while a vmstorage is away."""

    async def part(_: web.Request) -> web.Response:
        result = {"resultType": "vector", "result": [{"metric": {}, "value": [0, "0"]}]}
        return web.json_response({"status": "success", "data": result, **told})

    async with Prometheus(await serve(part)) as prometheus:
        with pytest.raises(PartialAnswer, match="only in part") as found:
            await prometheus.instant("up")
        assert found.value.found == [({}, 0.0)]


async def test_remarks_on_a_query_are_no_reservations(serve: Serve) -> None:
    """Prometheus 3 has `infos` of their own, 2 sent them among the warnings."""
    remark = "PromQL info: metric might not be a counter"

    async def remarks(request: web.Request) -> web.Response:
        told = {"infos": [remark]} if "range" in request.path else {"warnings": [remark]}
        kind = "matrix" if "range" in request.path else "vector"
        return web.json_response({"status": "success", "data": {"resultType": kind, "result": []}, **told})

    async with Prometheus(await serve(remarks)) as prometheus:
        assert await prometheus.instant("up") == []
        assert await prometheus.range("up", 0, 10, 5) == []


async def test_null_is_an_empty_result(serve: Serve) -> None:
    async def respond(request: web.Request) -> web.Response:
        kind = "matrix" if "range" in request.path else "vector"
        return web.json_response({"status": "success", "data": {"resultType": kind, "result": None}})

    async with Prometheus(await serve(respond)) as client:
        assert await client.instant("up") == []
        assert await client.range("up", 0, 10, 5) == []


async def test_proxies_of_the_environment_are_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append(request.headers["Host"])
        return web.json_response(VECTOR)

    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", await serve(respond))
    async with Prometheus("http://prometheus.invalid:9090") as client:
        await client.check()
    assert seen == ["prometheus.invalid:9090"]
