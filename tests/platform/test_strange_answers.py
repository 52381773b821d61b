"""Clients hear anything at all: the outcome is a result or a PlatformError, never another exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gameday.platform import gpud
from gameday.platform.errors import BadName, PlatformError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.prometheus import Prometheus, PrometheusError
from gameday.platform.promql import matchers, quoted
from gameday.platform.resources import PODS
from gameday.platform.slack import Message, Slack
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.rest import SlurmRest
from gameday.platform.slurm.transport import Via
from gameday.platform.world import World
from gameday.probes.http import Http, HttpSpec
from tests.platform.test_wire import kubeconfig
from tests.support.raw import Asked, answer, raw_server

pytestmark = pytest.mark.fast
Call = Callable[[str], Awaitable[object]]
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# -- anything -----------------------------------------------------------------------------------------------

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.sampled_from(["NaN", "1e400", "gpu-[0-99999999999]", "../..", "Success", "-1", "ok"]),
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@st.composite
def bent(draw: st.DrawFn, value: Any) -> Any:
    """A right answer with one part of it replaced by anything, or taken out."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if not draw(st.integers(0, 4)) else rest | {key: draw(bent(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(bent(value[at])), *value[at + 1 :]]
    return draw(anything)


def strange(*right: Any) -> st.SearchStrategy[bytes]:
    """Answers of a server that was asked something to which one of `right` would be the answer."""
    bodies = st.one_of(
        st.sampled_from(right).flatmap(bent).map(lambda v: json.dumps(v).encode()),
        st.sampled_from([b"", b"<html>", b"[", b'{"a":', b"null", b"\xff\xfe", b"[" * 5000, b"NaN"]),
        st.binary(max_size=20),
    )
    kinds = st.sampled_from(
        ["application/json", "text/html", "text/plain; charset=nonsense", "application/gzip", "\x7f"]
    )
    statuses = st.sampled_from(
        [200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 409, 410, 422, 500, 503]
    )
    packed = st.sampled_from(["", "", "", "gzip", "deflate", "zstd"])
    return st.builds(
        lambda s, b, k, p: answer(s, b, Content_Type=k, **({"Content_Encoding": p} if p else {})),
        statuses,
        bodies,
        kinds,
        packed,
    ) | st.sampled_from([b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])


def outcome(call: Call, *made: bytes) -> object:
    """What became of a call to a server that gives these answers, the last one again and again."""

    async def run() -> object:
        left = list(made)

        def respond(_: Asked) -> bytes:
            return left.pop(0) if len(left) > 1 else left[0]

        async with raw_server(respond) as server, asyncio.timeout(60):
            try:
                return await call(server.url)
            except PlatformError as error:
                return error

    result = asyncio.run(run())
    if isinstance(result, PlatformError):
        assert "\n" not in str(result)
        assert len(str(result)) <= 2000
    return result


# -- the clients --------------------------------------------------------------------------------------------

META = {"name": "a", "namespace": "b", "uid": "1", "resourceVersion": "1"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": META}
PAGE = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [POD]}
STATUS = {"kind": "Status", "status": "Failure", "reason": "Gone", "message": "no", "details": {"name": "a"}}
EVENT = {"type": "ADDED", "object": POD}
KINDS = {"resources": [{"name": "widgets", "kind": "Widget", "namespaced": True}]}
REVIEW = {"status": {"allowed": True}, "gitVersion": "v1"}
KUBE: dict[str, Callable[[Kube], Awaitable[object]]] = {
    "get": lambda kube: kube.get(Ref("v1", "Pod", "a", "b", "1")),
    "list": lambda kube: kube.list(PODS, "b"),
    "discovery": lambda kube: kube.resource("example.com/v1", "Widget"),
    "create": lambda kube: kube.create(POD),
    "delete": lambda kube: kube.delete(Ref("v1", "Pod", "a", "b")),
    "evict": lambda kube: kube.evict(Ref("v1", "Pod", "a", "b")),
    "allowed": lambda kube: kube.allowed({}),
    "version": lambda kube: kube.version(),
    "exec": lambda kube: kube.exec(Ref("v1", "Pod", "a", "b"), "c", ["true"], timeout=5),
    "logs": lambda kube: kube.logs(Ref("v1", "Pod", "a", "b"), "c"),
}


@SETTINGS
@given(call=st.sampled_from([*KUBE, "watch"]), made=strange(POD, PAGE, STATUS, EVENT, KINDS, REVIEW))
def test_kubernetes(call: str, made: bytes, tmp_path: Path) -> None:
    async def ask(url: str) -> object:
        async with await Kube.connect(kubeconfig(tmp_path, url)) as kube:
            kube.patience = 0.0
            if call == "watch":
                return [event async for event in kube.watch(PODS, "b", version="1")]
            return await KUBE[call](kube)

    outcome(ask, made)


