"""A cluster that is too old to resize pods in place is told so, with its version."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gameday.extend import PlanError
from gameday.faults.pod_resize import PodResize, PodResizeSpec
from gameday.platform.kube import Kube
from gameday.platform.world import World

FAULT = PodResize()


@pytest.fixture
async def old_cluster(tmp_path: Path) -> AsyncIterator[Kube]:
    """An API server of 1.30, as far as discovery goes: none that old can be had here."""

    async def discovery(_: web.Request) -> web.Response:
        names = ("pods", "pods/status", "pods/eviction")
        listed = [{"name": n, "kind": "Pod", "namespaced": True, "verbs": ["get"]} for n in names]
        return web.json_response({"kind": "APIResourceList", "resources": listed})

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "30", "gitVersion": "v1.30.14"})

    app = web.Application()
    app.router.add_get("/api/v1", discovery)
    app.router.add_get("/version", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    named = {"name": "old", "cluster": {"server": f"http://{host}:{port}"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [named],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "u"}}],
        "current-context": "old",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    async with await Kube.connect(file) as kube:
        yield kube
    await runner.cleanup()


@pytest.mark.fast
async def test_a_cluster_without_the_subresource_is_refused(old_cluster: Kube) -> None:
    spec = PodResizeSpec.model_validate({"selector": "app=inference", "namespace": "inference", "cpu": "50%"})
    with pytest.raises(
        PlanError, match=r"old serves no pods/resize: .* from Kubernetes 1\.33 on.* v1\.30\.14"
    ):
        await FAULT.plan(spec, World(old_cluster, namespaces=("inference",)))
