"""What gameday logs in with is masked in all that it says, whatever the shape, from the first request on."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gameday.masking import keep_sent, mask, mask_text
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.prometheus import Prometheus
from gameday.platform.slack import Message, Slack
from gameday.platform.slack_clicks import clicks
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import Via
from gameday.probes.http import Http, HttpSpec
from gameday.safety.approvals.http import NotAsked
from gameday.safety.approvals.servicenow import ServiceNow
from tests.platform.test_kubeconfig import written
from tests.support.kept import nothing_kept
from tests.support.raw import answer, raw_server

pytestmark = pytest.mark.fast
SECRET = "sha256~Zk3vQ8wYxT1uRb6LmNcP0aSdFgHjKl2"  # as OpenShift's tokens are: no shape that masking knows


async def kube(url: str, folder: Path) -> None:
    async with await Kube.connect(written(folder, url, {"token": SECRET}), patience=0) as client:
        await client.version()


async def kube_password(url: str, folder: Path) -> None:
    user = {"username": "me", "password": SECRET}
    async with await Kube.connect(written(folder, url, user), patience=0) as client:
        await client.version()


async def prometheus(url: str, folder: Path) -> None:
    async with Prometheus(url) as client:
        await client.instant("up")


async def prometheus_password(url: str, folder: Path) -> None:
    async with Prometheus(url.replace("//", f"//me:{SECRET}@")) as client:
        await client.instant("up")


async def slurm(url: str, folder: Path) -> None:
    await Slurm.of(Via(url=url), None).nodes()  # type: ignore[arg-type]


async def slack(url: str, folder: Path) -> None:
    await Slack(SECRET, f"{url}/").post("#a", Message("x"))


async def slack_app(url: str, folder: Path) -> None:
    async with clicks(SECRET, lambda _: None):
        pass


async def service_now(url: str, folder: Path) -> None:
    await ServiceNow(url, "CHG1")._rows("change_request", "number=CHG1", "number")


def probe(name: str, value: str) -> Callable[[str, Path], Awaitable[None]]:
    """An `http` probe with that header."""

    async def ask(url: str, folder: Path) -> None:
        spec = HttpSpec.model_validate({"url": url, "headers": {name: value}})
        await Http().measure(spec, None)  # type: ignore[arg-type]

    return ask


@pytest.mark.parametrize(
    ("ask", "variables"),
    [
        (kube, []),
        (kube_password, []),
        (prometheus, ["GAMEDAY_PROMETHEUS_TOKEN"]),
        (prometheus_password, []),
        (slurm, ["SLURM_JWT"]),
        (slack, []),
        (slack_app, []),
        (service_now, ["SERVICENOW_TOKEN"]),
        (service_now, ["SERVICENOW_USER", "SERVICENOW_PASSWORD"]),
        (probe("X-Api-Key", SECRET), []),
        (probe("Cookie", f"sid={SECRET}; theme=dark"), []),
        (probe("X-Auth", f"{SECRET} and more"), []),
    ],
)
async def test_what_a_request_logs_in_with_is_masked(
    ask: Callable[[str, Path], Awaitable[None]],
    variables: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in variables:
        monkeypatch.setenv(name, SECRET)
    async with raw_server(lambda _: answer(403, {"ok": False, "error": "invalid_auth"})) as server:
        monkeypatch.setenv("SLACK_API_URL", f"{server.url}/")
        with suppress(PlatformError, NotAsked):
            await ask(server.url, tmp_path)
    assert server.asked
    assert mask_text(f"the program said {SECRET} and ended") == "the program said *** and ended"
    assert SECRET not in mask_text(json.dumps({"said": SECRET}))


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("Cookie", "sid=Zx81kQmmPp77; theme=dark", "Zx81kQmmPp77"),
        ("Cookie", 'theme=dark;connect.sid="Zx81kQmm=Pp77" ', "Zx81kQmm=Pp77"),
        ("Cookie", "sid=s%3AZx81kQmmPp77", "s:Zx81kQmmPp77"),
        ("Cookie", "Zx81kQmmPp77", "Zx81kQmmPp77"),
        ("Authorization", "Bearer Zx81kQmmPp77 ", "Zx81kQmmPp77"),
        ("Authorization", "bearer  Zx81kQmmPp77==", "Zx81kQmmPp77=="),
        ("Authorization", "Zx81kQmmPp77", "Zx81kQmmPp77"),
        ("Authorization", 'Token token="Zx81kQmmPp77"', "Zx81kQmmPp77"),
        ("Authorization", r'Token token="Zx81\"kQmmPp77", nonce=1', 'Zx81"kQmmPp77'),
        ("Authorization", 'Digest username="bob", response="Zx81kQmmPp77"', "Zx81kQmmPp77"),
        ("Proxy-Authorization", "Splunk Zx81kQmmPp77", "Zx81kQmmPp77"),
        ("Authorization", basic("bob:p w Zx81"), "p w Zx81"),
        ("Authorization", basic("bob:a:Zx81kQ") + " ", "a:Zx81kQ"),
        ("Authorization", basic("bob:default"), "bob:default"),
        ("Authorization", "Bearer default", "Bearer default"),
        ("X-Api-Key", "Zx81kQmmPp77 and more", "Zx81kQmmPp77"),
        ("X-Auth", "Zx81kQmmPp77", "Zx81kQmmPp77"),
        ("X-Forwarded-Access-Token", "Zx81kQmmPp77", "Zx81kQmmPp77"),
        ("X-Tenant", "inference", "X-Tenant: inference"),
    ],
)
def test_each_part_of_a_header_is_masked_that_a_server_may_repeat(name: str, value: str, secret: str) -> None:
    with nothing_kept():
        keep_sent({name: value})
        assert mask_text(f"there is no {secret} here") == "there is no *** here"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Authorization", basic("bob:default"), "bob's pods in default are steady, namespace default"),
        ("Authorization", basic("bobby-42:Zx81kQmmPp77"), "bobby-42 is fine"),
        (
            "Authorization",
            'Digest username="bobby-42", realm="gpu-7", response="Zx81kQmmPp77"',
            "bobby-42 at gpu-7",
        ),
        ("Authorization", "Bearer inference", "the bearers of inference"),
        ("Cookie", "sid=Zx81kQmmPp77; theme=darkest", "the darkest theme"),
        ("X-Tenant", "gpu-operator", "the namespace gpu-operator"),
        ("Accept", "application/json", "expected application/json"),
        ("Host", "front.example.com", "front.example.com is fine"),
        ("Impersonate-User", "ops-1@example.com", "ops-1@example.com may not"),
        ("X-SLURM-USER-NAME", "slurm-ops1", "slurm-ops1 may not"),
    ],
)
def test_a_login_takes_no_word_from_a_report(name: str, value: str, said: str) -> None:
    with nothing_kept():
        keep_sent({name: value})
        assert mask_text(said) == said


def test_what_a_probe_logs_in_with_is_masked_before_the_first_request() -> None:
    """A run's first event holds the experiment."""
    with nothing_kept():
        spec = HttpSpec.model_validate({"url": "http://front.invalid", "headers": {"X-Auth": SECRET}})
        assert SECRET not in json.dumps(mask(spec.model_dump(mode="json")))


def test_a_header_that_is_masked_already_logs_nobody_in() -> None:
    with nothing_kept():
        keep_sent({"Authorization": "Bearer ***"})
        assert mask_text("Bearer *** was sent") == "Bearer *** was sent"
