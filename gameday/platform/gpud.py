"""GPUd on a node: health states, events, and its fault injection, over HTTP.

Paths and fields are those of github.com/leptonai/gpud (api/v1, pkg/server). It answers on port 15132 with a
certificate of its own making.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gameday.experiment.text import shorten
from gameday.platform import answers, fence
from gameday.platform.errors import PlatformError, Unreachable, WrongAnswer, without_frames
from gameday.platform.objects import Object

ADDRESS = "GAMEDAY_GPUD_URL"  # where nodes' GPUds are, when not on their own port; {node} stands for its name
PORT = 15132
UNKNOWN = "Unknown"  # a health that GPUd does not tell
XID_COMPONENT = "accelerator-nvidia-error-xid"
XID_EVENT = "error_xid"
WITHIN = 5.0  # seconds


class GpudError(PlatformError):
    """A node's GPUd said no, or something that we don't understand."""

    may_land = False


def url_of(node: Object) -> str:
    """Where a node's GPUd should be. Raises GpudError for a node without an address."""
    meta = node["metadata"]
    if url := os.environ.get(ADDRESS):  # nothing that is read from the cluster steers a request elsewhere
        return url.replace("{node}", quote(meta["name"], safe="")).rstrip("/")
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry["type"] == "InternalIP":
            try:
                address = ipaddress.ip_address(entry["address"])
            except ValueError:  # a text that would be more than a host in a URL
                continue
            host = f"[{address}]" if address.version == 6 else str(address)
            return f"https://{host}:{PORT}"
    raise GpudError(f"{meta['name']} has no address: name its GPUd in ${ADDRESS}")


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
    """The worst of a component's states. Where none is ill, one that is not told makes it Unknown.

    GPUd leaves an empty field out (api/v1, HealthState: `health`; of older versions `healthy`, a boolean).
    """
    found = [_health(s) for s in entry.get("states") or ()] or [UNKNOWN]
    return next(
        (h for h in found if h not in ("Healthy", UNKNOWN)), UNKNOWN if UNKNOWN in found else "Healthy"
    )


def _health(state: Object) -> str:
    older = {"True": "Healthy", "False": "Unhealthy"}.get(str(state.get("healthy")), UNKNOWN)
    return str(state.get("health") or older)


async def xids_since(url: str, since: float) -> list[tuple[float, int | None]]:
    """The XIDs that GPUd has noted from a Unix time of the node's on, to the second: (when, which).

    None stands for one whose message this version does not understand.
    Event names are those of gpud's components/accelerator/nvidia/xid.
    """
    listed = await events(url, int(since))
    noted = [e for entry in listed if entry["component"] == XID_COMPONENT for e in entry.get("events") or ()]
    xids = [e for e in noted if e.get("name") == XID_EVENT]
    found = [(_unix(e.get("time")), _number(str(e.get("message")))) for e in xids]
    return sorted((f for f in found if f[0] >= since), key=lambda f: f[0])


def _unix(time: Any) -> float:
    try:
        return datetime.fromisoformat(str(time).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _number(message: str) -> int | None:
    match = re.search(r"xid(?:\s*\(PCI:[^)]*\))?\s*:?\s*(\d+)", message, re.IGNORECASE)
    return int(match[1]) if match else None


async def inject(url: str, xid: int) -> None:
    """Let GPUd write the kernel message of an XID. Raises GpudError."""
    await _request("POST", f"{url}/inject-fault", {"xid": {"id": xid}})


async def set_healthy(url: str, component: str) -> None:
    """Let GPUd forget what it holds against a component."""
    await _request("POST", f"{url}/v1/health-states/set-healthy?components={quote(component, safe='')}")


async def _listed(url: str) -> list[Object]:
    """An answer for each component. Raises GpudError for one that can't be GPUd's."""
    answer = await _request("GET", url)
    if not isinstance(answer, list) or not all(map(_is_component, answer)):
        raise GpudError(f"what answers at {url} is no GPUd: it says {shorten(str(answer), 100)}")
    return answer


def _is_component(entry: Any) -> bool:
    """{"component": …} with lists of objects under `states` and `events`, where it has them."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("component"), str)
        and all(isinstance(entry.get(key) or [], list) for key in ("states", "events"))
        and all(isinstance(e, dict) for key in ("states", "events") for e in entry.get(key) or ())
    )


async def _request(method: str, url: str, body: Any = None) -> Any:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=WITHIN)
    if method != "GET":
        fence.check()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, json=body, ssl=False, allow_redirects=False) as response,
        ):
            raw = await answers.read(response.content.iter_any(), f"ask GPUd at {url}")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"GPUd at {url} does not answer: {why}") from without_frames(error)
    text = raw.decode(errors="replace")
    status, said = response.status, _decoded(text)
    # A failure of GPUd's own is a 500 with an object; of any other the request may have come through.
    own = status == 500 and isinstance(said, dict) and {"code", "message"} <= said.keys()
    if status == 408 or (status >= 500 and not own):
        raise Unreachable(f"GPUd at {url} does not answer (HTTP {status})")
    if status >= 300:
        raise GpudError(f"GPUd refused {method} {url}: {status} {shorten(text, 200)}")
    if isinstance(said, str):
        raise WrongAnswer(f"GPUd at {url} answered something that is no JSON: {shorten(text, 100)!r}")
    return said


def _decoded(text: str) -> Any:
    """What a JSON text stands for; the text itself where it is none."""
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return text