VECTOR = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]},
}
MATRIX = {
    "status": "success",
    "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]]}]},
}
RULES = {"status": "success", "data": {"groups": [{"rules": [{"name": "x", "type": "alerting"}]}]}}
PROMETHEUS: dict[str, Callable[[Prometheus], Awaitable[object]]] = {
    "instant": lambda p: p.instant("up"),
    "range": lambda p: p.range("up", 0, 10, 1),
    "alerts": lambda p: p.alerts("x", {"a": "b"}),
    "rules": lambda p: p.has_alert_rule("x"),
    "version": lambda p: p.version(),
    "ready": lambda p: p.ready(),
}


@SETTINGS
@given(call=st.sampled_from(sorted(PROMETHEUS)), made=strange(VECTOR, MATRIX, RULES))
def test_prometheus(call: str, made: bytes) -> None:
    async def ask(url: str) -> object:
        async with Prometheus(url) as prometheus:
            return await PROMETHEUS[call](prometheus)

    outcome(ask, made)


PATHS: dict[str, Any] = {
    "paths": {
        f"/slurm/v0.0.45/{p}": {"get": {}, "post": {}}
        for p in ("nodes", "jobs", "partitions", "node/{node_name}")
    }
}
NODES = {"nodes": [{"name": "gpu-0", "state": ["IDLE"], "reason": "", "partitions": ["a"], "gres": "gpu:8"}]}
JOBS = {
    "jobs": [{"job_id": 1, "name": "a", "job_state": ["RUNNING"], "nodes": "gpu-[0-1]", "restart_cnt": 1}]
}
PARTITIONS = {
    "partitions": [{"name": "a", "partition": {"state": ["UP"]}, "nodes": {"configured": "gpu-[0-1]"}}]
}
ERRORS = {"errors": [{"error_number": 1, "description": "no", "error": "x"}], "nodes": []}
SLURM: dict[str, Callable[[SlurmRest], Awaitable[object]]] = {
    "nodes": lambda s: s.nodes(),
    "jobs": lambda s: s.jobs(),
    "partitions": lambda s: s.partitions(),
    "update": lambda s: s.update_node("gpu-0", "DRAIN", "because"),
}


