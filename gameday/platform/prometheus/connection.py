"""How requests to Prometheus travel: its address, credentials, proxies, and the method that it takes.

It is over aiohttp because a query that hangs in a thread can't be cancelled, and an abort waits for nobody.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Self

import aiohttp
from yarl import URL

from gameday.aside import aside
from gameday.experiment import names
from gameday.masking import keep_sent
from gameday.platform import answers
from gameday.platform.errors import ConfigError, without_frames
from gameday.platform.prometheus.errors import TOKEN_ENV, broken, refusal, stranger, too_large
from gameday.platform.proxies import environment_proxy

MOST_BYTES = 16 * 2**20  # of one answer; decoded it takes about six times as much memory
_NO_POST = frozenset({403, 405, 501})  # a proxy, or RBAC, that lets only GET through

Answer = tuple[int, str, bytes]  # status, Location, body


class Connection:
    """One address. Requests raise Unreachable (nobody answered) or PrometheusError (it said no)."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        headers: Callable[[], Mapping[str, str]] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`url` may hold user:password, a path prefix and a query part, which goes with every request.

        `headers` reads the headers, credentials among them: now, and again when a server answers 401.
        Without it a bearer token is taken from the environment. Proxies are the environment's (HTTPS_PROXY,
        NO_PROXY). `tls` None trusts whom the system trusts. Raises ConfigError.
        """
        address = _address(url)
        self._base = address.with_user(None)
        self._method = "POST"  # or GET, where the server lets nothing else through
        self._read_headers = headers or _token
        self._fixed = {"User-Agent": "gameday", **_basic(address)}
        self._headers = {**self._read_headers(), **self._fixed}
        self._tls = tls
        self._proxy = environment_proxy(address)
        self.url = str(self._base)
        self.timeout = timeout
        self._open: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=64, ssl=self._tls or True)
        self._open = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    async def ask(
        self,
        what: str,
        path: str,
        form: dict[str, str] | None = None,
        timeout: float | None = None,
        most: int = MOST_BYTES,
    ) -> dict[str, Any]:
        """A whole answer. With a form it is a POST, since a query may be longer than a URL.

        Where POST is refused it is a GET from then on, as in Prometheus' own Go client (api/client.go,
        DoGetFallback), which knows 405 and 501; RBAC in front of a server says 403.
        """
        seconds = timeout or self.timeout
        if form is not None:  # the server need not go on after we gave up
            form = form | {"timeout": f"{round(seconds * 1000)}ms"}
        url = self._base.joinpath(path.partition("?")[0]).with_query(self._base.query)
        url = url.extend_query(path.partition("?")[2])
        try:
            status, location, body = await self._sent(url, form, seconds, most)
        except answers.TooLarge:
            raise too_large(what, f"is larger than {most >> 20} MiB") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise broken(self.url, error, seconds) from without_frames(error)
        try:
            answer = json.loads(body)
            told = answer["status"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise stranger(self.url, status, location, body) from None
        if status < 400 and told == "success":
            return dict(answer)
        raise refusal(self.url, what, status, answer)

    async def _sent(self, url: URL, form: dict[str, str] | None, seconds: float, most: int) -> Answer:
        method = "GET" if form is None else self._method
        used = self._headers
        found = await self._send(method, url, form, seconds, most)
        if found[0] == 401 and await self._renewed(used):
            found = await self._send(method, url, form, seconds, most)
        if method == "GET" or found[0] not in _NO_POST:
            return found
        again = await self._send("GET", url, form, seconds, most)
        if again[0] >= 400:
            return found  # it was not the method
        self._method = "GET"
        return again

    async def _renewed(self, refused: Mapping[str, str]) -> bool:
        """Whether there are other headers now than those that were refused: a token's file was replaced."""
        if self._headers == refused:
            try:
                self._headers = {**await aside(self._read_headers), **self._fixed}
            except ConfigError:
                return False  # it is being replaced, or gone: the refusal says enough
        return self._headers != refused

    async def _send(
        self, method: str, url: URL, form: dict[str, str] | None, seconds: float, most: int
    ) -> Answer:
        """One request. A GET has its form in the URL."""
        if self._open is None:
            raise RuntimeError("a Prometheus is used in `async with`")
        if method == "GET" and form is not None:
            url, form = url.extend_query(form), None
        keep_sent(self._headers)
        limits = aiohttp.ClientTimeout(total=seconds)
        async with self._open.request(
            method,
            url,
            data=form,
            headers=self._headers,
            timeout=limits,
            allow_redirects=False,
            **self._proxy,
        ) as response:
            body = await answers.read(response.content.iter_any(), f"ask {self.url}", most)
            return response.status, response.headers.get("Location", ""), body


def _address(url: str) -> URL:
    try:
        names.url(url)
    except ValueError as error:
        raise ConfigError(f"not an address of a Prometheus: {error}") from None
    return URL(url).with_fragment(None)


def _basic(address: URL) -> dict[str, str]:
    if address.user is None:
        return {}
    return {"Authorization": aiohttp.encode_basic_auth(address.user, address.password or "")}


def _token() -> dict[str, str]:
    token = os.environ.get(TOKEN_ENV, "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}
