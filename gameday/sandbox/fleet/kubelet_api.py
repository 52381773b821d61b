"""The kubelets' own HTTP API, which the API server connects to for logs and commands.

One server for all simulated nodes: its paths name the pod, and so the node. A real API server speaks HTTPS
to kubelets and takes any certificate; the embedded one speaks HTTP.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache

PROTOCOL = "v4.channel.k8s.io"
STDOUT, STDERR, ERROR = 1, 2, 3  # channels (k8s.io/apimachinery, remotecommand)
Answer = tuple[int, str, str]  # exit code, stdout, stderr
Command = Callable[[Object, list[str]], Awaitable[Answer]]  # a pod and the argv


class KubeletApi:
    """Serves `log` and `commands` (by the name of the program that is run) on a free port of this machine."""

    def __init__(
        self,
        cache: Cache,
        works: Callable[[str], bool],
        log: Callable[[Object], str],
        commands: dict[str, Command],
    ) -> None:
        self._cache, self._works, self._log, self._commands = cache, works, log, commands
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, certificate: Path | None = None) -> None:
        """Serve; HTTPS with a certificate made there, where a file for it is named."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        tls = await asyncio.to_thread(_tls, certificate) if certificate else None
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _pod(self, request: web.Request) -> Object:
        """The pod that is asked for; nobody answers for a node whose kubelet does not work."""
        where = request.match_info
        pod = self._cache.get("Pod", (where["namespace"], where["pod"]))
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{where["pod"]}" not found\n')
        if not self._works(pod["spec"].get("nodeName", "")):
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable  # nobody hears it
        states = (pod.get("status") or {}).get("containerStatuses") or ()
        if not any(s["name"] == where["container"] and not s["state"].get("waiting") for s in states):
            text = f'container "{where["container"]}" in pod "{where["pod"]}" is waiting to start\n'
            raise web.HTTPBadRequest(text=text)
        return pod

    async def _logs(self, request: web.Request) -> web.Response:
        text = self._log(self._pod(request))
        if "tailLines" in request.query:
            lines = text.splitlines(keepends=True)
            text = "".join(lines[max(0, len(lines) - int(request.query["tailLines"])) :])
        raw = text.encode()[: int(request.query.get("limitBytes") or 1 << 30)]
        return web.Response(body=raw, content_type="text/plain")

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        if "*/*" not in request.headers.get("Accept", "*/*"):  # as kubelet 1.36 does
            raise web.HTTPNotAcceptable(text="406: Not Acceptable\n")
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        argv = request.query.getall("command", [])
        command = self._commands.get(Path(argv[0]).name) if argv else None
        if command is None:
            status = _cannot_start(argv)
        else:
            code, out, err = await command(pod, argv)
            for channel, text in ((STDOUT, out), (STDERR, err)):
                if text:
                    await socket.send_bytes(bytes([channel]) + text.encode())
            status = _ended(code)
        await socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
        await socket.close()
        return socket


def _ended(code: int) -> Object:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _cannot_start(argv: list[str]) -> Object:
    name = argv[0] if argv else ""
    why = f'unable to start container process: exec: "{name}": executable file not found in $PATH'
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: error executing command in container: {why}",
        "reason": "InternalError",
        "code": 500,
    }


def _tls(certificate: Path) -> ssl.SSLContext:
    """A context with a certificate that nobody but this process signed. Raises OSError without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise OSError("openssl is not installed: it makes the certificate of the simulated kubelets")
    key = certificate.with_suffix(".key")
    subject = ("-subj", "/CN=simulated-kubelet", "-days", "30", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subprocess.run([openssl, "req", "-x509", *kind, *subject, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