@SETTINGS
@given(
    call=st.sampled_from(sorted(SLURM)),
    first=st.just(answer(200, PATHS)) | strange(PATHS),
    made=strange(NODES, JOBS, PARTITIONS, ERRORS),
)
def test_slurmrestd(call: str, first: bytes, made: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JWT", "a.b.c")
        outcome(lambda url: SLURM[call](SlurmRest(url, "somebody")), first, made)


STATES = [{"component": gpud.XID_COMPONENT, "states": [{"health": "Healthy"}], "events": [{"name": "x"}]}]


@SETTINGS
@given(call=st.sampled_from(["health", "events", "set", "inject", "is"]), made=strange(STATES))
def test_gpud(call: str, made: bytes) -> None:
    calls: dict[str, Call] = {
        "health": lambda url: gpud.health(url, gpud.XID_COMPONENT),
        "events": gpud.events,
        "set": lambda url: gpud.set_healthy(url, "a&b=c#d/../e"),
        "inject": lambda url: gpud.inject(url, 79),
        "is": lambda url: gpud.is_healthy(url, gpud.XID_COMPONENT),
    }
    outcome(calls[call], made)


@SETTINGS
@given(measure=st.sampled_from(["status", "latency", "json"]), made=strange({"a": [1, {"b": 2}]}))
def test_the_http_probe(measure: str, made: bytes) -> None:
    more = {"jsonPath": "{.a}"} if measure == "json" else {}

    async def ask(url: str) -> object:
        spec = HttpSpec.model_validate({"url": url, "measure": measure, **more})
        return await Http().measure(spec, World(kube=None))  # type: ignore[arg-type]

    outcome(ask, made)


POSTED = {
    "ok": True,
    "channel": "C1",
    "ts": "1.2",
    "files": [{"id": "F1"}],
    "upload_url": "http://127.0.0.1:1",
}
REFUSED = {"ok": False, "error": "invalid_blocks", "response_metadata": {"messages": ["no"]}, "needed": "x"}


@SETTINGS
@given(call=st.sampled_from(["post", "summary"]), made=strange(POSTED, REFUSED))
def test_slack(call: str, made: bytes) -> None:
    async def ask(url: str) -> object:
        slack = Slack("xoxb-1", url + "/api/", timeout=5)
        slack._client.retry_handlers.clear()  # they wait
        message = Message("hello")
        return await (
            slack.post("#a", message) if call == "post" else slack.post_summary("#a", message, b"picture")
        )

    outcome(ask, made)


# -- where names go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["post", "prometheus", "slurm", "gpud"])
async def test_no_client_follows_a_redirect_with_its_credentials(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JWT", "a.b.c")
    monkeypatch.setenv("GAMEDAY_PROMETHEUS_TOKEN", "secret")

    async def call(url: str) -> object:
        if where == "prometheus":
            async with Prometheus(url) as prometheus:
                return await prometheus.instant("up")
        if where == "slurm":
            return await SlurmRest(url, "x").nodes()
        if where == "gpud":
            return await gpud.states(url)
        return await Slack("xoxb-secret", url + "/api/").post("#a", Message("x"))

    async with raw_server(lambda _: answer(200, {"ok": False, "error": "x"})) as elsewhere:
        away = elsewhere.url.replace("127.0.0.1", "localhost")
        async with raw_server(lambda a: answer(307, Location=away + a.target)) as server:
            with pytest.raises(PlatformError):
                await call(server.url)
    sent = [v for a in elsewhere.asked for k, v in a.headers.items() if "token" in k or k == "authorization"]
    assert sent == []


HOSTILE = st.text(max_size=20) | st.sampled_from(
    [
        "gpu-[0-9]",
        "ALL",
        "all",
        "a,b",
        "-h",
        "--json",
        "a=b",
        "a b",
        "a/../b",
        "..",
        "",
        "a\nb",
        "a%2fb",
        "gpu-0",
    ]
)


@SETTINGS
@given(name=HOSTILE, partition=st.booleans())
def test_a_change_of_slurm_is_about_one_node_or_nothing_is_asked(name: str, partition: bool) -> None:
    asked: list[Asked] = []

    async def call(url: str) -> object:
        rest = SlurmRest(url, "x")
        client = Slurm(Via(url=url), [rest])
        try:
            if partition:
                await client.update_partition(name, "DOWN")
            else:
                await client.update_node(name, "DRAIN")
        finally:
            asked.extend(seen)
        return None

    seen: list[Asked] = []
    both = {**PATHS["paths"], "/slurm/v0.0.45/partitions": {"get": {}, "post": {}}}

    async def run() -> object:
        def respond(a: Asked) -> bytes:
            seen.append(a)
            return answer(200, {"paths": both})

        async with raw_server(respond) as server:
            try:
                return await call(server.url)
            except PlatformError as error:
                return error

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JWT", "a.b.c")
        result = asyncio.run(run())
    changes = [a for a in asked if a.method == "POST"]
    if isinstance(result, BadName):
        assert not changes
        return
    assert name.upper() != "ALL"
    assert not set(name) & set("[],=/ %")
    where = "/slurm/v0.0.45/partitions" if partition else f"/slurm/v0.0.45/node/{name}"
    assert [a.target for a in changes] == [where]
    if partition:
        assert json.loads(changes[0].body)["partitions"][0]["name"] == name


@SETTINGS
@given(text=st.text(max_size=30))
def test_a_text_in_promql_stays_inside_its_quotes(text: str) -> None:
    made = quoted(text)
    assert made[0] == made[-1] == '"'
    inside = made[1:-1]
    while inside:  # as Go's strconv.Unquote goes through it
        step = {"\\": 2, '"': 0, "\n": 0}.get(inside[0], 1)
        if inside[:2] in ("\\u", "\\x"):
            step = 6 if inside[1] == "u" else 4
        assert step, made
        inside = inside[step:]
    assert matchers({"a": text}) == f"a={made}"


def test_a_label_of_promql_is_a_name() -> None:
    with pytest.raises(BadName):
        matchers({'a="x"} or up{b': "c"})


def test_what_a_node_says_of_its_address_is_an_address() -> None:
    def node(*addresses: str) -> dict[str, Any]:
        listed = [{"type": "InternalIP", "address": address} for address in addresses]
        return {"metadata": {"name": "gpu-0"}, "status": {"addresses": listed}}

    assert gpud.url_of(node("10.0.0.1")) == "https://10.0.0.1:15132"
    assert gpud.url_of(node("x@evil.example/#", "fd00::1")) == "https://[fd00::1]:15132"
    with pytest.raises(gpud.GpudError):
        gpud.url_of(node("evil.example/?"))


def test_a_stranger_is_nobody_who_answers() -> None:
    for call in (lambda url: SlurmRest(url, "x").nodes(), gpud.states):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_JWT", "a.b.c")
            result = outcome(call, answer(302, Location="http://127.0.0.1:1/"))
        assert isinstance(result, PlatformError)

    async def prometheus(url: str) -> object:
        async with Prometheus(url) as client:
            return await client.instant("up")

    assert isinstance(outcome(prometheus, answer(200, b"<html>")), PrometheusError)
    assert isinstance(outcome(prometheus, b""), Unreachable)
