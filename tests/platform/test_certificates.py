"""Client certificates that an exec plugin gives: renewed when they end or are refused, as by client-go."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.raw import answer

pytestmark = pytest.mark.fast
POD = Ref("v1", "Pod", "web-0", "inference")
THERE = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "inference"}}
UNAUTHORIZED = {"kind": "Status", "reason": "Unauthorized", "code": 401}


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, name: str) -> None:
    """A key and a certificate of the CA for that name; `ca` makes itself."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    if name == "ca":
        ca = ["-addext", "keyUsage=critical,keyCertSign"]
        openssl(folder, "req", "-x509", *key, *subject, *ca, "-out", "ca.crt")
        return
    openssl(folder, "req", *key, "-subj", f"/CN={name}", "-out", f"{name}.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.crt")


@dataclass
class Server:
    """An API server that lets one client certificate in; who came is in `seen`."""

    welcome: str
    url: str = ""
    seen: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        subject = (writer.get_extra_info("peercert") or {}).get("subject", ())
        name = dict(part[0] for part in subject).get("commonName", "nobody")
        self.seen.append(name)
        writer.write(answer(200, THERE) if name == self.welcome else answer(401, UNAUTHORIZED))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def server(folder: Path, welcome: str) -> AsyncIterator[Server]:
    for name in ("ca", "server", "client-1", "client-2", "client-3"):
        certificate(folder, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    made = Server(welcome)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield made


def kubeconfig(folder: Path, url: str, *, ends: str = "None", cluster: Any = None, **more: Any) -> Path:
    """One whose plugin gives the certificate client-N at its Nth call; `ends` says when, as an expression."""
    program = folder / "plugin"
    body = f"""
    import datetime, json, os, pathlib
    folder = pathlib.Path({str(folder)!r})
    calls = folder / "calls"
    n = int(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text(str(n))
    (folder / "info").write_text(os.environ["KUBERNETES_EXEC_INFO"])
    read = lambda kind: (folder / f"client-{{n}}.{{kind}}").read_text()
    status = {{"clientCertificateData": read("crt"), "clientKeyData": read("key")}}
    if ends := {ends}:
        status["expirationTimestamp"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    print(json.dumps({{"apiVersion": os.environ["VERSION"], "kind": "ExecCredential", "status": status}}))
    """
    program.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    plugin = {"apiVersion": version, "command": str(program), "interactiveMode": "Never", **more}
    plugin["env"] = [{"name": "VERSION", "value": version}]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": url, **(cluster or {})}}],
        "users": [{"name": "here", "user": {"exec": plugin}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


def trusted(folder: Path) -> dict[str, Any]:
    return {"certificate-authority": str(folder / "ca.crt")}


async def test_a_refused_certificate_is_replaced_and_new_connections_carry_the_new_one(
    tmp_path: Path,
) -> None:
    async with server(tmp_path, "client-2") as api:
        path = kubeconfig(tmp_path, api.url, cluster=trusted(tmp_path))
        async with await Kube.connect(path) as kube:
            assert await kube.get(POD) == THERE
            assert await kube.get(POD) == THERE
    assert api.seen == ["client-1", "client-2", "client-2"]
    assert (tmp_path / "calls").read_text() == "2"


async def test_certificates_that_are_all_refused_are_asked_for_once_a_request(tmp_path: Path) -> None:
    async with server(tmp_path, "nobody else") as api:
        path = kubeconfig(tmp_path, api.url, cluster=trusted(tmp_path))
        async with await Kube.connect(path) as kube:
            with pytest.raises(ApiError, match="log in again"):
                await kube.get(POD)
    assert api.seen == ["client-1", "client-2"]


async def test_a_certificate_that_has_ended_is_replaced_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = "datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)"
    async with server(tmp_path, "client-2") as api:
        path = kubeconfig(tmp_path, api.url, ends=soon, cluster=trusted(tmp_path))
        async with await Kube.connect(path) as kube:
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + 400)
            assert await kube.get(POD) == THERE
    assert api.seen == ["client-2"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_plugin_hears_of_the_cluster_where_it_wants_to(wanted: bool, tmp_path: Path) -> None:
    """As ConfigToExecCluster in client-go has it: the CA's file becomes data, the extension `config`."""
    async with server(tmp_path, "client-1") as api:
        extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "gpu"}}
        cluster = trusted(tmp_path) | {"tls-server-name": "127.0.0.1", "extensions": [extension]}
        path = kubeconfig(tmp_path, api.url, cluster=cluster, provideClusterInfo=wanted)
        async with await Kube.connect(path) as kube:
            assert await kube.get(POD) == THERE
    told = json.loads((tmp_path / "info").read_text())["spec"]
    if not wanted:
        assert "cluster" not in told
        return
    authority = base64.b64encode((tmp_path / "ca.crt").read_bytes()).decode()
    assert told["cluster"] == {
        "server": api.url,
        "tls-server-name": "127.0.0.1",
        "certificate-authority-data": authority,
        "config": {"audience": "gpu"},
    }


async def test_a_certificate_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    async with server(tmp_path, "client-2") as api:
        path = kubeconfig(tmp_path, api.url, cluster=trusted(tmp_path))
        document = json.loads(path.read_text())
        files = {"client-certificate": str(tmp_path / "me.crt"), "client-key": str(tmp_path / "me.key")}
        document["users"][0]["user"] = files
        path.write_text(json.dumps(document))
        for n in (1, 2):
            for kind in ("crt", "key"):
                (tmp_path / f"me.{kind}").write_text((tmp_path / f"client-{n}.{kind}").read_text())
            if n == 1:
                kube = await Kube.connect(path)
        async with kube:
            assert await kube.get(POD) == THERE
    assert api.seen == ["client-1", "client-2"]
