"""What keeps a run from beginning: alerts, updates, no room, a signal from elsewhere, and approvals."""

from __future__ import annotations

import asyncio
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gameday.platform.devices import requests
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import SIGNING_REQUESTS
from gameday.safety.nogo import updating
from tests.e2e.experiments import SCALE, write
from tests.safety.test_effects import NODES, made, plan, refused, running_on
from tests.safety.test_gate import keep, run
from tests.support.program import Ended, Program
from tests.support.promlike import PrometheusLike
from tests.support.snapshot import Snapshot

STEP = {**SCALE, "for": "1s"}


async def test_an_alert_that_fires(gameday: Program, tmp_path: Path) -> None:
    """And one of another name that does not; a matcher that is none is refused as well."""
    file = write(tmp_path, method=[STEP], noGo={"alerts": ['alertname="NoSuchAlert"']})
    ended = await asyncio.to_thread(gameday, "plan", file)
    assert ended.code == 0, ended.output
    prometheus = PrometheusLike()
    url = await prometheus.start()
    metric = {"alertname": "GpuDown", "alertstate": "firing"}
    data = {"resultType": "vector", "result": [{"metric": metric, "value": [0, "1"]}]}
    prometheus.lie = json.dumps({"status": "success", "data": data}).encode()
    refused(
        await asyncio.to_thread(gameday, "plan", file, env={"GAMEDAY_PROMETHEUS_URL": url}),
        'alert GpuDown fires (alertname="NoSuchAlert")',
    )
    await prometheus.stop()
    pytest.importorskip("promql_parser")
    broken = await plan(gameday, tmp_path, STEP, noGo={"alerts": ['severity=="critical"']})
    assert (broken.code, "is no PromQL: unexpected '='" in broken.output) == (2, True)


async def test_a_signal_from_elsewhere(gameday: Program, tmp_path: Path) -> None:
    status = [423]

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/freeze"
    try:
        refused(await plan(gameday, tmp_path, STEP, noGo={"url": url}), f"{url} answered 423")
        status[0] = 204
        ended = await plan(gameday, tmp_path, STEP, noGo={"url": url})
        assert ended.code == 0, ended.output
    finally:
        server.shutdown()
        server.server_close()
    refused(await plan(gameday, tmp_path, STEP, noGo={"url": url}), f"{url} did not answer")


@pytest.mark.parametrize("where", ["nvsentinel", "elsewhere"])
async def test_a_circuit_breaker_of_nvsentinel(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot, where: str
) -> None:
    """In its usual namespace nobody needs to name it; elsewhere, one that is not there is no closed one."""
    more = {} if where == "nvsentinel" else {"noGo": {"nvsentinel": where}}

    async def planned() -> Ended:
        return await plan(gameday, tmp_path, STEP, **more)

    unknown = await planned()
    if more:
        refused(unknown, "nobody knows whether NVSentinel's circuit breaker has tripped")
    else:
        assert unknown.code == 0, unknown.output
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where}}
    meta = {"name": "circuit-breaker", "namespace": where}
    breaker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"status": "TRIPPED"}}
    async with made(kube, space), made(kube, breaker) as ref:
        refused(await planned(), "NVSentinel's circuit breaker is TRIPPED")
        await kube.patch(ref, {"data": {"status": "CLOSED"}}, "merge")
        closed = await planned()
        assert closed.code == 0, closed.output
        await kube.patch(ref, {"data": {"status": None}}, "merge")
        refused(await planned(), "circuit breaker is in no state that is known")


