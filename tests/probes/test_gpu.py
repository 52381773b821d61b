"""The gpu probe on both platforms: a node whose status only the test writes, and pods that wait."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from gameday.extend import Measurement
from gameday.platform.devices import COUNT
from gameday.platform.errors import PlatformError
from gameday.platform.gpud import ADDRESS
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.world import World
from gameday.probes.gpu import Gpu, GpuSpec
from tests.platform.arrange import unique
from tests.support.polling import eventually

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
XID = "accelerator-nvidia-error-xid"


@pytest.fixture
async def node(kube: Kube) -> AsyncIterator[Ref]:
    """A node that no kubelet keeps; nothing is scheduled there."""
    name = unique("probed")
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"probed": name}},
        "spec": {"unschedulable": True},
    }
    ref = Ref.of(await kube.create(manifest))
    yield ref
    await kube.delete(ref)


async def ask(kube: Kube, node: Ref, namespaces: tuple[str, ...] = (), **spec: Any) -> Measurement:
    world = World(kube, node_selector=f"probed={node.name}", namespaces=namespaces)
    return await Gpu().measure(GpuSpec.model_validate(spec), world)


async def say(kube: Kube, node: Ref, **status: Any) -> None:
    await kube.patch(node, {"status": status}, "merge", subresource="status")


async def test_what_a_node_gives_out_and_what_it_has_lost(kube: Kube, node: Ref) -> None:
    await say(kube, node, capacity={"nvidia.com/gpu": "8"}, allocatable={"nvidia.com/gpu": "5"})
    assert (await ask(kube, node, count="allocatable")).series == ((node.name, 5.0),)
    assert (await ask(kube, node, count="lost")).series == ((node.name, 3.0),)
    # After five minutes a kubelet forgets the resource; the label remembers.
    await kube.patch(node, {"metadata": {"labels": {COUNT: "8"}}}, "merge")
    await say(kube, node, capacity={"nvidia.com/gpu": "0"}, allocatable={"nvidia.com/gpu": "0"})
    assert (await ask(kube, node, count="lost")).series == ((node.name, 8.0),)


async def test_mig_devices_count(kube: Kube, node: Ref) -> None:
    devices = {"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-3g.40gb": "2"}
    await say(kube, node, capacity=devices, allocatable=devices)
    assert (await ask(kube, node, count="allocatable")).series == ((node.name, 9.0),)


async def test_a_condition_that_nobody_reports_is_no_data(kube: Kube, node: Ref) -> None:
    assert (await ask(kube, node, condition="XIDErrors")).series == ()
    entry = {"type": "XIDErrors", "status": "True", "reason": "Found", "message": "XID 79 on GPU 3"}
    await say(kube, node, conditions=[entry])
    found = await ask(kube, node, condition="XIDErrors")
    assert found.series == ((node.name, "True"),)
    assert found.message == f"{node.name}: XID 79 on GPU 3"


async def test_pods_that_hold_gpus_and_pods_that_wait_for_them(kube: Kube, node: Ref) -> None:
    space = unique("waits")
    namespace = await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    container = {"name": "c", "image": "example.com/c:1", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    spec = {"containers": [container], "nodeSelector": {"nowhere": "true"}}
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", space)))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waits", "namespace": space}, "spec": spec}
    await kube.create(pod)
    asked = (space, "inference")
    waiting = dict((await ask(kube, node, asked, count="unschedulable")).series)
    assert waiting == {space: 2.0, "inference": 0.0}
    held = dict((await ask(kube, node, asked, count="requested")).series)
    assert held[space] == 0.0
    assert float(held["inference"]) > 0
    await kube.delete(Ref.of(namespace))
    await eventually(lambda: kube.find(Ref.of(namespace)), lambda found: found is None)


async def test_what_gpud_says(kube: Kube, node: Ref, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        if request.path == "/v1/events":
            event = {"time": "2026-01-01T00:00:00Z", "name": "error_xid", "type": "Fatal"}
            return web.json_response([{"component": XID, "events": [event, event]}, {"component": "cpu"}])
        states = [{"health": "Healthy"}, {"health": "Unhealthy", "reason": "XID 79"}]
        return web.json_response(
            [{"component": "cpu", "states": states[:1]}, {"component": XID, "states": states}]
        )

    monkeypatch.setenv(ADDRESS, await serve(answer))
    found = await ask(kube, node, gpud="states")
    assert found.series == ((node.name, "Unhealthy"),)
    assert found.message == f"{node.name}: {XID} is Unhealthy"
    assert (await ask(kube, node, gpud="states", component="cpu")).series == ((node.name, "Healthy"),)
    assert (await ask(kube, node, gpud="events", since="5m")).series == ((node.name, 2.0),)
    since = int(asked[-1].partition("startTime=")[2])
    assert 290 <= time.time() - since <= 330
    with pytest.raises(PlatformError, match="has no component gpu"):
        await ask(kube, node, gpud="states", component="gpu")


async def test_something_else_where_gpud_should_be(
    kube: Kube, node: Ref, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    monkeypatch.setenv(ADDRESS, await serve(answer))
    with pytest.raises(PlatformError, match="is no GPUd: it says"):
        await ask(kube, node, gpud="states")


async def test_no_annotation_steers_a_request(kube: Kube, node: Ref, serve: Serve) -> None:
    """Whoever may annotate nodes must not have us ask, or tell, a server of theirs."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response([])

    await kube.patch(node, {"metadata": {"annotations": {"gameday.dev/gpud": await serve(answer)}}}, "merge")
    with pytest.raises(PlatformError):
        await ask(kube, node, gpud="states")
    assert asked == []


async def test_a_gpud_that_is_not_there(kube: Kube, node: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    with pytest.raises(PlatformError, match=r"GPUd at http://127.0.0.1:9/v1/states does not answer"):
        await ask(kube, node, gpud="states")


@pytest.mark.fast
@pytest.mark.parametrize(
    "spec", [{}, {"count": "lost", "condition": "XIDErrors"}, {"count": "lost", "component": "cpu"}]
)
def test_one_question(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected"):
        GpuSpec.model_validate(spec)
