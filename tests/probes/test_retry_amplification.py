"""The `retryAmplification` probe on both platforms: 1 in peace, more when a server fails, or no data."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.prometheus import Prometheus
from gameday.platform.world import World
from gameday.probes.base import Measurement
from gameday.probes.retry_amplification import RetryAmplification
from tests.support.platforms import Platform
from tests.support.polling import eventually

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
