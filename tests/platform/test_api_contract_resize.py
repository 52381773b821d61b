"""What faults rely on when they resize running pods and squeeze quotas: the same on both platforms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, condition, is_ready
from tests.platform.arrange import pod, refusal
from tests.support.polling import eventually

RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def _container(**options: Any) -> Object:
    return {"name": "main", "image": "example.com/main:1", "resources": RESOURCES} | options


async def _started(kube: Kube, namespace: str, **options: Any) -> Ref:
    """A pod that runs on one of the fleet's nodes."""
    ref = Ref.of(await kube.create(pod(namespace, node="gpu-0", containers=[_container(**options)])))
    await eventually(lambda: kube.get(ref), is_ready)
    return ref


@pytest.fixture
async def running(kube: Kube, namespace: str) -> AsyncIterator[Ref]:
    ref = await _started(kube, namespace)
    yield ref
    await kube.delete(ref, grace=0)


async def _resize(kube: Kube, ref: Ref, container: Object) -> Object:
    body = {"spec": {"containers": [{"name": "main", **container}]}}
    return await kube.patch(ref, body, "strategic", subresource="resize")


def _limits(cpu: str, **others: str) -> Object:
    return {"resources": {"limits": {"cpu": cpu, **others}}}


async def test_discovery_tells_of_it(kube: Kube) -> None:
    listed = json.loads(await kube.request("GET", "/api/v1"))["resources"]
    (found,) = [r for r in listed if r["name"] == "pods/resize"]
    assert (found["kind"], sorted(found["verbs"])) == ("Pod", ["get", "patch", "update"])


async def test_a_resize_is_acted_out_in_place(kube: Kube, running: Ref) -> None:
    before = await kube.get(running)
    wanted = await _resize(kube, running, _limits("1500m"))
    assert wanted["metadata"]["generation"] == before["metadata"]["generation"] + 1
    after = await eventually(
        lambda: kube.get(running),
        lambda p: p["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "1500m",
    )
    (state,) = after["status"]["containerStatuses"]
    assert state["restartCount"] == 0
    assert state["resources"] == {**RESOURCES, "limits": {"cpu": "1500m", "memory": "1Gi"}}
    assert after["status"]["observedGeneration"] == wanted["metadata"]["generation"]
    await eventually(lambda: kube.get(running), lambda p: not condition(p, "PodResizeInProgress"))


async def test_what_a_policy_says_is_restarted(kube: Kube, namespace: str) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    ref = await _started(kube, namespace, resizePolicy=policy)
    try:
        smaller = {"requests": {"memory": "512Mi"}, "limits": {"memory": "512Mi"}}
        await _resize(kube, ref, {"resources": smaller})
        await eventually(
            lambda: kube.get(ref), lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1
        )
    finally:
        await kube.delete(ref, grace=0)


async def test_what_no_node_can_give_is_refused(kube: Kube, running: Ref) -> None:
    body = {"resources": {"requests": {"cpu": "1k"}, "limits": {"cpu": "2k"}}}
    refused = await refusal(_resize(kube, running, body))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    words = "node didn't have enough allocatable resources: cpu, requested: 1000000, allocatable: 128000"
    assert words in refused.message


async def test_what_a_node_cannot_give_now_is_deferred(kube: Kube, namespace: str, running: Ref) -> None:
    big = {"requests": {"cpu": "100"}, "limits": {"cpu": "100"}}
    other = await _started(kube, namespace, resources=big)
    try:
        await _resize(kube, running, {"resources": {"requests": {"cpu": "90"}, "limits": {"cpu": "99"}}})
        told = await eventually(lambda: kube.get(running), lambda p: bool(condition(p, "PodResizePending")))
        assert condition(told, "PodResizePending")["reason"] == "Deferred"
        assert told["status"]["containerStatuses"][0]["resources"] == RESOURCES
    finally:
        await kube.delete(other, grace=0)
    done = await eventually(
        lambda: kube.get(running),
        lambda p: p["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "90",
    )
    assert not condition(done, "PodResizePending")


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (
            {"resources": {"requests": {"cpu": "2"}}},
            'Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
        ),
        ({"resources": {"limits": {"cpu": None}}}, "resource limits cannot be removed"),
        ({"resources": {"limits": {"example.com/thing": "1"}}}, "only cpu and memory resources are mutable"),
    ],
    ids=["quality", "removed", "other"],
)
async def test_refused(container: Object, words: str, kube: Kube, running: Ref) -> None:
    refused = await refusal(_resize(kube, running, container))
    assert (refused.status, refused.reason) == (422, "Invalid")
    assert words in refused.message


async def test_nothing_else_changes_through_it_nor_this_without_it(kube: Kube, running: Ref) -> None:
    patched = await _resize(kube, running, {"image": "example.com/other:1", **_limits("3")})
    assert patched["spec"]["containers"][0]["image"] == "example.com/main:1"
    assert patched["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "3"
    body = {"spec": {"containers": [{"name": "main", **_limits("1")}]}}
    assert (await refusal(kube.patch(running, body, "strategic"))).status == 422


async def test_a_quota_counts_and_refuses(kube: Kube, empty_namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": empty_namespace},
        "spec": {"hard": {"pods": "1", "requests.cpu": "1500m"}},
    }
    ref = Ref.of(await kube.create(quota))
    made = []
    try:
        await eventually(lambda: kube.get(ref), lambda q: "used" in (q.get("status") or {}))
        made.append(Ref.of(await kube.create(pod(empty_namespace, containers=[_container()]))))
        used = {"pods": "1", "requests.cpu": "1"}
        await eventually(lambda: kube.get(ref), lambda q: q["status"]["used"] == used)
        refused = await refusal(kube.create(pod(empty_namespace, containers=[_container()])))
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert refused.message.endswith(
            "exceeded quota: small, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=1, "
            "limited: pods=1,requests.cpu=1500m"
        )
        await kube.patch(ref, {"spec": {"hard": {"pods": "2", "requests.cpu": "2"}}}, "merge")
        await eventually(lambda: kube.get(ref), lambda q: q["status"]["hard"]["pods"] == "2")
        made.append(Ref.of(await kube.create(pod(empty_namespace, containers=[_container()]))))
    finally:
        for each in (*made, ref):
            await kube.delete(each, grace=0)
