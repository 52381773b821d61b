"""The Prometheus that a file names, with the headers of file and command line, as `gameday plan` asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.e2e.experiments import SCALE, write
from tests.support.program import Program

STEP = {**SCALE, "for": "1s"}
UP = {"name": "up", "prometheus": "vector(1)", "is": "== 1"}
TARGET = {"context": "gameday-.*", "namespaces": ["platform"]}
NO_RULES = {"alerts": ['severity="critical"']}


async def mimir(request: web.Request) -> web.Response:
    """As Mimir answers without a tenant; one that is asked for everything has no rules and no alerts."""
    if not request.headers.get("X-Scope-OrgID"):
        return web.Response(status=401, text="no org id")
    if request.path.endswith("rules"):
        return web.json_response({"status": "success", "data": {"groups": []}})
    query = str((await request.post()).get("query", ""))
    result = [] if "ALERTS" in query else [{"metric": {}, "value": [1, "1"]}]
    data = {"resultType": "vector", "result": result}
    return web.json_response({"status": "success", "data": data})


async def test_a_tenant_is_named_by_file_or_flag_and_never_shown(gameday: Program, tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", mimir)
    server = TestServer(app)
    await server.start_server()
    try:
        reached = {"url": str(server.make_url("/prometheus"))}
        tenant = {"headers": {"X-Scope-OrgID": {"secretFrom": {"env": "ACME_TENANT"}}}}
        env = {"GAMEDAY_PROMETHEUS_URL": "", "ACME_TENANT": "tenant-4f77a1"}

        async def plan(prometheus: object, *flags: str, **spec: object) -> tuple[int, str]:
            target = {**TARGET, "prometheus": prometheus}
            file = write(tmp_path, method=[STEP], target=target, steadyState=[UP], **spec)
            ended = await asyncio.to_thread(gameday, "plan", file, *flags, env=env)
            assert "tenant-4f77a1" not in ended.output
            return ended.code, " ".join(ended.output.split())

        code, said = await plan(reached)
        assert code == 4
        assert "it wants to know the tenant: give --prometheus-header X-Scope-OrgID=" in said
        assert (await plan({**reached, **tenant}))[0] == 0
        assert (await plan(reached, "--prometheus-header", "X-Scope-OrgID=env:ACME_TENANT"))[0] == 0
        code, said = await plan({**reached, **tenant}, noGo=NO_RULES)
        assert code == 4
        assert "whether an alert fires can't be known" in said
        assert "spec.target.prometheus.rulesUrl" in said
        code, said = await plan(reached, "--prometheus-header", "X-Scope-OrgID=env:NOWHERE_AT_ALL")
        assert (code, "$NOWHERE_AT_ALL is empty, or not set" in said) == (2, True)
    finally:
        await server.close()
