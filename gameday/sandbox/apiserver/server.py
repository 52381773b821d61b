"""The HTTP side: one aiohttp server, its paths, tokens and streams, around the synchronous API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from gameday.sandbox.apiserver import crds, discovery, kubelets
from gameday.sandbox.apiserver.access import Access, Denial
from gameday.sandbox.apiserver.api import TOKEN_OF, Api
from gameday.sandbox.apiserver.collector import Collector
from gameday.sandbox.apiserver.control import Control
from gameday.sandbox.apiserver.failures import Failures
from gameday.sandbox.apiserver.objects import NAMESPACES, Objects, Write
from gameday.sandbox.apiserver.resources import Catalogue
from gameday.sandbox.apiserver.routes import Request, route
from gameday.sandbox.apiserver.status import (
    Refused,
    bad_request,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from gameday.sandbox.apiserver.store import Event, Store, Where, encode
from gameday.sandbox.apiserver.views import negotiate
from gameday.sandbox.apiserver.watching import DEFAULT_SECONDS, Watch, error_line

Json = dict[str, Any]
_BODY_LIMIT = 3 * 1024**2  # upstream's
log = logging.getLogger("gameday.sandbox")
_HEALTH = ("/healthz", "/readyz", "/livez")
SPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer:
    """A Kubernetes API server in this process.

    `token`: the bearer token that clients must send to be `user` (None: no token is needed, and one that is
    sent is taken for the user's name). `denials`: what is forbidden from the start. `window`: events kept per
    kind for watches that come late. `bookmark_every`: seconds between a watch's bookmarks. `uid`: that of the
    namespace kube-system, by which clusters are told apart; a random one when left out.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        user: str = "gameday",
        denials: Iterable[Denial] = (),
        window: int = 10_000,
        bookmark_every: float = 60.0,
        uid: str = "",
    ) -> None:
        self.store = Store(window)
        self.catalogue = Catalogue()
        self.objects = Objects(self.store, self.catalogue)
        self.access = Access(denials)
        self.failures = Failures()
        self._api = Api(self.objects, self.access)
        self._token, self._user = token, user
        self._bookmark_every = bookmark_every
        self._watches: set[Watch] = set()
        self._runner: web.ServerRunner | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._collector = Collector(self.objects)
        self._control = Control(self.failures, self.access, self.end_watches, self.forget_history)
        self.store.observers.append(lambda where, event: crds.observe(self.catalogue, where, event))
        self.store.observers.append(self._furnish)
        for name in SPACES:
            self._create_namespace(name)
        if uid and (system := self.store.get(NAMESPACES, "", "kube-system")):
            told = system.object | {"metadata": {**system.object["metadata"], "uid": uid}}
            self.store.put((NAMESPACES, "", "kube-system"), told)

    def _furnish(self, where: Where, event: Event) -> None:
        """Give a new namespace its service account, which upstream's pods are not admitted without."""
        if where[0] == NAMESPACES and event.kind == "ADDED":
            accounts = self.catalogue.find("", "v1", "serviceaccounts")
            assert accounts is not None
            self.objects.create(accounts, where[2], {"metadata": {"name": "default"}}, Write())

    def _create_namespace(self, name: str) -> None:
        spaces = self.catalogue.find("", "v1", "namespaces")
        assert spaces is not None
        self.objects.create(spaces, "", {"metadata": {"name": name}}, Write())

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve; answers the URL. Port 0 takes any free one."""
        self._collecting = asyncio.create_task(self._collector.run(), name="garbage collector")
        server = web.Server(
            self._handle,
            request_factory=_request,
            handler_cancellation=True,  # a client that goes away ends its watch
            keepalive_timeout=300.0,  # longer than clients keep a connection, so that none meets a closed one
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0]
        return f"http://{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """End every watch and stop serving."""
        self.end_watches()
        if self._runner:
            await self._runner.cleanup()
        if self._collecting:
            self._collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._collecting

    def end_watches(self) -> None:
        for watch in self._watches:
            watch.close()

    def forget_history(self) -> None:
        """As compaction does: what happened so far can no longer be watched or paged through."""
        for collection in self.store.collections.values():
            collection.events.clear()
            collection.floor = self.store.version
        self.store.start = self.store.version
        self._api.lister.expire()

    # -- requests ----------------------------------------------------------------------------------

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        path = http.path
        try:
            if path.startswith("/sandbox/"):
                return _json(200, encode(self._control.answer(http.method, path, await http.read())))
            if path in _HEALTH:
                return web.Response(text="ok")
            user = self._authenticate(http)
            document = discovery.document(self.catalogue, path) if http.method == "GET" else None
            if document is not None:
                await self._suffer(http, "get", user)
                return _json(200, encode(document))
            request = route(self.catalogue, http.method, path, http.query)
            request.user = user
            await self._suffer(http, request.verb, user)
            return await self._resource(http, request)
        except Refused as refused:
            return _refuse(refused)
        except web.HTTPRequestEntityTooLarge:
            message = f"Request entity too large: limit is {_BODY_LIMIT}"
            return _refuse(Refused(413, "RequestEntityTooLarge", message))
        except (
            Exception
        ) as error:  # a client learns of it as it would upstream; the connection stays in order
            log.exception("%s %s failed", http.method, path)
            return _refuse(Refused(500, "InternalError", f"Internal error occurred: {error!r}"))

    def _authenticate(self, http: web.BaseRequest) -> str:
        """The user's name; raises 401 for a wrong token."""
        token = http.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._token is None:
            return token.removeprefix(TOKEN_OF) or self._user
        if token != self._token:
            raise unauthorized()
        return self._user

    async def _suffer(self, http: web.BaseRequest, verb: str, user: str) -> None:
        """The failure that a test asked for, if one fits."""
        failure = self.failures.take(verb, http.path, user)
        if failure is None:
            return
        if failure.delay:
            await asyncio.sleep(failure.delay)
        if failure.drop:
            if http.transport:
                http.transport.abort()
            raise no_such_path()  # nobody hears it
        if failure.status:
            raise failure.refusal()

    async def _resource(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        self.access.check(request)
        request.accept = http.headers.get("Accept", "")
        if request.verb == "watch":
            return await self._stream(http, request)
        request.content_type = http.content_type if "Content-Type" in http.headers else ""
        request.agent = http.headers.get("User-Agent", "")
        if request.resource.plural == "pods" and request.subresource in kubelets.SUBRESOURCES:
            return await self._ask_kubelet(http, request)
        if http.body_exists:
            request.body = await http.read()
        code, body, warnings = self._api.answer(request)
        response = _json(code, body)
        for warning in warnings:
            response.headers.add("Warning", f'299 - "{warning}"')
        return response

    async def _ask_kubelet(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        if request.verb not in ("get", "create"):
            raise method_not_allowed()
        pod = self.objects.get(request.resource, request.namespace, request.name).object
        name = pod["spec"].get("nodeName")
        if not name and request.subresource == "log":
            return web.Response(content_type="text/plain")  # as upstream: nothing was said yet
        if not name:
            raise bad_request(f"pod {request.name} does not have a host assigned")
        nodes = self.catalogue.find("", "v1", "nodes")
        assert nodes is not None
        return await kubelets.ask(http, request.subresource, pod, self.objects.get(nodes, "", name).object)

    async def _stream(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        view = negotiate(request.accept, request.resource, request.query.get("includeObject", ""))
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache"}
        )
        response.enable_chunked_encoding()
        try:
            watch = Watch(self.store, request.resource, request.namespace, request.query, view)
        except Refused as refused:
            if refused.code != 410:
                raise
            await response.prepare(http)
            await response.write(error_line(refused.body()))
            return response
        seconds = float(request.query.get("timeoutSeconds") or DEFAULT_SECONDS)
        self._watches.add(watch)
        try:
            await response.prepare(http)
            async for chunk in watch.lines(seconds, self._bookmark_every):
                await response.write(chunk)
        except ConnectionError:
            pass  # the client went away
        finally:
            self._watches.discard(watch)
            watch.detach()
        return response


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: Any,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """A request as aiohttp makes it, with a higher limit for its body."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_BODY_LIMIT)


def _refuse(refused: Refused) -> web.Response:
    if refused.text:
        return web.Response(status=refused.code, text=refused.text)
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
    return _json(refused.code, encode(refused.body()), headers)


def _json(code: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=code, body=body, headers={"Content-Type": "application/json", **(headers or {})}
    )
