"""How Prometheus is reached: headers, tokens that are renewed, certificates, and another place for rules."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from gameday.experiment.model import PrometheusAccess
from gameday.masking import mask_text
from gameday.platform.errors import BadName, ConfigError, Unreachable
from gameday.platform.prometheus import Prometheus, PrometheusError
from gameday.platform.prometheus.access import client, merged
from gameday.platform.promql import compiled
from gameday.platform.world import World
from gameday.probes.alert import Alert, AlertSpec
from tests.support.answering import Handler, Serve, answering
from tests.support.monitoring import PrometheusServer
from tests.support.polling import eventually

ONE = {"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}
NOTHING = {"status": "success", "data": {"resultType": "vector", "result": []}}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with answering() as start:
        yield start


class Listener:
    """Answers every query with 1, and keeps the headers; `only` is the one token that it takes."""

    def __init__(self, only: str = "") -> None:
        self.only = only
        self.heard: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.heard.append(dict(request.headers))
        if self.only and request.headers.get("Authorization") != f"Bearer {self.only}":
            return web.Response(status=401, text="Unauthorized")
        return web.json_response(ONE)


def access(**keys: Any) -> PrometheusAccess:
    return PrometheusAccess.model_validate(keys)


async def check(made: PrometheusAccess | None, folder: Path = Path()) -> None:
    assert made is not None
    async with client(made, folder) as prometheus:
        await prometheus.check()


async def test_headers_of_the_file_go_with_each_request_and_stay_concealed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mimir answers 401 without a tenant."""
    listener = Listener()
    monkeypatch.setenv("ACME_TENANT", "tenant-8c1f0d")
    tenant = {"secretFrom": {"env": "ACME_TENANT"}}
    await check(access(url=await serve(listener.answer), headers={"X-Scope-OrgID": tenant, "X-Team": "ml"}))
    assert (listener.heard[0]["X-Scope-OrgID"], listener.heard[0]["X-Team"]) == ("tenant-8c1f0d", "ml")
    assert "tenant-8c1f0d" not in mask_text("the tenant is tenant-8c1f0d")


