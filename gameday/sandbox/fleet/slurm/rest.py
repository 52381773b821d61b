"""The simulated slurmctld's slurmrestd: the paths that we use of v0.0.44 and v0.0.45, with tokens checked.

Its answers have the shape of Slurm 26.05's: `meta`, `errors`, `warnings` beside the data; a no comes with
`errors` and status 500; a token that is not accepted with a bare 401.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gameday.platform.objects import Object
from gameday.sandbox.fleet.slurm.controller import Controller, Refusal
from gameday.sandbox.fleet.slurm.tokens import Tokens

OLDER, NEWEST = "v0.0.44", "v0.0.45"
AWAY = Refusal(1800, "Unable to contact slurm controller (connect failure)")
_META = {
    "plugin": {"type": "openapi/slurmctld", "name": "Slurm OpenAPI slurmctld"},
    "slurm": {"release": "26.05"},
}
Handler = Callable[[web.Request], Awaitable[Object]]


class SlurmRestd:
    """Serves on a free port of this machine."""

    def __init__(self, controller: Controller, tokens: Tokens) -> None:
        self._controller, self._tokens = controller, tokens
        self._runner: web.AppRunner | None = None
        self._paths: dict[str, dict[str, Any]] = {}  # of the OpenAPI document
        self.url = ""

    async def start(self) -> None:
        app = web.Application(middlewares=[self._checked])
        add = app.router.add_get
        add("/openapi/v3", self._openapi)
        for version in (OLDER, NEWEST):
            self._serve(app, "GET", f"/slurm/{version}/nodes/", self._nodes)
            self._serve(app, "GET", f"/slurm/{version}/jobs/", self._jobs)
            self._serve(app, "GET", f"/slurm/{version}/partitions/", self._partitions)
            self._serve(app, "POST", f"/slurm/{version}/node/{{node_name}}", self._update_node)
        self._serve(app, "POST", f"/slurm/{NEWEST}/partitions/", self._update_partitions)
        self._serve(app, "GET", f"/slurm/{NEWEST}/job/{{job_id}}/requeue", self._requeue)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _serve(self, app: web.Application, method: str, path: str, handler: Handler) -> None:
        """With and without a slash at the end, as slurmrestd does."""

        async def answer(request: web.Request) -> web.Response:
            try:
                if not self._controller.on:
                    raise AWAY
                data, errors, status = await handler(request), [], 200
            except Refusal as no:
                error = {"description": "", "error": no.text, "error_number": no.number, "source": path}
                data, errors, status = {}, [error], 500
            body = {**data, "meta": _META, "errors": errors, "warnings": []}
            return web.json_response(body, status=status)

        self._paths.setdefault(path, {})[method.lower()] = {"responses": {"200": {"description": "OK"}}}
        for route in {path, path.rstrip("/")}:
            app.router.add_route(method, route, answer)

    @web.middleware
    async def _checked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        token = request.headers.get("X-SLURM-USER-TOKEN", "")
        if not token or not self._tokens.accepts(token, request.headers.get("X-SLURM-USER-NAME", "")):
            return web.Response(status=401, text="Authentication failure")
        return await handler(request)

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"openapi": "3.0.3", "info": {"title": "Slurm REST API"}, "paths": self._paths}
        )

    async def _nodes(self, _: web.Request) -> Object:
        return {"nodes": self._controller.nodes()}

    async def _jobs(self, _: web.Request) -> Object:
        return {"jobs": self._controller.jobs()}

    async def _partitions(self, _: web.Request) -> Object:
        return {"partitions": self._controller.partitions()}

    async def _update_node(self, request: web.Request) -> Object:
        body = await _body(request)
        state = (body.get("state") or [""])[0]
        self._controller.update_node(request.match_info["node_name"], state, body.get("reason") or "")
        return {}

    async def _update_partitions(self, request: web.Request) -> Object:
        for wanted in (await _body(request)).get("partitions") or ():
            self._controller.update_partition(wanted["name"], wanted["partition"]["state"][0])
        return {}

    async def _requeue(self, request: web.Request) -> Object:
        number = request.match_info["job_id"]
        await self._controller.requeue(int(number) if number.isdigit() else 0)
        return {"status": []}


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(9202, "Unable to parse the request's body")
    return body
