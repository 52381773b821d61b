"""A connection that can't be made leaves nothing in memory, however often it is tried.

Without the collector: what only that would free piles up until it looks at its oldest generation, and for it
the TLS buffers of a broken handshake, a quarter of a megabyte, are one small object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

from gameday.platform import gpud
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.prometheus import Prometheus
from gameday.platform.slurm.rest import SlurmRest
from gameday.platform.world import World
from gameday.probes.http import Http, HttpSpec
from gameday.safety.approvals import http as approvals
from tests.platform.test_certificates import certificate
from tests.support.raw import answer, raw_server

pytestmark = pytest.mark.fast
POD = Ref("v1", "Pod", "web-0", "inference")
TRIES = 8
PLAIN = "speaks no TLS"

Try = Callable[[Kube, str], Awaitable[Any]]
CLIENTS: dict[str, Try] = {
    "get": lambda kube, _: kube.get(POD),
    "create": lambda kube, _: kube.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "inference"}}
    ),
    "watch": lambda kube, _: _watch(kube),
    "exec": lambda kube, _: kube.exec(POD, "main", ["true"], timeout=5),
    "Prometheus": lambda _, url: _query(url),
    "GPUd": lambda _, url: gpud.states(url),
    "slurmrestd": lambda _, url: SlurmRest(url, "somebody").nodes(),
    "http probe": lambda kube, url: Http().measure(HttpSpec(url=url), World(kube)),
    "approvals": lambda _, url: approvals.ask("GET", url, "a source", headers={}),
}


async def _watch(kube: Kube) -> None:
    async for _ in kube.lines("/api/v1/pods", what="pods", query={"watch": "1"}, timeout=5):
        pass


async def _query(url: str) -> None:
    async with Prometheus(url) as prometheus:
        await prometheus.instant("up")


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def speak_no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(400, b"Client sent an HTTP request to an HTTPS server."))
    await writer.drain()
    writer.close()


async def hang_up_after_the_handshake(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA and the certificate of a server."""
    folder = tmp_path_factory.mktemp("authority")
    certificate(folder, "ca")
    certificate(folder, "server")
    return folder


@asynccontextmanager
async def away(way: str, folder: Path) -> AsyncIterator[str]:
    """The address of a server that can't be reached in one of these ways."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    serve, tls = {
        "hangs up in the handshake": (hang_up, None),
        PLAIN: (speak_no_tls, None),
        "refuses connections": (hang_up, None),
        "is not trusted": (hang_up, context),
        "hangs up after the handshake": (hang_up_after_the_handshake, context),
    }[way]
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if way == "refuses connections":
        server.close()
        await server.wait_closed()
    async with server:
        yield url


def kubeconfig(folder: Path, url: str, authority: Path | None = None) -> Path:
    cluster = {"server": url, **({"certificate-authority": str(authority / "ca.crt")} if authority else {})}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "here", "user": {"token": "a-token"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


KINDS = (
    SSLProtocol,
    ssl.SSLContext,
    asyncio.Task,
    aiohttp.ClientSession,
    aiohttp.ClientRequest,
    aiohttp.ClientError,
    PlatformError,
)


def kept() -> Counter[str]:
    """What there is of the things that a try makes, by their class: none outlives it."""
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if kind is FrameType:
            found["frame"] += "/gameday/" in each.f_code.co_filename
        elif issubclass(kind, KINDS):  # a server's TLS connections are not ours
            found[kind.__name__] += not getattr(each, "_server_side", False)
    return +found


async def grown(attempt: Callable[[], Awaitable[Any]]) -> Counter[str]:
    """What is kept of each of so many tries that fail, without a collector's help.

    Of a single one something may be left: the last one's transport may close later, and other tests end.
    """
    for _ in range(2):  # what is made once: a session, a default context
        with pytest.raises(PlatformError):
            await attempt()
    gc.collect()
    gc.disable()
    try:
        before = kept()
        for _ in range(TRIES):
            with pytest.raises(PlatformError):
                await attempt()
        for _ in range(20):  # transports close by themselves, some turns later
            await asyncio.sleep(0)
        return Counter({name: more for name, more in (kept() - before).items() if more >= TRIES})
    finally:
        gc.enable()


WAYS = ("hangs up in the handshake", "refuses connections", "is not trusted", "hangs up after the handshake")


@pytest.mark.parametrize(
    ("client", "way"), [("get", way) for way in WAYS] + [(client, PLAIN) for client in CLIENTS]
)
async def test_nothing_is_kept_of_a_connection_that_failed(
    client: str, way: str, tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JWT", "a-token")
    async with away(way, authority) as url:
        path = kubeconfig(tmp_path, url, authority if way != "is not trusted" else None)
        async with await Kube.connect(path) as kube:
            kube.patience = 0
            assert not await grown(lambda: CLIENTS[client](kube, url))


@pytest.mark.parametrize("status", [404, 401, 500])
async def test_nothing_is_kept_of_a_refusal(status: int, tmp_path: Path) -> None:
    said = {"kind": "Status", "code": status, "message": "no"}
    async with (
        raw_server(lambda _: answer(status, said)) as server,
        await Kube.connect(kubeconfig(tmp_path, server.url)) as kube,
    ):
        kube.patience = 0
        assert not await grown(lambda: kube.get(POD))
