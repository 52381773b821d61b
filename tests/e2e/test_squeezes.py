"""Less CPU, less quota, faults in the mesh: each takes effect, is put back, and refuses nonsense."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.support.monitoring import Wire
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about the machine that gameday runs on")

RESIZE = {"podResize": {"selector": "app=inference", "namespace": "inference", "pick": 2, "cpu": "50%"}}
QUOTA = {"quota": {"name": "compute", "namespace": "inference", "hard": {"pods": "50%"}}}
MESH = {
    "istio": {
        "virtualService": "inference",
        "namespace": "inference",
        "abort": {"httpStatus": 503, "percentage": 20},
    }
}
ALL = pytest.mark.parametrize("fault", [RESIZE, QUOTA, MESH], ids=["podResize", "quota", "istio"])
SERVICE = Ref("networking.istio.io/v1", "VirtualService", "inference", "inference")
COMPUTE = Ref("v1", "ResourceQuota", "compute", "inference")


async def _resources(kube: Kube) -> dict[str, Object]:
    """What each inference container really has, by pod."""
    pods = await kube.list(PODS, "inference", labels="app=inference")
    started = [p for p in pods if p["status"].get("containerStatuses")]
    return {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["resources"] for p in started}


async def _state(kube: Kube) -> list[Any]:
    return [
        await _resources(kube),
        (await kube.get(COMPUTE))["status"]["hard"],
        (await kube.get(SERVICE))["spec"],
    ]


@ALL
async def test_an_abort_puts_it_back(
    fault: dict[str, Any], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _state(kube)
    with gameday.started(write(tmp_path, method=[{**fault, "for": "60s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        assert await _state(kube) != before
        run.signal(signal.SIGINT)
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (130, "interrupted"), ended.output
    assert await _state(kube) == before
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


@ALL
async def test_killed_and_recovered_elsewhere(
    fault: dict[str, Any], gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _state(kube)
    with gameday.started(write(tmp_path, method=[{**fault, "for": "60s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        assert await _state(kube) != before
        name = run.kill()
    recovered = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert recovered.code == 0, recovered.output
    await eventually(lambda: _state(kube), lambda now: now == before)


async def test_resized_pods_are_not_restarted_and_have_less(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    def restarts(pods: list[Object]) -> dict[str, int]:
        return {p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["restartCount"] for p in pods}

    pods = restarts(await kube.list(PODS, "inference", labels="app=inference"))
    with gameday.started(write(tmp_path, method=[{**RESIZE, "for": "3s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        has = [(r["limits"]["cpu"], r["requests"]["cpu"]) for r in (await _resources(kube)).values()]
        assert sorted(has)[:3] == [("4", "2"), ("4", "2"), ("8", "4")]
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 0, ended.output
    assert restarts(await kube.list(PODS, "inference", labels="app=inference")) == pods
    assert "limits.cpu of server 4" in str(ended.of("fault"))


def _squeezed(cpu: str, pick: Any, seconds: str) -> dict[str, Any]:
    return {"podResize": {**RESIZE["podResize"], "cpu": cpu, "pick": pick}, "for": seconds}


@pytest.mark.parametrize(("first", "then"), [("20s", "1s"), ("12s", "12s")], ids=["within", "beyond"])
async def test_pods_that_two_steps_resize(
    first: str, then: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A share is of what was there when the plan was made, not of what the other step has left."""
    before = await _resources(kube)
    second = {"sequence": [{"wait": "6s"}, _squeezed("50%", "all", then)]}
    file = write(tmp_path, method=[{"parallel": [_squeezed("75%", 2, first), second]}])
    ended = await asyncio.to_thread(gameday.run, file)
    assert ended.code == 0, ended.output
    made = [e["summary"] for e in ended.of("change") if e["state"] == "made"]
    assert len([text for text in made if "limits.cpu: 6 → 4" in text]) == 2
    assert not [text for text in made if "limits.cpu: 6 → 3" in text]
    assert await _resources(kube) == before


