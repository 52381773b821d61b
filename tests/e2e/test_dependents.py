"""What goes with what a fault ends is counted, protected, and named: pods and claims that others own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from tests.e2e.experiments import write
from tests.platform.arrange import pod, running, unique
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

SPACE = "platform"
PROTECTED = {"gameday.dev/protect": "true"}
ROOM: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
GPUS = {"containers": [{"name": "c", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}


def _said(ended: Ended) -> str:
    return " ".join(ended.output.split())


async def _plan(gameday: Program, folder: Path, step: dict[str, Any], **radius: int) -> Ended:
    return await asyncio.to_thread(gameday, "plan", write(folder, method=[step], blastRadius=radius))


def _claim(name: str, labels: dict[str, str], *owners: Object) -> Object:
    meta = {"name": name, "namespace": SPACE, "labels": labels, "ownerReferences": list(owners)}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": ROOM}


def _owner(ref: Ref) -> Object:
    return {"apiVersion": ref.api_version, "kind": ref.kind, "name": ref.name, "uid": ref.uid}


@asynccontextmanager
async def _driver(kube: Kube, labels: dict[str, str]) -> AsyncIterator[tuple[Ref, Ref, Ref]]:
    """A pod that owns another one with two GPUs elsewhere, which owns a claim."""
    driver = await running(kube, pod(SPACE, {"app": "driver"}, node="gpu-0"))
    made = pod(SPACE, labels, node="gpu-1", **GPUS)
    made["metadata"]["ownerReferences"] = [_owner(driver) | {"controller": True}]
    executor = await running(kube, made)
    claim = Ref.of(await kube.create(_claim(unique("scratch"), labels, _owner(executor))))
    try:
        yield driver, executor, claim
    finally:
        for ref in (driver, executor, claim):
            if await kube.find(ref):
                await kube.delete(ref, grace=0)


def _kill(**options: Any) -> dict[str, Any]:
    return {"podKill": {"selector": "app=driver", "namespace": SPACE, "grace": 0, **options}}


async def test_pods_and_claims_that_a_pod_owns(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with _driver(kube, {}) as (driver, executor, claim):
        ended = await _plan(gameday, tmp_path, _kill(), pods=2, gpus=2)
        assert ended.code == 4, ended.output
        assert f"pod {SPACE}/{executor.name}: lost for good, deleted with the pod that owns it" in _said(
            ended
        )
        lost = f"PersistentVolumeClaim {SPACE}/{claim.name}: lost for good, deleted with the pod that owns it"
        assert f"{lost}, and its data with it (force: true allows it)" in _said(ended)
        ended = await _plan(gameday, tmp_path, _kill(force=True), pods=1)
        assert ended.code == 4, ended.output
        assert "2 pods (at most 1)" in _said(ended)
        assert "2 gpus (at most 0)" in _said(ended)
        file = write(tmp_path, method=[_kill(force=True)], blastRadius={"pods": 2, "gpus": 2})
        ended = await asyncio.to_thread(gameday.run, file)
        assert ended.code == 0, ended.output
        assert f"not undone: pod {SPACE}/{driver.name}: lost for good" in _said(ended)
        assert f"not undone: {lost}" in _said(ended)
        gone = {e["object"]: e["done"] for e in ended.of("ended")}
        assert gone == {str(ref): "ended for good" for ref in (driver, executor, claim)}


async def test_what_is_protected_keeps_its_owner(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with _driver(kube, PROTECTED) as (_, executor, claim):
        ended = await _plan(gameday, tmp_path, _kill(force=True), pods=2, gpus=2)
        assert ended.code == 4, ended.output
        for ref in (executor, claim):
            assert f"{ref} carries the label gameday.dev/protect: it may not be touched" in _said(ended)


@asynccontextmanager
async def _database(kube: Kube, labels: dict[str, str]) -> AsyncIterator[tuple[str, list[Ref]]]:
    """A StatefulSet of pods 5 and 6, whose claims go when it is scaled down."""
    name = unique("db")
    made = [await kube.create(_claim(f"data-{name}-{n}", labels)) for n in (5, 6)]
    claims = [Ref.of(c) for c in made]
    one = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none"}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": one}
    obj: Object = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "replicas": 2,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "ordinals": {"start": 5},
            "selector": {"matchLabels": {"app": name}},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
            "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": labels}, "spec": ROOM}],
        },
    }
    ref = Ref.of(await kube.create(obj))
    try:
        await eventually(lambda: kube.get(ref), lambda o: o.get("status", {}).get("replicas") == 2)
        yield name, claims
    finally:
        await kube.delete(ref, propagation="Foreground")
        await eventually(lambda: kube.find(ref), lambda o: o is None)
        for claim in claims:
            if await kube.find(claim.named):
                await kube.delete(claim.named)


def _scale(name: str, replicas: int, **options: Any) -> dict[str, Any]:
    scale = {"workload": f"statefulset/{name}", "namespace": SPACE, "replicas": replicas, **options}
    return {"scale": scale, "for": "2s"}


async def test_claims_of_pods_that_are_scaled_away(
    platform: Platform, kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with _database(kube, {}) as (name, claims):
        ended = await _plan(gameday, tmp_path, _scale(name, 0), pods=2)
        assert ended.code == 4, ended.output
        both = ", ".join(f"{SPACE}/{c.name}" for c in claims)
        assert f"PersistentVolumeClaim {both}: lost for good, deleted by its StatefulSet" in _said(ended)
        file = write(tmp_path, method=[_scale(name, 1, force=True)], blastRadius={"pods": 1})
        ended = await asyncio.to_thread(gameday.run, file)
        assert ended.code == 0, ended.output
        last = claims[1]
        assert f"not undone: PersistentVolumeClaim {SPACE}/{last.name}: lost for good" in _said(ended)
        if platform.name != "sandbox":  # whose StatefulSets have no claims of their own
            assert {e["object"]: e["done"] for e in ended.of("ended")}[str(last)] == "ended for good"


async def test_claims_of_pods_that_are_added(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """They stay where scaling back keeps claims; one that was there before goes where it does not."""
    async with _database(kube, {}) as (name, _):
        older = Ref.of(await kube.create(_claim(f"data-{name}-7", {})))
        try:
            ended = await _plan(gameday, tmp_path, _scale(name, 3), pods=2)
            assert ended.code == 4, ended.output
            assert f"PersistentVolumeClaim {SPACE}/{older.name}: lost for good" in _said(ended)
            keep = {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}}
            await kube.patch(Ref("apps/v1", "StatefulSet", name, SPACE), keep, "merge")
            ended = await _plan(gameday, tmp_path, _scale(name, 4), pods=2)
            assert ended.code == 0, ended.output
            assert "stay behind when it is scaled back" in _said(ended)
            assert f"data-{name}-7, data-{name}-8" in _said(ended)
        finally:
            await kube.delete(older)


async def test_protected_claims_keep_their_pods(
    kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with _database(kube, PROTECTED) as (name, claims):
        ended = await _plan(gameday, tmp_path, _scale(name, 0, force=True), pods=2)
        assert ended.code == 4, ended.output
        for ref in claims:
            assert f"{ref} carries the label gameday.dev/protect" in _said(ended)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_an_ephemeral_volume_of_a_workload(
    replicas: int, kube: Kube, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Nobody knows which pods a Deployment gives up: the claims of all of them are named."""
    found = await kube.get(Ref("apps/v1", "Deployment", "job-queue-controller", SPACE))
    labels = ",".join(f"{k}={v}" for k, v in found["spec"]["selector"]["matchLabels"].items())
    first = (await kube.list(PODS, SPACE, labels=labels))[0]["metadata"]
    owner = Ref("v1", "Pod", first["name"], SPACE, first["uid"])
    claim = Ref.of(await kube.create(_claim(f"{owner.name}-scratch", {}, _owner(owner))))
    step = {"workload": "deployment/job-queue-controller", "namespace": SPACE, "replicas": replicas}
    try:
        ended = await _plan(gameday, tmp_path, {"scale": step, "for": "1s"}, pods=2)
        assert ended.code == 4, ended.output
        assert f"PersistentVolumeClaim {SPACE}/{claim.name}: lost for good" in _said(ended)
    finally:
        await kube.delete(claim)
