"""GPUd on a node: health states, events, and its fault injection, over HTTP.

Paths and fields are those of github.com/leptonai/gpud (api/v1, pkg/server). It answers on port 15132 with a
certificate of its own making.
"""

from __future__ import annotations

import json
from typing import Any

from gameday.platform.errors import PlatformError, Unreachable
from gameday.platform.objects import Object

ANNOTATION = "gameday.dev/gpud"  # on a node: where its GPUd is, when not at the usual address
PORT = 15132
XID_COMPONENT = "accelerator-nvidia-error-xid"
WITHIN = 5.0  # seconds


class GpudError(PlatformError):
    """A node's GPUd said no, or something that we don't understand."""


def url_of(node: Object) -> str:
    """Where a node's GPUd should be. Raises GpudError for a node without an address."""
    meta = node["metadata"]
    if url := (meta.get("annotations") or {}).get(ANNOTATION):
        return str(url).rstrip("/")
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry["type"] == "InternalIP":
            host = f"[{entry['address']}]" if ":" in entry["address"] else entry["address"]
            return f"https://{host}:{PORT}"
    raise GpudError(f"{meta['name']} has no address: name its GPUd in the annotation {ANNOTATION}")


async def states(url: str) -> list[Object]:
    """Every component's health: {"component", "states": [{"health", "reason", …}]}."""
    return await _listed(f"{url}/v1/states")


async def events(url: str, since: int = 0) -> list[Object]:
    """Events of all components from a Unix time on: {"component", "events": [{"name", "type", …}]}."""
    return await _listed(f"{url}/v1/events?startTime={since}")


async def health(url: str, component: str) -> str:
    """The worst health of one component. Raises GpudError where GPUd does not have it."""
    for entry in await states(url):
        if entry["component"] == component:
            return worst(entry)
    raise GpudError(f"GPUd at {url} has no component {component}")


async def is_healthy(url: str, component: str) -> bool:
    """Whether there is a GPUd that says so."""
    try:
        return await health(url, component) == "Healthy"
    except PlatformError:
        return False


def worst(entry: Object) -> str:
    """The worst of a component's states; Healthy when it has none."""
    found = [str(s.get("health") or "Healthy") for s in entry.get("states") or ()]
    return next((h for h in found if h != "Healthy"), "Healthy")


async def inject(url: str, xid: int) -> None:
    """Let GPUd write the kernel message of an XID. Raises GpudError."""
    await _request("POST", f"{url}/inject-fault", {"xid": {"id": xid}})


async def set_healthy(url: str, component: str) -> None:
    """Let GPUd forget what it holds against a component."""
    await _request("POST", f"{url}/v1/health-states/set-healthy?components={component}")


async def _listed(url: str) -> list[Object]:
    """An answer for each component. Raises GpudError for one that can't be GPUd's."""
    answer = await _request("GET", url)
    if not isinstance(answer, list) or not all(isinstance(e, dict) and "component" in e for e in answer):
        raise GpudError(f"what answers at {url} is no GPUd: it says {str(answer)[:100]}")
    return answer


async def _request(method: str, url: str, body: Any = None) -> Any:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=WITHIN)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, json=body, ssl=False) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(f"GPUd at {url} does not answer: {error or type(error).__name__}") from error
    if response.status >= 400:
        raise GpudError(f"GPUd refused {method} {url}: {response.status} {' '.join(text.split())[:200]}")
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise GpudError(f"GPUd at {url} answered something that is no JSON: {text[:100]!r}") from error
