"""How the API deletes and evicts: the same on the sandbox and on a real kube-apiserver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gameday.faults.budgets import foresee
from gameday.platform.errors import not_found
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, condition
from gameday.platform.resources import CONFIG_MAPS, PODS
from tests.platform.arrange import budget, config_map, deployment, pod, refusal, running, unique
from tests.support.polling import eventually


async def delete(kube: Kube, ref: Ref, **options: object) -> Object:
    path = (await kube.resource(ref.api_version, ref.kind)).path(ref.namespace, ref.name)
    answer: Object = json.loads(await kube.request("DELETE", path, body=options))
    return answer


async def gone(kube: Kube, ref: Ref) -> None:
    await eventually(lambda: kube.find(ref), lambda found: found is None)


def owned(obj: Object, owner: Object, **more: object) -> Object:
    reference = {k: owner[k] for k in ("apiVersion", "kind")} | {
        k: owner["metadata"][k] for k in ("name", "uid")
    }
    obj["metadata"]["ownerReferences"] = [reference | more]
    return obj


async def test_delete_answers_what_it_removed(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace))
    status = await delete(kube, Ref.of(created))
    assert (status["kind"], status["status"]) == ("Status", "Success")
    assert status["details"]["uid"] == created["metadata"]["uid"]
    assert (await refusal(delete(kube, Ref.of(created)))).status == 404


async def test_finalizers_hold_an_object(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace)
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    ref = Ref.of(await kube.create(obj))
    assert (await delete(kube, ref))["kind"] == "ConfigMap"
    held = await kube.get(ref)
    assert held["metadata"]["deletionTimestamp"]
    error = await refusal(
        kube.patch(ref, [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/more"}])
    )
    assert error.status == 422
    await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
    assert await kube.find(ref) is None


async def test_preconditions(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace))
    ref, metadata = Ref.of(created), created["metadata"]
    other = "00000000-0000-4000-8000-000000000000"
    error = await refusal(delete(kube, ref, preconditions={"uid": other}))
    assert (error.status, error.reason) == (409, "Conflict")
    assert f"the UID in the precondition ({other}) does not match the UID in record" in error.message
    await kube.patch(ref, {"data": {"a": "1"}}, "merge")
    error = await refusal(delete(kube, ref, preconditions={"resourceVersion": metadata["resourceVersion"]}))
    assert error.status == 409
    await delete(kube, ref, preconditions={"uid": metadata["uid"]})
    assert await kube.find(ref) is None


async def test_a_pod_that_never_ran_goes_at_once(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(pod(namespace)))
    await delete(kube, ref)
    assert await kube.find(ref) is None


async def test_a_running_pod_ends_gracefully(kube: Kube, namespace: str, node: str) -> None:
    ref = await running(kube, pod(namespace, node=node, terminationGracePeriodSeconds=40))
    answer = await delete(kube, ref)
    assert answer["metadata"]["deletionGracePeriodSeconds"] == 40
    assert (await kube.get(ref))["metadata"]["deletionTimestamp"]
    shorter = await delete(kube, ref, gracePeriodSeconds=20)
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 20
    await delete(kube, ref, gracePeriodSeconds=0)  # what the kubelet does in the end
    assert await kube.find(ref) is None


async def test_background_deletion_takes_the_dependents_along(kube: Kube, namespace: str) -> None:
    owner = await kube.create(config_map(namespace))
    dependent = Ref.of(await kube.create(owned(config_map(namespace), owner)))
    await delete(kube, Ref.of(owner), propagationPolicy="Background")
    assert await kube.find(Ref.of(owner)) is None
    await gone(kube, dependent)


async def test_orphaning_leaves_the_dependents(kube: Kube, namespace: str) -> None:
    owner = await kube.create(config_map(namespace))
    dependent = Ref.of(await kube.create(owned(config_map(namespace), owner)))
    await delete(kube, Ref.of(owner), propagationPolicy="Orphan")
    await gone(kube, Ref.of(owner))
    left = await kube.get(dependent)
    assert "ownerReferences" not in left["metadata"]
    assert "deletionTimestamp" not in left["metadata"]


async def test_foreground_deletion_waits_for_the_dependents(kube: Kube, namespace: str) -> None:
    owner = await kube.create(config_map(namespace))
    obj = owned(config_map(namespace), owner, blockOwnerDeletion=True)
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    dependent = Ref.of(await kube.create(obj))
    answer = await delete(kube, Ref.of(owner), propagationPolicy="Foreground")
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    await eventually(lambda: kube.get(dependent), lambda o: "deletionTimestamp" in o["metadata"])
    assert await kube.find(Ref.of(owner))
    await kube.patch(dependent, {"metadata": {"finalizers": None}}, "merge")
    await gone(kube, Ref.of(owner))


async def test_dependents_of_a_missing_owner_are_collected(kube: Kube, namespace: str) -> None:
    owner = await kube.create(config_map(namespace))
    await delete(kube, Ref.of(owner))
    dependent = Ref.of(await kube.create(owned(config_map(namespace), owner)))
    await gone(kube, dependent)


async def test_delete_collection_by_selector(kube: Kube, namespace: str) -> None:
    mark = unique("mark")
    kept = Ref.of(await kube.create(config_map(namespace, labels={"mark": mark, "keep": "yes"})))
    for _ in range(2):
        await kube.create(config_map(namespace, labels={"mark": mark}))
    query = {"labelSelector": f"mark={mark},!keep"}
    await kube.request("DELETE", CONFIG_MAPS.path(namespace), query=query)
    left = await kube.list(CONFIG_MAPS, namespace, labels=f"mark={mark}")
    assert [o["metadata"]["name"] for o in left] == [kept.name]


async def test_deleting_a_namespace_empties_it(kube: Kube) -> None:
    name = unique("contract-gone")
    space = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    held = config_map(name)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    ref = Ref.of(await kube.create(held))
    await kube.create(deployment(name))
    assert (await delete(kube, space))["status"]["phase"] == "Terminating"
    await eventually(lambda: kube.get(ref), lambda o: "deletionTimestamp" in o["metadata"])
    error = await refusal(kube.create(config_map(name)))
    assert (error.status, error.reason) == (403, "Forbidden")
    assert f"namespace {name} because it is being terminated" in error.message
    await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
    await gone(kube, space)


# -- eviction ---------------------------------------------------------------------------------------------


async def test_eviction_without_a_budget(kube: Kube, namespace: str, node: str) -> None:
    ref = await running(kube, pod(namespace, node=node))
    await kube.evict(ref)
    evicted = await kube.get(ref)
    assert evicted["metadata"]["deletionTimestamp"]
    assert condition(evicted, "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"
    await kube.delete(ref, grace=0)


async def test_eviction_against_a_budget(kube: Kube, namespace: str, node: str) -> None:
    labels = {"app": unique("guarded")}
    pods = [await running(kube, pod(namespace, labels, node)) for _ in range(3)]
    guard = await budget(kube, namespace, labels, 3, minAvailable=2)
    await kube.evict(pods[0])
    error = await refusal(kube.evict(pods[1]))
    # between the eviction and the controller's next look there may be a second refusal, with a time to wait
    while "is still being processed" in error.details["causes"][0]["message"]:
        assert error.retry_after == 10
        error = await refusal(kube.evict(pods[1]))
    assert (error.status, error.reason) == (429, "TooManyRequests")
    assert error.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert error.retry_after is None  # upstream names no time for this one
    (cause,) = error.details["causes"]
    assert cause == {
        "reason": "DisruptionBudget",
        "message": f"The disruption budget {guard.name} needs 2 healthy pods and has 2 currently",
    }
    assert "deletionTimestamp" not in (await kube.get(pods[1]))["metadata"]
    for ref in pods:
        await kube.delete(ref, grace=0)
    await kube.delete(guard)


async def test_eviction_with_two_budgets_fails(kube: Kube, namespace: str, node: str) -> None:
    labels = {"app": unique("twice")}
    ref = await running(kube, pod(namespace, labels, node))
    guards = [await budget(kube, namespace, labels, 1, minAvailable=0) for _ in range(2)]
    error = await refusal(kube.evict(ref))
    assert error.status == 500
    assert "more than one PodDisruptionBudget" in error.message
    for obj in (ref, *guards):
        await kube.delete(obj, grace=0)


@pytest.mark.parametrize(
    ("policy", "ready", "passes"),
    [(None, 0, False), ("IfHealthyBudget", 1, True), ("AlwaysAllow", 0, True)],
)
async def test_eviction_of_an_unready_pod(
    policy: str | None, ready: int, passes: bool, kube: Kube, namespace: str, node: str
) -> None:
    """A drain foresees what the server does. `ready`: how many other pods of the budget are."""
    labels = {"app": unique("unready")}
    others = [await running(kube, pod(namespace, labels, node)) for _ in range(ready)]
    strict = await running(kube, pod(namespace, labels, node), ready=False)
    spec: dict[str, Any] = {"minAvailable": 1} | ({"unhealthyPodEvictionPolicy": policy} if policy else {})
    guard = await budget(kube, namespace, labels, ready + 1, **spec)
    await eventually(lambda: kube.get(guard), lambda found: found["status"]["currentHealthy"] == ready)
    stops, holds = await foresee([await kube.get(strict)], kube)
    assert (stops, not holds) == ([], passes)
    if passes:
        await kube.evict(strict)
        assert (await kube.get(strict))["metadata"]["deletionTimestamp"]
    else:
        assert (await refusal(kube.evict(strict))).status == 429
    for obj in (*others, strict, guard):
        await kube.delete(obj, grace=0)


async def test_eviction_of_a_pending_pod_ignores_the_budget(kube: Kube, namespace: str) -> None:
    labels = {"app": unique("pending")}
    ref = Ref.of(await kube.create(pod(namespace, labels)))
    guard = await budget(kube, namespace, labels, 1, minAvailable=1)
    await kube.evict(ref)
    assert await kube.find(ref) is None
    await kube.delete(guard)


async def test_eviction_as_a_dry_run(kube: Kube, namespace: str, node: str) -> None:
    ref = await running(kube, pod(namespace, node=node))
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": ref.name, "namespace": namespace},
        "deleteOptions": {"dryRun": ["All"]},
    }
    await kube.request("POST", PODS.path(namespace, ref.name, "eviction"), body=body)
    assert "deletionTimestamp" not in (await kube.get(ref))["metadata"]
    await kube.delete(ref, grace=0)


async def test_eviction_of_another_pod_of_that_name(kube: Kube, namespace: str, node: str) -> None:
    ref = await running(kube, pod(namespace, node=node))
    other = Ref(ref.api_version, ref.kind, ref.name, namespace, "00000000-0000-4000-8000-000000000000")
    assert (await refusal(kube.evict(other))).status == 409
    assert not_found(await refusal(kube.evict(Ref("v1", "Pod", "nothing", namespace))))
    await kube.delete(ref, grace=0)
