"""The `retryAmplification` probe on both platforms: 1 in peace, more when a server fails, or no data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest
from aiohttp import web

from gameday.extend import Measurement
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.prometheus import Prometheus
from gameday.platform.world import World
from gameday.probes.retry_amplification import RetryAmplification
from tests.support.answering import Handler
from tests.support.platforms import Platform
from tests.support.polling import eventually

Serve = Callable[[Handler], Awaitable[str]]
PROBE = RetryAmplification()


@pytest.fixture
async def world(platform: Platform, kube: Kube) -> AsyncIterator[World]:
    async with Prometheus(platform.prometheus_url) as client:
        yield World(kube, client)


async def _measure(world: World, service: str = "inference") -> Measurement:
    asked = {"service": service, "namespace": "inference", "window": "5s"}
    return await PROBE.measure(PROBE.Spec.model_validate(asked), world)


def _value(measured: Measurement) -> float:
    ((name, value),) = measured.series
    assert (name, type(value)) == ("", float)
    return float(value)


async def test_retries_are_counted_while_a_server_fails(kube: Kube, world: World) -> None:
    await eventually(lambda: _measure(world), lambda m: _value(m) == pytest.approx(1.0, abs=0.01))
    selector = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
    cut: Object = {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": {"name": "retries", "namespace": "inference"},
        "spec": {
            "action": "partition",
            "mode": "fixed",
            "value": "3",
            "selector": selector,
            "duration": "60s",
        },
    }
    ref = Ref.of(await kube.create(cut))
    try:
        seen = await eventually(lambda: _measure(world), lambda m: _value(m) > 1.4)
        assert "attempts/s" in seen.message
    finally:
        await kube.delete(ref)
    await eventually(lambda: _measure(world), lambda m: _value(m) == pytest.approx(1.0, abs=0.01))


async def test_a_service_that_nobody_calls_is_no_data(world: World) -> None:
    measured = await _measure(world, "nobody")
    assert measured.series == ()
    assert "no requests to inference/nobody in the last 5s" in measured.message


@pytest.mark.parametrize(("told", "value"), [(None, None), ("0", 0.0), ("20", 2.0)])
async def test_a_service_without_proxies_is_not_one_without_attempts(
    told: str | None, value: float | None, serve: Serve
) -> None:
    """Read as 0 attempts for each request it would be healthier than any other."""

    async def answer(request: web.Request) -> web.Response:
        query = request.query.get("query") or (await request.post())["query"]
        number = "10" if 'reporter="source"' in str(query) else told
        result = [{"metric": {}, "value": [0, number]}] if number else []
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    async with Prometheus(await serve(answer)) as client:
        measured = await _measure(World(cast(Kube, None), client))
    assert measured.series == (() if value is None else (("", value),))
    assert value is not None or "no proxy of inference/inference tells" in measured.message
