"""Brings a whole platform up in this process, tells when it is ready, and takes it down again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, condition, is_ready, is_true
from gameday.platform.prometheus import Prometheus as Client
from gameday.sandbox.apiserver import ApiServer, write_kubeconfig
from gameday.sandbox.cache import Cache
from gameday.sandbox.controllers import FOLLOWED as BY_CONTROLLERS
from gameday.sandbox.controllers import run_controllers
from gameday.sandbox.fleet import FOLLOWED as BY_FLEET
from gameday.sandbox.fleet import Fleet, FleetOptions
from gameday.sandbox.fleet.metrics import NAMESPACES
from gameday.sandbox.prometheus import Prometheus
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.web import Switch, Web

FEWEST_NODES = 4  # GPU nodes that the workloads fit on
HEARTBEAT, BEATS = 2.0, 25  # on the embedded API: seconds between a node's, and how many a second in all
REAL_HEARTBEAT, REAL_BEATS = 10.0, 150  # a real controller manager gives a node 50 seconds
CONTEXT = "gameday-sandbox"
READY_WITHIN = 90.0  # seconds
MEASURED = (  # a window of ten seconds is full, so that rates in it are what they will be
    "count_over_time(training_samples_total[10s]) >= 9",
    "histogram_quantile(0.99, sum by (le) (rate(inference_request_duration_seconds_bucket[10s]))) > 0",
    'count(up{job="inference"} == 1) >= 12',
    'kube_node_spec_unschedulable{node="gpu-0"} >= 0',
)


class NotReady(Exception):
    """The platform did not come up; the text says what is missing."""


@dataclass(frozen=True)
class Options:
    """What to bring up. Without a kubeconfig, an embedded API server and its controllers too."""

    directory: Path
    nodes: int = 8
    kubeconfig: Path | None = None
    context: str | None = None
    prometheus: bool = True
    workloads: bool = True
    without: frozenset[str] = frozenset()  # of fleet.SIMULATED


@asynccontextmanager
async def platform(options: Options, say: Callable[[str], None]) -> AsyncIterator[Object]:
    """A running platform, described as in the JSON line. Raises NotReady, PrometheusError, PlatformError."""
    started = time.monotonic()
    options.directory.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        embedded = options.kubeconfig is None
        server = ApiServer() if embedded else None
        kubeconfig = options.kubeconfig or options.directory / "kubeconfig"
        if server is not None:
            say("starting the API server")
            write_kubeconfig(kubeconfig, await server.start(), CONTEXT)
            stack.push_async_callback(server.stop)
        connecting = Kube.connect(
            kubeconfig, options.context, patience=0.0
        )  # who waits decides anew each time
        kube = await stack.enter_async_context(await connecting)
        kube.write_as("sandbox")
        fleet = _fleet(kube, options, embedded)
        certificate = options.directory / "kubelet.crt" if kube.server.startswith("https:") else None
        await fleet.kubelet_api.start(certificate)
        stack.push_async_callback(fleet.kubelet_api.stop)
        await fleet.slurm.restd.start()
        stack.push_async_callback(fleet.slurm.restd.stop)
        web = Web(fleet)
        await web.start()
        fleet.address = web.address
        stack.push_async_callback(web.stop)
        prometheus = Prometheus(options.directory / "prometheus", web.address, web.pages.jobs())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(_run(fleet, embedded))]
        stack.callback(lambda: [task.cancel() for task in running])
        if server is not None:
            web.switches["api"] = _api_switch(server, kube.server)
        starting = None
        if options.prometheus:
            web.switches["prometheus"] = lambda on: prometheus.start() if on else prometheus.stop()
            stack.push_async_callback(prometheus.stop)
            starting = tasks.create_task(_start(prometheus, web))
        try:
            async with asyncio.timeout(READY_WITHIN):
                await _until_ready(fleet, options, say)
                web.live = True
                fleet.meter.go_live()
                if starting is not None:
                    say("waiting for the first measurements")
                    await starting
                    await _until_measured(prometheus, options)
        except TimeoutError:
            raise NotReady(_what_is_missing(fleet)) from None
        gc.collect()
        gc.freeze()  # thousands of nodes are here to stay: collections needn't walk through them
        say(f"ready after {time.monotonic() - started:.1f} s")
        yield {
            "kubeconfig": str(kubeconfig),
            "context": kube.context,
            "api": kube.server,
            "prometheus": prometheus.url if options.prometheus else "",
            "gpud": f"http://{web.address}/gpud/{{node}}",
            "slurm": fleet.slurm.restd.url,
            "slurmToken": fleet.slurm.tokens.token(),
            "metrics": f"http://{web.address}/metrics",
            "control": f"http://{web.address}/control",
            "directory": str(options.directory),
        }


def _fleet(kube: Kube, options: Options, embedded: bool) -> Fleet:
    nodes = options.nodes + 2
    heartbeat = max(HEARTBEAT, nodes / BEATS) if embedded else max(REAL_HEARTBEAT, nodes / REAL_BEATS)
    cache = Cache(kube)
    settings = FleetOptions(
        gpu_nodes=options.nodes,
        heartbeat=heartbeat,
        workloads=options.workloads,
        without=options.without,
    )
    return Fleet(cache, Recorder(kube), settings)


async def _run(fleet: Fleet, embedded: bool) -> None:
    followed = BY_FLEET | (BY_CONTROLLERS if embedded else {})
    async with asyncio.TaskGroup() as group:
        for kind, api_version in followed.items():
            group.create_task(fleet.cache.follow(api_version, kind))
        group.create_task(fleet.recorder.run())
        if embedded:
            grace = 4 * fleet.options.heartbeat
            group.create_task(run_controllers(fleet.cache, fleet.recorder, grace))
        group.create_task(fleet.run())
        await fleet.install()


async def _start(prometheus: Prometheus, web: Web) -> None:
    await prometheus.begin(web.pages.history(web.address))
    await prometheus.start()


def _api_switch(server: ApiServer, url: str) -> Switch:
    host, _, port = url.removeprefix("http://").partition(":")

    async def switch(on: bool) -> None:
        if on:
            await server.start(host, int(port))
        else:
            await server.stop()

    return switch


async def _until_ready(fleet: Fleet, options: Options, say: Callable[[str], None]) -> None:
    """Every node, and every workload's pods, Ready."""
    cache = fleet.cache
    say(f"waiting for {fleet.options.gpu_nodes + fleet.options.cpu_nodes} nodes")
    names = [f"gpu-{i}" for i in range(options.nodes)]
    await cache.until(["Node"], lambda: all(is_ready(cache.get("Node", ("", n)) or _NOTHING) for n in names))
    if not options.workloads:
        return
    say("waiting for the workloads")
    await cache.until(["Deployment", "Pod", "Job", "Machine"], lambda: _workloads_ready(cache))


