"""slurmrestd as a way to Slurm: HTTP or a unix socket, a JSON Web Token, and versions found out by asking.

What a server can do is read from its own OpenAPI document, which lists each path of each version it speaks:
- v0.0.36 to 38 (Slurm 22.05 and older) read only;
- v0.0.39 (23.02) and later update a node: POST /node/NAME;
- v0.0.45 (26.05) requeues a job, GET /job/ID/requeue, and updates partitions, POST /partitions.
Source: the OpenAPI documents of these versions, and slurmrestd 22.05 itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from gameday.experiment.text import shorten
from gameday.masking import keep_sent
from gameday.platform import answers, fence
from gameday.platform.errors import ConfigError, Unreachable, WrongAnswer, without_frames
from gameday.platform.slurm import decode
from gameday.platform.slurm.model import Job, Node, Partition
from gameday.platform.slurm.transport import LONGEST, Change, SlurmError, failure

TOKEN_ENV = "SLURM_JWT"
KNOWN = range(36, 46)  # v0.0.N whose answers we know how to read
TIMEOUT = 30.0  # seconds
_CHANGES: dict[Change, tuple[str, str, str]] = {
    "node": ("post", "/node/{node_name}", "update nodes (Slurm 23.02 and later can)"),
    "partition": ("post", "/partitions", "update partitions (Slurm 26.05 and later can)"),
    "requeue": ("get", "/job/{job_id}/requeue", "requeue jobs (Slurm 26.05 and later can)"),
}
T = TypeVar("T")
_HINT = f"; ${TOKEN_ENV} must hold a token of this cluster: scontrol token lifespan=3600"


class _NotServed(SlurmError):
    """The path is not there, so nothing was done."""


class SlurmRest:
    """One slurmrestd. The token is read from the environment at each request, and kept nowhere."""

    def __init__(self, url: str, user: str) -> None:
        self.url = url
        self._user = user
        self._socket = url.removeprefix("unix://") if url.startswith("unix://") else ""
        self._paths: dict[str, frozenset[str]] = {}  # "/slurm/v0.0.40/node/{node_name}": its methods

    async def nodes(self) -> list[Node]:
        return await self._list("nodes", decode.node)

    async def jobs(self) -> list[Job]:
        return await self._list("jobs", decode.job)

    async def partitions(self) -> list[Partition]:
        return await self._list("partitions", decode.partition)

    async def setting(self, name: str) -> str:
        return ""  # its API has no way to the configuration

    async def cannot(self, change: Change) -> str:
        method, path, words = _CHANGES[change]
        if await self._prefix(method, path):
            return ""
        newest = (await self._prefix("get", "/nodes")).rpartition("/")[2] or "no version"
        return f"slurmrestd at {self.url} speaks {newest}, which can't {words}"

    async def update_node(self, name: str, state: str, reason: str) -> None:
        body = {"state": [state], **({"reason": reason} if reason else {})}
        await self._change("node", f"set Slurm node {name} to {state}", body, node_name=name)

    async def update_partition(self, name: str, state: str) -> None:
        body = {"partitions": [{"name": name, "partition": {"state": [state]}}]}
        await self._change("partition", f"set partition {name} to {state}", body)

    async def requeue(self, job: int) -> None:
        await self._change("requeue", f"requeue job {job}", None, job_id=str(job))

    async def _list(self, what: str, decoded: Callable[[dict[str, Any]], T]) -> list[T]:
        if not await self._prefix("get", f"/{what}"):
            known = f"v0.0.{KNOWN[0]} to v0.0.{KNOWN[-1]}"
            raise SlurmError(f"slurmrestd at {self.url} speaks none of {known}: see {self.url}/openapi/v3")
        doing = f"list Slurm's {what}"
        listed = (await self._ask_newest("get", f"/{what}", doing)).get(what) or []
        try:
            return [decoded(found) for found in listed]
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            why = shorten(repr(error), LONGEST)
            raise WrongAnswer(f"cannot {doing}: its form is not as known ({why})") from error

    async def _change(self, change: Change, doing: str, body: Any, **names: str) -> None:
        if why := await self.cannot(change):
            raise SlurmError(f"cannot {doing}: {why}")
        method, path, _ = _CHANGES[change]
        quoted = {key: quote(name, safe="") for key, name in names.items()}
        await self._ask_newest(method, path, doing, body, changes=True, **quoted)

    async def _ask_newest(
        self, method: str, path: str, doing: str, body: Any = None, *, changes: bool = False, **names: str
    ) -> dict[str, Any]:
        """Ask the newest version that has the path; an upgrade may have taken away the one that was found."""
        prefix = await self._prefix(method, path)
        try:
            return await self._ask(method, prefix + path.format(**names), doing, body, changes)
        except _NotServed:
            self._paths = {}
            newer = await self._prefix(method, path)
            if newer in (prefix, ""):
                raise
        return await self._ask(method, newer + path.format(**names), doing, body, changes)

    async def _prefix(self, method: str, path: str) -> str:
        """`/slurm/v0.0.N` of the newest version that we know and that has the path; "" for none.

        That there is none is never said from memory: an upgrade may have brought one.
        """
        known = bool(self._paths)
        if not known:
            await self._find_paths()
        for number in reversed(KNOWN):
            if method in self._paths.get(f"/slurm/v0.0.{number}{path}", ()):
                return f"/slurm/v0.0.{number}"
        if known:
            self._paths = {}
            return await self._prefix(method, path)
        return ""

    async def _find_paths(self) -> None:
        found = await self._ask("get", "/openapi/v3", "ask slurmrestd for its versions")
        served = found.get("paths")
        if not isinstance(served, dict):
            raise WrongAnswer(f"cannot ask slurmrestd for its versions: {self.url} has no OpenAPI paths")
        methods = {p.rstrip("/"): m for p, m in served.items() if isinstance(m, dict)}
        self._paths = {path: frozenset(named) for path, named in methods.items()}

    async def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        body: Any = None,
        changes: bool = False,
    ) -> dict[str, Any]:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else None
        base = "http://slurmrestd" if self._socket else self.url.rstrip("/")
        timeout, traced = aiohttp.ClientTimeout(total=TIMEOUT), [fence.once()] if changes else []
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=traced) as session,
                session.request(
                    method,
                    URL(base + path, encoded=True),
                    json=body,
                    headers=self._headers(),
                    allow_redirects=False,  # whoever answers there would get the token
                ) as answer,
            ):
                raw = await answers.read(answer.content.iter_any(), doing)
                return _read(answer.status, raw, doing, self.url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            text = f"cannot {doing}: slurmrestd at {self.url} does not answer ({why})"
            raise Unreachable(text) from without_frames(error)

    def _headers(self) -> dict[str, str]:
        """The token and whom it is for. A unix socket may do without: there slurmrestd knows the peer."""
        token = os.environ.get(TOKEN_ENV, "")
        if not token and not self._socket:
            raise SlurmError(f"no token for slurmrestd at {self.url}{_HINT}")
        claims = _claims(token)
        expires = claims.get("exp")
        if isinstance(expires, int | float) and expires < time.time():
            raise SlurmError(f"the token for slurmrestd at {self.url} has expired{_HINT}")
        user = self._user or claims.get("sun") or ""
        headers = {"X-SLURM-USER-TOKEN": token, "X-SLURM-USER-NAME": user} if token else {}
        keep_sent(headers)
        return headers


def check_url(url: str) -> str:
    """A usable address. Raises ConfigError; a secret in it would end up in every record."""
    kind, sep, rest = url.partition("://")
    if kind not in ("http", "https", "unix") or not sep or not rest:
        raise ConfigError(
            f"{url!r} is not slurmrestd's address, as http://slurm:6820 or unix:///run/slurm.sock"
        )
    if "@" in rest and kind != "unix":
        raise ConfigError(f"slurmrestd's address holds a name or password: leave it out{_HINT}")
    return url.rstrip("/")


def _read(status: int, raw: bytes, doing: str, url: str) -> dict[str, Any]:
    """The answer. Some versions say no with status 200 and `errors`; some say it in plain text."""
    if status in (401, 403):
        raise SlurmError(f"cannot {doing}: slurmrestd at {url} does not accept the token{_HINT}")
    data: dict[str, Any] = {}
    with contextlib.suppress(WrongAnswer):
        data = answers.mapping(raw, doing)
    listed = data.get("errors")
    errors = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    away = status in (502, 503, 504)
    if (away and not errors) or 300 <= status < 400:
        raise Unreachable(f"cannot {doing}: slurmrestd at {url} does not answer (HTTP {status})")
    if status == 200 and not listed:
        return data or answers.mapping(raw, f"{doing} ({url})")
    said = "; ".join(_said(e) for e in errors) or raw.decode(errors="replace") or f"HTTP {status}"
    numbers = {str(e.get("error_number", e.get("errno"))) for e in errors}
    # Slurm 22.05 says no more than -1 of a controller that is away, or of a wrong token.
    if numbers == {"-1"}:
        hint = f"slurmctld does not answer, or does not accept the token ({said})"
        raise Unreachable(f"cannot {doing}: {hint}: see `scontrol ping`{_HINT}")
    if re.search("authentication", said, re.IGNORECASE):
        said += _HINT
    if status == 404:
        raise _NotServed(f"cannot {doing}: {shorten(said, LONGEST)}")
    told = failure(doing, said)
    told.may_land = told.may_land or (
        status >= 500 and not errors
    )  # perhaps it is not slurmrestd that speaks
    raise Unreachable(str(told)) if away else told


def _said(error: dict[str, Any]) -> str:
    return ": ".join(str(error[k]) for k in ("description", "error") if error.get(k))


def _claims(token: str) -> dict[str, Any]:
    """What a JSON Web Token says of itself; {} where it is none. Nobody's signature is checked here."""
    with contextlib.suppress(ValueError, IndexError):
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if isinstance(claims, dict):
            return claims
    return {}