async def test_a_token_that_is_replaced_in_its_file_is_read_again(serve: Serve, tmp_path: Path) -> None:
    """As the token of a ServiceAccount, which OpenShift's Thanos wants, is within the hour."""
    listener = Listener("token-of-now")
    (tmp_path / "token").write_text("token-of-now\n")
    made = access(url=await serve(listener.answer), token={"secretFrom": {"file": "token"}})
    async with client(made, tmp_path) as prometheus:
        await prometheus.check()
        listener.only = "token-of-then"
        with pytest.raises(PrometheusError, match=r"HTTP 401.*not accepted \(Unauthorized\)"):
            await prometheus.check()
        (tmp_path / "token").write_text("token-of-then\n")
        await prometheus.check()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"env": "NOT_THERE_AT_ALL"}, r"token from \$NOT_THERE_AT_ALL is empty, or not set"),
        ({"file": "nowhere"}, "token from .*nowhere can't be read: No such file"),
        ({"file": "lines"}, "token from .*lines holds more than one line"),
    ],
)
def test_a_secret_that_is_not_there_is_named(source: dict[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\n")
    with pytest.raises(ConfigError, match=said):
        client(access(url="http://p:9090", token={"secretFrom": source}), tmp_path)


def test_flags_go_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = access(url="http://file:9090", headers={"A": "file", "B": "file"}, caFile="ca.pem")
    made = merged(file, {"url": "http://flag:9090", "headers": {"A": "flag"}})
    assert made is not None
    assert (made.url, made.headers, made.ca_file) == (
        "http://flag:9090",
        {"A": "flag", "B": "file"},
        "ca.pem",
    )
    assert merged(None, {}) is None
    with pytest.raises(ConfigError, match="is not a URL"):
        merged(None, {"url": "localhost:9090"})
    with pytest.raises(ConfigError, match="not the name of a header"):
        merged(None, {"url": "http://a", "headers": {"a b": "c"}})


def test_the_environments_token_goes_to_no_address_that_a_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be somebody else's."""
    monkeypatch.setenv("GAMEDAY_PROMETHEUS_TOKEN", "t0ken-of-mine")
    made = [
        merged(access(url="http://file:9090"), {}),
        merged(access(rulesUrl="http://file:8880"), {"url": "http://flag:9090"}),
        merged(None, {"url": "http://flag:9090"}),
    ]
    assert [bool(each and each.token) for each in made] == [False, False, True]


def test_headers_of_the_command_line_go_to_no_address_that_a_file_names() -> None:
    file = PrometheusAccess.model_validate({"url": "http://a", "rulesUrl": "http://elsewhere"})
    with pytest.raises(ConfigError, match="would go to http://elsewhere"):
        merged(file, {"url": "http://mine", "headers": {"Authorization": "Bearer mine"}})


def test_one_way_to_log_in() -> None:
    with pytest.raises(ValidationError, match="name one of the two"):
        access(url="http://a", token={"secretFrom": {"env": "A"}}, headers={"authorization": "b"})
    with pytest.raises(ValidationError, match="expected either `env` or `file`"):
        access(url="http://a", token={"secretFrom": {}})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """localhost.pem, of its own making, and client.pem, which the server believes."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, subject in (("localhost", "/CN=localhost"), ("client", "/CN=gameday")):
        kind = ["-x509", "-nodes", "-days", "1", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        names = ["-subj", subject, "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
async def secured(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Debian's Prometheus over TLS, which lets in whoever shows client.pem."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = PrometheusServer(folder, "127.0.0.1:1")
    config = {"cert_file": "localhost.pem", "key_file": "localhost.key", "client_ca_file": "client.pem"}
    paths = {name: str(certificates / file) for name, file in config.items()}
    web = {"tls_server_config": {**paths, "client_auth_type": "RequireAndVerifyClientCert"}}
    (folder / "web.yml").write_text(json.dumps(web))
    server.launch(f"--web.config.file={folder}/web.yml")
    url = server.url.replace("http://127.0.0.1", "https://localhost")

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(listens)
    yield url
    server.kill()


async def test_certificates(secured: str, certificates: Path) -> None:
    with pytest.raises(Unreachable, match=r"certificate is not trusted .*caFile"):
        await check(access(url=secured))
    with pytest.raises(Unreachable, match=r"wants a client certificate .*certFile"):
        await check(access(url=secured, caFile="localhost.pem"), certificates)
    ours = {"certFile": "client.pem", "keyFile": "client.key"}
    made = access(url=secured, caFile="localhost.pem", **ours)
    async with client(made, certificates) as prometheus:

        async def asked() -> bool:
            return await prometheus.ready()

        await eventually(asked)
    with pytest.raises(ConfigError, match=r"localhost\.pem, .*nothing\.pem.*No such file"):
        await check(access(url=secured, caFile="localhost.pem", certFile="nothing.pem"), certificates)
    async with Prometheus(secured.replace("https", "http")) as prometheus:
        with pytest.raises(PrometheusError, match="it speaks TLS: write https://"):
            await prometheus.check()


async def test_tls_where_none_is_spoken(serve: Serve) -> None:
    url = await serve(Listener().answer)
    with pytest.raises(Unreachable, match=r"TLS failed .*http:// alone"):
        await check(access(url=url.replace("http:", "https:")))


async def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"the proxy 127\.0\.0\.1:1 is not there"):
        await check(access(url="http://prometheus.invalid:9090"))


RULES = {"groups": [{"name": "gpu", "rules": [{"type": "alerting", "name": "GpuLost"}]}]}
FIRING = {"alertname": "GpuLost", "severity": "page", "node": "gpu-1"}


def monitoring(rules: Any, alerts: list[dict[str, Any]]) -> Handler:
    """Answers of a server with these rules and alerts, and no series whatever."""

    async def answer(request: web.Request) -> web.Response:
        data = {"/api/v1/rules": rules, "/api/v1/alerts": {"alerts": alerts}}.get(request.path)
        return web.json_response({"status": "success", "data": data} if data is not None else NOTHING)

    return answer


async def state(prometheus: Prometheus, name: str = "GpuLost", **labels: str) -> tuple[list[Any], str]:
    world = World(kube=None, prometheus=prometheus)  # type: ignore[arg-type]
    measured = await Alert().measure(AlertSpec(name=name, labels=labels), world)
    return [value for _, value in measured.series], measured.message


@pytest.mark.parametrize("rules", [{"groups": []}, {"groups": None}, {}])
async def test_where_no_rules_are_listed_nobody_knows_that_an_alert_is_inactive(
    serve: Serve, rules: dict[str, Any]
) -> None:
    """VictoriaMetrics answers so for vmalert, Thanos and Mimir without a ruler, and Go for an empty list."""
    async with Prometheus(await serve(monitoring(rules, []))) as prometheus:
        values, said = await state(prometheus)
        assert values == []
        assert "lists no alert rules" in said
        assert "rulesUrl" in said
        assert await prometheus.writes_alerts() is False


async def test_rules_may_be_evaluated_elsewhere(serve: Serve) -> None:
    """vmalert's own answers: its alerts are told there, whether or not it writes them anywhere."""
    vmalert = monitoring(RULES, [{"state": "firing", "name": "GpuLost", "labels": FIRING}])
    url, rules_url = await serve(monitoring({}, [])), await serve(vmalert)
    async with Prometheus(url, rules_url=rules_url) as prometheus:
        assert await state(prometheus) == (["firing"], "")
        assert await state(prometheus, severity="page") == (["firing"], "")
        assert await state(prometheus, severity="info") == (["inactive"], "")
        assert (await state(prometheus, "GpuLots"))[1] == "Prometheus has no alert rule named GpuLots"
        assert await prometheus.writes_alerts() is True


async def test_matchers_find_alerts_that_are_told_elsewhere(serve: Serve) -> None:
    pytest.importorskip("promql_parser")
    rules_url = await serve(monitoring(RULES, [{"state": "firing", "name": "GpuLost", "labels": FIRING}]))
    async with Prometheus(await serve(monitoring({}, [])), rules_url=rules_url) as prometheus:
        found = await prometheus.active('severity=~"page|x", node!="gpu-2"')
        assert [alert.labels["node"] for alert in found] == ["gpu-1"]
        assert await prometheus.active('severity="info"') == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ('severity="page"', True),
        ('severity!="page"', False),
        ('severity=~"pa"', False),
        ('severity=~"pa.*",node!~"gpu-2|gpu-3"', True),
        ('zone=""', True),
        ('zone!=""', False),
    ],
)
def test_matchers_mean_what_they_mean_to_prometheus(text: str, matches: bool) -> None:
    pytest.importorskip("promql_parser")
    assert compiled(text)(FIRING) is matches


@pytest.mark.parametrize("text", ['severity=="page"', "severity", 'a="b"} or up{x="y"', 'a=~"("'])
def test_other_texts_are_no_matchers(text: str) -> None:
    pytest.importorskip("promql_parser")
    with pytest.raises(BadName, match="are no matchers"):
        compiled(text)
