"""What the API server asks a node's kubelet for: a container's log, or a command in it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from gameday.sandbox.apiserver.status import Refused, bad_request

Json = dict[str, Any]
PROTOCOL = "v4.channel.k8s.io"
SUBRESOURCES = ("log", "exec")
_PREFERRED = ("InternalDNS", "InternalIP")
_RENAMED = {"stdin": "input", "stdout": "output", "stderr": "error"}  # the kubelet's words for exec's options
CONNECT_WITHIN = 5.0


async def ask(http: web.BaseRequest, subresource: str, pod: Json, node: Json) -> web.StreamResponse:
    """Hand a request through to the kubelet. Raises Refused, as upstream when it can't be reached."""
    container = _container(http, pod)
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}/{container}"
    base = f"http://{_address(node)}"
    try:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_WITHIN)
        ) as session:
            if subresource == "exec":
                return await _exec(http, session, f"{base}/exec/{where}")
            return await _log(http, session, f"{base}/containerLogs/{where}")
    except (aiohttp.ClientError, OSError) as error:
        why = f"error dialing backend: {str(error) or type(error).__name__}"
        raise Refused(500, "InternalError", why) from None


async def _log(http: web.BaseRequest, session: aiohttp.ClientSession, url: str) -> web.StreamResponse:
    async with session.get(url, params=http.query) as answer:
        body = await answer.read()
        if answer.status >= 400:
            raise Refused(answer.status, "", body.decode(errors="replace").strip())
        return web.Response(body=body, content_type="text/plain")


async def _exec(http: web.BaseRequest, session: aiohttp.ClientSession, url: str) -> web.StreamResponse:
    if http.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    query = [(_RENAMED.get(k, k), v) for k, v in http.query.items()]
    accept = {"Accept": http.headers.get("Accept", "*/*")}
    async with session.ws_connect(url, params=query, headers=accept, protocols=(PROTOCOL,)) as kubelet:
        client = web.WebSocketResponse(protocols=(PROTOCOL,))
        await client.prepare(http)
        pairs = ((kubelet, client), (client, kubelet))
        ways = [asyncio.create_task(_pass_on(source, sink)) for source, sink in pairs]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await client.close()
        return client


async def _pass_on(source: Any, sink: Any) -> None:
    async for message in source:
        if message.type != aiohttp.WSMsgType.BINARY:
            return
        await sink.send_bytes(message.data)


def _container(http: web.BaseRequest, pod: Json) -> str:
    names = [c["name"] for c in pod["spec"]["containers"]]
    asked = http.query.get("container") or (names[0] if len(names) == 1 else "")
    name = pod["metadata"]["name"]
    if not asked:
        choose = f"choose one of: [{' '.join(names)}]"
        raise bad_request(f"a container name must be specified for pod {name}, {choose}")
    if asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def _address(node: Json) -> str:
    status = node.get("status") or {}
    by_type = {a["type"]: a["address"] for a in reversed(status.get("addresses") or ())}
    host = next((by_type[t] for t in _PREFERRED if t in by_type), "")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 0)
    if not host or not port:
        raise Refused(500, "InternalError", f"no preferred addresses found; known addresses: {list(by_type)}")
    return f"{host}:{port}"