async def test_a_pod_that_another_step_has_resized_so_already(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = await _resources(kube)
    second = {"sequence": [{"wait": "6s"}, _squeezed("50%", "all", "1s")]}
    file = write(tmp_path, method=[{"parallel": [_squeezed("50%", 2, "20s"), second]}])
    ended = await asyncio.to_thread(gameday.run, file)
    assert ended.code == 0, ended.output
    assert len([e for e in ended.of("change") if e["state"] == "made"]) == len(before)
    assert await _resources(kube) == before


async def test_a_resized_pod_that_is_replaced_is_reported(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[{**RESIZE, "for": "5s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        resized = next(e for e in run.events if e["type"] == "change")["object"].rpartition("/")[2]
        await kube.delete(Ref("v1", "Pod", resized, "inference"), grace=0)
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 0, ended.output
    states = {e["object"].rpartition("/")[2]: e["state"] for e in ended.of("audited")}
    assert states.pop(resized) == "kept"
    assert set(states.values()) == {"restored"}
    await eventually(lambda: _resources(kube), lambda r: len(r) == 12 and "4" not in _limits(r))


def _limits(resources: dict[str, Object]) -> set[str]:
    return {r["limits"]["cpu"] for r in resources.values()}


async def test_a_resize_by_someone_else_meanwhile_is_left(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[{**RESIZE, "for": "4s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        name = next(e for e in run.events if e["type"] == "change")["object"].rpartition("/")[2]
        theirs = [{"name": "server", "resources": {"limits": {"cpu": "6"}}}]
        ref = Ref("v1", "Pod", name, "inference")
        await kube.patch(ref, {"spec": {"containers": theirs}}, "strategic", subresource="resize")
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 0, ended.output
    assert "changed to 6 by someone else" in ended.output
    await kube.delete(ref, grace=0)
    await eventually(lambda: _resources(kube), lambda r: len(r) == 12 and _limits(r) == {"8"})


async def test_a_quota_refuses_new_pods(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one-more", "namespace": "inference"},
        "spec": {"containers": [{"name": "c", "image": "example.com/c:1"}]},
    }
    with gameday.started(write(tmp_path, method=[{**QUOTA, "for": "3s"}])) as run:
        await asyncio.to_thread(run.fault_is, "in")
        with pytest.raises(
            Exception, match="exceeded quota: compute, requested: pods=1, used: pods=12, limited: pods=6"
        ):
            await kube.dry_run(pod)
        ended = await asyncio.to_thread(run.ended)
    assert ended.code == 0, ended.output
    assert "12 used of 6" in str(ended.of("fault"))
    await kube.dry_run(pod)


async def test_a_fault_that_was_in_the_route_before_comes_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    theirs = {"delay": {"fixedDelay": "0.010s", "percentage": {"value": 1}}}
    spec = (await kube.get(SERVICE))["spec"]
    route = {**spec["http"][0], "fault": theirs}
    unnamed = {"match": [{"uri": {"prefix": "/metrics"}}], "route": [{"destination": {"host": "inference"}}]}
    await kube.patch(SERVICE, {"spec": {"http": [unnamed, route]}}, "merge")
    try:
        with gameday.started(write(tmp_path, method=[{**MESH, "for": "3s"}])) as run:
            await asyncio.to_thread(run.fault_is, "in")
            now = (await kube.get(SERVICE))["spec"]["http"]
            assert [r["fault"]["abort"]["httpStatus"] for r in now] == [503, 503]
            # Another route comes first: ours are told by what they are, not by where they stand.
            first = {"name": "canary", "route": [{"destination": {"host": "canary"}}]}
            await kube.patch(SERVICE, {"spec": {"http": [first, *now]}}, "merge")
            ended = await asyncio.to_thread(run.ended)
        assert ended.code == 0, ended.output
        assert "injects a fault already" in ended.output
        assert (await kube.get(SERVICE))["spec"]["http"] == [first, unnamed, route]
    finally:
        await kube.patch(SERVICE, {"spec": spec}, "merge")


async def test_a_mesh_that_can_not_be_measured_is_no_quiet_mesh(
    gameday: Program, kube: Kube, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Prometheus goes before the fault comes: nobody knows how many requests there are."""
    wire = Wire(int(platform.prometheus_url.rpartition(":")[2]))
    await wire.restore()
    gameday.environment["GAMEDAY_PROMETHEUS_URL"] = wire.url
    with gameday.started(write(tmp_path, method=[{"wait": "2s"}, {**MESH, "for": "3s"}])) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "step-started", "the method begins")
        await wire.cut()
        ended = await asyncio.to_thread(run.ended)
    said = {e["state"]: " ".join(e["evidence"]) for e in ended.of("fault") if e.get("evidence")}
    assert {"in", "out"} <= said.keys(), ended.output
    assert all("what proxies injected can't be known" in text for text in said.values()), said


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"podResize": {**RESIZE["podResize"], "selector": "app=nobody"}},
            "no running pod matches app=nobody",
        ),
        ({"podResize": {**RESIZE["podResize"], "cpu": "16"}}, "podResize takes away"),
        (
            {"podResize": {**RESIZE["podResize"], "container": "sidecar"}},
            "has no container sidecar, only server",
        ),
        (
            {"podResize": {"selector": "app=job-queue-controller", "namespace": "platform", "cpu": "100m"}},
            "nothing would change",
        ),
        ({"podResize": {**RESIZE["podResize"], "namespace": "kube-system"}}, "outside the target"),
        ({"quota": {**QUOTA["quota"], "name": "none"}}, "there is no ResourceQuota inference/none"),
        ({"quota": {**QUOTA["quota"], "hard": {"services": 1}}}, "does not limit services, only pods"),
        ({"quota": {**QUOTA["quota"], "hard": {"pods": "100"}}}, "which is no less"),
        ({"istio": {**MESH["istio"], "virtualService": "none"}}, "there is no VirtualService inference/none"),
        (
            {"istio": {**MESH["istio"], "routes": ["canary"]}},
            "has no HTTP route canary (its routes: primary)",
        ),
        ({"machine": {"nodes": {"names": ["gpu-0"]}}}, "no Machine says that node gpu-0 is its own"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_refused_with_the_reason(
    step: dict[str, Any], words: str, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=[{**step, "for": "5s"}]))
    assert ended.code == 4, ended.output
    assert words in " ".join(ended.output.split())
    assert not ended.of("change")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"podResize": {"selector": "a=b", "namespace": "n"}}, "expected `cpu`, `memory` or both"),
        (
            {"podResize": {"selector": "a=b", "namespace": "n", "cpu": "half"}},
            "expected a Kubernetes quantity",
        ),
        ({"quota": {"name": "q", "namespace": "n", "hard": {}}}, "at least 1"),
        ({"istio": {"virtualService": "v", "namespace": "n"}}, "expected `delay`, `abort` or both"),
        ({"istio": {**MESH["istio"], "abort": {"httpStatus": 99}}}, "200"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_a_wrong_file_is_refused(step: dict[str, Any], words: str, tmp_path: Path) -> None:
    from tests.support.platforms import Platform

    nowhere = Platform("none", "", tmp_path, tmp_path / "none", prometheus_url="", control_url="", api_url="")
    ended = Program(nowhere, tmp_path)("validate", write(tmp_path, method=[step]))
    assert ended.code != 0
    assert words in " ".join(ended.output.split()), ended.output