_NOTHING: Object = {"metadata": {}}


def _workloads_ready(cache: Cache) -> bool:
    needed = (("inference", "inference"), ("platform", "job-queue-controller"), ("slurm", "slurm-controller"))
    for key in needed:
        deployment = cache.get("Deployment", key)
        if deployment is None or not is_true(deployment, "Available"):
            return False
        if deployment["status"].get("availableReplicas") != deployment["spec"]["replicas"]:
            return False
    if not all(is_ready(m) for m in cache.all("Machine")) or not cache.all("Machine"):
        return False
    workers = [p for p in cache.all("Pod", "training") if is_ready(p)]
    daemons = [p for p in cache.all("Pod", "chaos-mesh") if is_ready(p)]
    return len(workers) >= 4 and len(daemons) >= len(cache.all("Node"))


def _what_is_missing(fleet: Fleet) -> str:
    """For people: what was still not Ready when patience ended."""
    cache = fleet.cache
    waiting = [f"node {n['metadata']['name']}" for n in cache.all("Node") if not is_ready(n)]
    for namespace in NAMESPACES:
        for pod in cache.all("Pod", namespace):
            if not is_ready(pod):
                reason = condition(pod, "PodScheduled").get("message") or "not Ready"
                waiting.append(f"pod {namespace}/{pod['metadata']['name']} ({reason})")
    told = "; ".join(waiting[:5]) or "Prometheus' first measurements (see prometheus/prometheus.log)"
    return f"the platform did not get ready within {READY_WITHIN:.0f} s; still missing: {told}"


async def _until_measured(prometheus: Prometheus, options: Options) -> None:
    """Every rule evaluated over data that are there, all at the same moment: the made-up past grows old."""
    wanted = MEASURED if options.workloads else MEASURED[-1:]
    async with Client(prometheus.url) as client:
        while not all([await client.instant(e) for e in wanted]):  # noqa: ASYNC110 - nobody tells of a scrape
            await asyncio.sleep(0.1)
