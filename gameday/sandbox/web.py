"""The sandbox's own HTTP side: metrics pages for Prometheus, and switches for tests and trainers.

GET  /metrics                          all pages at once
GET  /metrics/JOB                      one exporter's page
GET  /metrics/inference/POD            one inference pod's page
GET  /targets/inference                the inference pods, as Prometheus' HTTP discovery wants them
     /gpud/NODE/v1/...                  a node's GPUd
POST /control/prometheus/stop|start
POST /control/slurm/stop|start         slurmctld goes away and comes back, state kept
POST /control/api/stop|start           the embedded API server goes away and comes back, state kept
POST /control/nodes/NODE/stop|start    a node loses power: no signs of life, its pods are silent
POST /control/pods/NAMESPACE/POD/restart
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gameday.sandbox.fleet import Fleet
from gameday.sandbox.fleet.exposition import text_of
from gameday.sandbox.fleet.gpud import Gpud
from gameday.sandbox.fleet.kubelet import pod_address
from gameday.sandbox.fleet.metrics import WORKLOADS, Pages
from gameday.sandbox.fleet.slurm import JOB as SLURM

Switch = Callable[[bool], Awaitable[None]]  # on or off


class Web:
    """Serves on a free port of this machine."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._runner: web.AppRunner | None = None
        self.pages = Pages(fleet.cache, fleet.meter, fleet.kubelets.lives, {SLURM: fleet.slurm.metrics})
        self.live = False  # until then only what has a past is scraped: no alert fires while things start
        self.address = ""
        self.switches: dict[str, Switch] = {"slurm": fleet.slurm.switch}  # and prometheus, api

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._everything)
        app.router.add_get("/metrics/inference/{pod}", self._inference_pod)
        app.router.add_get("/metrics/{job}", self._page)
        app.router.add_get("/targets/inference", self._targets)
        app.router.add_post("/control/nodes/{node}/{way:stop|start}", self._node)
        app.router.add_post("/control/pods/{namespace}/{pod}/restart", self._restart)
        app.router.add_post("/control/{what:prometheus|api|slurm}/{way:stop|start}", self._switch)
        app.router.add_routes(Gpud(self._fleet.gpus).routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # -- metrics -------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        page = self.pages.jobs().get(job)
        # The workloads' made-up past goes on until they run; the rest would tell of a platform half built.
        if page is None or not (self.live or job in WORKLOADS):
            return web.Response(status=404 if self.live else 503, text="no such page, or not yet\n")
        self._fleet.meter.advance()
        return web.Response(text=text_of(page()))

    async def _everything(self, request: web.Request) -> web.Response:
        self._fleet.meter.advance()
        return web.Response(text="".join(text_of(page()) for page in self.pages.jobs().values()))

    async def _inference_pod(self, request: web.Request) -> web.Response:
        self._fleet.meter.advance()
        page = self.pages.inference_pod(request.match_info["pod"])
        if page is None or not self.live:
            return web.Response(status=503, text="nobody answers at this pod's address\n")
        return web.Response(text=text_of(page))

    async def _targets(self, request: web.Request) -> web.Response:
        groups: list[dict[str, Any]] = []
        for pod in self.pages.inference_targets():
            name = pod["metadata"]["name"]
            labels = {
                "__metrics_path__": f"/metrics/inference/{name}",
                "instance": f"{pod_address(pod)}:8000",
            }
            labels |= {"namespace": "inference", "pod": name, "node": pod["spec"]["nodeName"]}
            groups.append({"targets": [self.address], "labels": labels})
        return web.json_response(groups)

    # -- control -------------------------------------------------------------------------------

    async def _switch(self, request: web.Request) -> web.Response:
        switch = self.switches.get(request.match_info["what"])
        if switch is None:
            return web.json_response(
                {"error": f"this sandbox has no {request.match_info['what']}"}, status=404
            )
        await switch(request.match_info["way"] == "start")
        return web.json_response({})

    async def _node(self, request: web.Request) -> web.Response:
        name, on = request.match_info["node"], request.match_info["way"] == "start"
        if self._fleet.cache.get("Node", ("", name)) is None:
            return web.json_response({"error": f"there is no node {name}"}, status=404)
        self._fleet.switch_node(name, on=on)
        return web.json_response({})

    async def _restart(self, request: web.Request) -> web.Response:
        await self._fleet.kubelets.restart((request.match_info["namespace"], request.match_info["pod"]))
        return web.json_response({})