async def test_an_image_that_nobody_can_approve(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A privileged image with a tag is warned about; where somebody must approve, it is refused."""
    shutdown = {"nodeShutdown": {"nodes": {"names": ["gpu-0"]}}, "for": "20s"}
    target = {"namespaces": ["platform"], "nodes": NODES}
    program = {"image": "registry.example/python@sha256:" + "0" * 64}
    spec = {"target": target, "blastRadius": {"nodes": 1, "gpus": 8}}
    warned = await plan(gameday, tmp_path, shutdown, **spec)
    assert "its tag may be moved" in " ".join(warned.output.split())
    before = warned.code
    approvals = {"required": 1}
    refused(
        await plan(gameday, tmp_path, shutdown, **spec, approvals=approvals),
        "its tag may be moved after the plan was approved",
    )
    spec["target"] = target | {"nodeProgram": program}
    pinned = await plan(gameday, tmp_path, shutdown, **spec, approvals=approvals)
    assert pinned.code == before == 0, pinned.output
    assert "its tag may be moved" not in " ".join(pinned.output.split())


async def test_too_little_room_for_what_is_drained(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    asks = {"requests": {"memory": "900000Gi"}}
    containers = [{"name": "main", "image": "none", "resources": asks}]
    drain = {"drain": {"nodes": {"names": ["gpu-0"]}, "force": True}, "for": "1s"}
    target = {"namespaces": ["platform", "training", "inference", "default"], "nodes": NODES}
    spec = {"target": target, "blastRadius": {"nodes": 1, "gpus": 8}}
    async with running_on(kube, "gpu-0", "default", containers=containers):
        refused(
            await plan(gameday, tmp_path, drain, noGo={"spareCapacity": True}, **spec),
            "the other nodes have no room",
            "memory 9000",
        )
        warned = await plan(gameday, tmp_path, drain, **spec)
        assert warned.code == 0, warned.output
        assert "the other nodes have no room" in " ".join(warned.output.split())


async def test_an_approval_of_just_this_plan(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[STEP], approvals={"required": 1})
    refused(await run(gameday, file), "1 must approve the plan before it is run")
    kept = await keep(gameday, file)
    refused(await run(gameday, file, "--plan", kept), "1 approvals are required, approved by nobody")
    try:
        assert (await asyncio.to_thread(gameday, "approve", kept, file, "--yes", "--for", "10m")).code == 0
        again = await keep(gameday, file, "--seed", "4711")
        refused(await run(gameday, file, "--plan", again), "1 approvals are required, approved by nobody")
        kept.write_text(kept.read_text().replace('"seed": ', '"seed": 1'))
        forged = await asyncio.to_thread(gameday, "approve", kept, file, "--yes")
        assert forged.code == 2
        assert "changed after it was made" in forged.output
    finally:
        for found in await kube.list(SIGNING_REQUESTS):
            if found["metadata"]["name"].startswith("gameday-approval-"):
                await kube.delete(Ref.of(found))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ({"kind": "Deployment", "status": {"replicas": 3, "updatedReplicas": 3}}, ""),
        ({"kind": "Deployment", "status": {"replicas": 4, "updatedReplicas": 1}}, "3 pods of"),
        (
            {
                "kind": "Deployment",
                "status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            },
            "stuck",
        ),
        ({"kind": "StatefulSet", "status": {"currentRevision": "a", "updateRevision": "b"}}, "two revisions"),
        (
            {
                "kind": "DaemonSet",
                "status": {"desiredNumberScheduled": 4, "updatedNumberScheduled": 3},
            },
            "1 node",
        ),
        ({"kind": "ReplicaSet", "status": {}}, ""),
        ({"kind": "Deployment", "metadata": {"generation": 2}, "status": {}}, "nobody knows"),
        (
            {"kind": "StatefulSet", "metadata": {"generation": 2}, "status": {"observedGeneration": 1}},
            "nobody knows",
        ),
    ],
)
def test_an_update_under_way(obj: Object, words: str) -> None:
    why = updating(obj)
    assert bool(why) == bool(words)
    assert words in why


@pytest.mark.fast
def test_what_a_pod_reserves() -> None:
    """As the scheduler counts: sidecars add up, also beside the largest of the other init containers."""

    def container(cpu: str, **more: str) -> Object:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), {"resources": {"limits": {"nvidia.com/gpu": "2"}}}],
        "initContainers": [container("500m", restartPolicy="Always"), container("4")],
        "overhead": {"cpu": "250m"},
    }
    assert requests({"spec": spec}) == {"cpu": 4.75, "nvidia.com/gpu": 2.0}
