"""One API server over HTTP: which requests are tried again, who pays for credentials, what is no answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gameday.experiment.text import shorten
from gameday.masking import keep_sent
from gameday.platform import answers, fallback
from gameday.platform.credentials import Credentials
from gameday.platform.errors import (
    ApiError,
    NotServed,
    PlatformError,
    Unreachable,
    WrongAnswer,
    retry_after,
    without_frames,
)
from gameday.platform.exec import Exec, run_in_container
from gameday.platform.objects import Object
from gameday.platform.permission import Permission
from gameday.platform.proxies import environment_proxy

_RETRIED = frozenset({500, 502, 503, 504})  # on reads: the server is starting, stopping or overloaded
_DECIDED = frozenset({404, 409, 410})  # answers that we act on: only the API server itself may give them
_NO_SUCH_PATH = (
    b"404 page not found"  # Go's http.NotFound: of an API server without such a path, or of a proxy
)
_RBAC = "rbac.authorization.k8s.io"
WRONG_PATIENCE = 1.0  # seconds that reads go on trying while something else answers
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_OVER = (aiohttp.ClientError, OSError, TimeoutError, ValueError)  # what a request may end with

Query = Mapping[str, Any] | Sequence[tuple[str, str]]
# Sends a request with these headers; what comes of that has a `status`.
Send = Callable[["ApiServer", CIMultiDict[str]], AbstractAsyncContextManager[Any]]


class ApiServer:
    """One API server. All methods raise ApiError (it said no) or Unreachable (nobody answered).

    Redirects are not followed: whoever answers there would get the credentials. URLs are sent as they were
    made, since aiohttp would take dots and quoted characters in them for what they look like.
    """

    def __init__(self, api: Any, credentials: Credentials | None = None, patience: float = 5.0) -> None:
        self._api = api
        self._credentials = credentials or Credentials(api.configuration)
        self.patience = patience  # seconds that reads go on trying a server which does not answer
        self._heard: set[Permission] | None = None  # what each request needs; None: nobody wants to know
        self._acting: ApiServer | None = None
        client = api.rest_client  # a proxy of the kubeconfig goes before the environment's, as in client-go
        self._proxy = {"proxy": client.proxy, "proxy_headers": client.proxy_headers}
        if not client.proxy:
            self._proxy = environment_proxy(self.server)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._api.configuration.host)

    async def close(self) -> None:
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def act_as(self, other: ApiServer | None) -> None:
        """Send every request from now on as another identity; None: as our own again."""
        self._acting = other

    @contextmanager
    def listening(self) -> Iterator[set[Permission]]:
        """The permissions that requests need while the context lasts."""
        self._heard = heard = set[Permission]()
        try:
            yield heard
        finally:
            self._heard = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        verb: str = "",
        what: str = "",
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = 30.0,
        patience: float | None = None,
    ) -> bytes:
        """One request, answered with the raw body; `path` is one that `url_path` made.

        Reads are tried again for `patience` seconds (by default the client's) while the server is away; a
        connection that was refused is tried again for every verb, since nothing was sent.
        """
        asked = self.asked(verb or method, what or path)
        started = time.monotonic()
        patience = self.patience if patience is None else patience
        delay = 0.1
        wrong: float | None = None  # when something else answered first
        failure: ApiError | Unreachable
        while True:
            end = started + patience
            try:
                async with self._open(method, path, query, body, content_type, timeout) as response:
                    data = await answers.read(response.content.iter_any(), asked)
                if response.status < 300:
                    return data
                failure = await self._judged(
                    _failure(response, data, verb or method, what or path, asked), method, path, asked
                )
                again = method == "GET" and response.status in _RETRIED
                again = again or (response.status == 429 and not path.endswith("/eviction"))
                wait = getattr(failure, "retry_after", None) or delay
                if isinstance(failure, WrongAnswer):
                    wrong = wrong or time.monotonic()
                    again, end = method == "GET", wrong + min(patience, WRONG_PATIENCE)
            except _OVER as exception:
                failure = Unreachable(f"cannot {asked}: the server {_why(without_frames(exception))}")
                refused = isinstance(exception, aiohttp.ClientConnectorError)
                # aiohttp sends what is idempotent again by itself: the first of the two may have arrived.
                failure.may_land = not refused or method in _IDEMPOTENT
                again = method == "GET" or refused
                wait = delay
            if not again or time.monotonic() + wait > end:
                try:
                    raise failure
                finally:
                    del failure  # else it and this frame would hold each other, and the answer
            await asyncio.sleep(wait)
            delay = min(delay * 2, 1.0)

    async def ask(self, method: str, path: str, *, verb: str = "", what: str = "", **options: Any) -> Object:
        """As `request`, answered with a JSON object. Raises WrongAnswer for anything else.

        A read that something else answers is tried again, for WRONG_PATIENCE at most.
        """
        asked = self.asked(verb or method, what or path)
        end = time.monotonic() + min(self.patience, WRONG_PATIENCE)
        while True:
            raw = await self.request(method, path, verb=verb, what=what, **options)
            try:
                return answers.mapping(raw, asked)
            except WrongAnswer:
                if method != "GET" or time.monotonic() > end:
                    raise
            await asyncio.sleep(0.2)

    async def _judged(
        self, error: ApiError | WrongAnswer, method: str, path: str, asked: str
    ) -> ApiError | WrongAnswer:
        """The failure; a 404 says that an object is not there, or that its kind is not served, or nothing.

        A Status names the object that is not there, or its namespace. Other answers are an API server's for a
        path that it does not serve, and a proxy's for anything: what the server lists tells the two apart.
        """
        if isinstance(error, WrongAnswer) or error.status != 404 or _is_about(error, method, path):
            return error
        if await self._serves(path):
            said = shorten(error.message, 80)
            return WrongAnswer(f"cannot {asked}: HTTP 404, which is not about that object: {said!r}")
        _, version, resource = _served_as(path)
        return NotServed(error.verb, error.what, resource or "kinds", version)

    async def _serves(self, path: str) -> bool:
        """Whether the API server lists what a path is about; true as well where that can't be found out."""
        root, version, resource = _served_as(path)
        if root == "api" and version not in ("", "v1"):  # as of Slurm's jobs, which have no group
            return False
        if not resource and (root != "apis" or not version):  # what every API server serves
            return True
        above = f"/{root}/{version}" if resource else f"/{root}"
        try:
            listed = await self.ask("GET", above, verb="discover", what=version, patience=0)
            served = answers.names(listed, self.asked("discover", version))
        except NotServed:
            return False
        except PlatformError:
            return True
        return (resource or version) in served

    def asked(self, verb: str, what: str) -> str:
        """A request, as errors name it."""
        return f"{verb} {what} ({self.server})"

    async def lines(self, path: str, *, what: str, query: Query, timeout: float) -> AsyncIterator[Object]:
        """The JSON objects of an answer that comes line by line, until the server ends it."""
        asked = self.asked("watch", what)
        try:
            async with self._open("GET", path, query, None, "application/json", timeout) as response:
                if response.status >= 300:
                    data = await answers.read(response.content.iter_any(), asked)
                    raise await self._judged(
                        _failure(response, data, "watch", what, asked), "GET", path, asked
                    )
                async for line in response.content:
                    yield answers.mapping(line, asked)
        except _OVER as error:
            raise Unreachable(f"cannot {asked}: the server {_why(error)}") from without_frames(error)

    async def run(self, path: str, query: Query, what: str, timeout: float) -> Exec:
        """Run a command in a container, by the path of its pod's `exec`; see `run_in_container`."""

        @asynccontextmanager
        async def send(server: ApiServer, headers: CIMultiDict[str]) -> AsyncIterator[Exec | ApiError]:
            del headers["Accept"]  # a kubelet has no JSON to give here, and refuses who wants some (406)
            url, route = server._url(path, query), server._route()
            try:
                told: Exec | ApiError = await run_in_container(url, headers, route, what, timeout)
            except ApiError as error:
                told = error
            yield told

        async with self._sent("GET", path, query, send) as told:
            if isinstance(told, Exec):
                return told
        if told.reason:
            raise told
        try:  # the refusal of a WebSocket has no text, but that of a plain request has
            await self.request("GET", path, verb="exec in", what=what, query=query, timeout=timeout)
        except ApiError as error:
            raise error if error.status == told.status else told from None
        raise told

    def _open(
        self, method: str, path: str, query: Query | None, body: Any, content_type: str, timeout: float
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer to one request."""
        data = None if body is None else json.dumps(body).encode()
        limits = aiohttp.ClientTimeout(total=timeout, connect=min(timeout, 5.0))

        def send(server: ApiServer, headers: CIMultiDict[str]) -> AbstractAsyncContextManager[Any]:
            headers["Content-Type"] = content_type
            client = server._api.rest_client
            if client.pool_manager is None:
                client.pool_manager = client._create_pool_manager()
            options = {"headers": headers, "data": data, "timeout": limits, "allow_redirects": False}
            request = client.pool_manager.request
            sent: AbstractAsyncContextManager[Any] = request(
                method, server._url(path, query), **options, **server._route()
            )
            return sent

        return self._sent(method, path, query, send)

    @asynccontextmanager
    async def _sent(self, method: str, path: str, query: Query | None, send: Send) -> AsyncIterator[Any]:
        """The answer to what `send` sends; once more where only the credentials were too old.

        As the identity that this one acts as; what that one is denied, as our own user where it may be so.
        """
        if self._acting is not None:
            answered = False
            try:
                async with self._acting._sent(method, path, query, send) as answer:
                    if not fallback.wanted(answer.status):
                        answered = True
                        yield answer
            except ApiError:  # it is given no token any more
                if answered or not fallback.wanted(401):
                    raise
            if answered:
                return
        self._observe(method, path, query)
        for last in (False, True):
            used = await self._credentials.ready()
            async with send(self, await self._headers(method, path)) as answer:
                if answer.status != 401 or last or not await self._credentials.renew(used):
                    yield answer
                    return

    def _route(self) -> dict[str, Any]:
        """How every connection to the server is made: TLS, the name in its certificate, and the proxy."""
        client = self._api.rest_client
        secure = self.server.startswith("https:")
        return {
            "ssl": (self._credentials.ssl_context or client.ssl_context) if secure else True,
            "server_hostname": self._api.configuration.tls_server_name if secure else None,
            **self._proxy,
        }

    async def _headers(self, method: str, path: str) -> CIMultiDict[str]:
        headers = CIMultiDict({"Accept": "application/json", "User-Agent": "gameday"})
        headers.extend(self._credentials.impersonated)
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        keep_sent(headers)
        return headers

    def _observe(self, method: str, path: str, query: Query | None) -> None:
        if self._heard is not None:
            told = dict(query or ())
            fields = dict(f.partition("=")[::2] for f in str(told.get("fieldSelector", "")).split(","))
            found = Permission.of_request(method, path, fields, watch="watch" in told)
            if found is not None:
                self._heard.add(found)

    def _url(self, path: str, query: Query | None) -> URL:
        return URL(self.server + path + ("?" + urlencode(query) if query else ""), encoded=True)


def _failure(
    response: aiohttp.ClientResponse, data: bytes, verb: str, what: str, asked: str
) -> ApiError | WrongAnswer:
    """The error that an answer is. That an object is not there, only the API server itself may say."""
    status = response.status
    if status < 400:
        where = shorten(response.headers.get("Location", ""), 200)
        return WrongAnswer(
            f"cannot {asked}: it redirects to {where}: give the address of the API server itself"
        )
    wait = retry_after(response.headers.get("Retry-After", ""))
    password = response.request_info.headers.get("Authorization", "").startswith("Basic ")
    error = ApiError(verb, what, status, data, wait, password=password)
    if status in _DECIDED and not error.is_status and data.strip() != _NO_SUCH_PATH:
        return WrongAnswer(
            f"cannot {asked}: HTTP {status}, but not from an API server: {shorten(error.message, 80)!r}"
        )
    return error


def _is_about(error: ApiError, method: str, path: str) -> bool:
    """Whether a Status 404 is about the object of the path or its namespace, or the Role of a new binding.

    Source: k8s.io/apimachinery, pkg/api/errors, NewNotFound; its resource may name a subresource as well. An
    aggregated API server stores its objects with the same library. One that only computes values may leave
    out the details, as custom-metrics-apiserver does (pkg/provider, NewMetricNotFoundError); so does a proxy
    whose cluster is away, and nothing in the answer tells the two apart: no such 404 says "gone".
    """
    wanted, details = Permission.of_request(method, path, {}, watch=False), error.details
    if wanted is None or not error.is_status or not (name := details.get("name")):
        return False
    group, kind = str(details.get("group") or ""), str(details.get("kind") or "").partition("/")[0]
    if group == wanted.group == _RBAC and method == "POST":
        return True
    places = {(wanted.group, wanted.resource, wanted.name), ("", "namespaces", wanted.namespace)}
    return (group, kind, name) in places


def _served_as(path: str) -> tuple[str, str, str]:
    """The root of a path, its group and version, and its resource, as discovery lists them; "" for none."""
    root, *words = path.strip("/").split("/")
    size = 2 if root == "apis" else 1
    version, below = "/".join(words[:size]), words[size:]
    if len(below) > 2 and below[0] == "namespaces":
        below = below[2:]
    return root, version, "/".join(below[:1] + below[2:3])


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"has a certificate that is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"refused the connection ({error.os_error.strerror or error.os_error})"
    return f"broke off ({error or type(error).__name__})"
