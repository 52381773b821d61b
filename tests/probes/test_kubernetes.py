"""The kubernetes probe on both platforms, with objects whose status only the test writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from gameday.extend import Measurement
from gameday.platform.errors import PlatformError
from gameday.platform.kinds import find_resource, known
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref, Resource
from gameday.platform.resources import NODES, PODS
from gameday.platform.world import World
from gameday.probes.kubernetes import Kubernetes, KubernetesSpec
from tests.platform.arrange import unique
from tests.support.widgets import say, widget, widgets


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    ref = Ref.of(
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": unique("probe")}})
    )
    yield ref.name
    await kube.delete(ref)


@pytest.fixture(scope="module")
async def kind(kube: Kube) -> AsyncIterator[Resource]:
    async with widgets(kube) as resource:
        yield resource


async def ask(kube: Kube, namespace: str, resource: str, **spec: Any) -> Measurement:
    world = World(kube, namespaces=(namespace,))
    return await Kubernetes().measure(KubernetesSpec.model_validate({"resource": resource, **spec}), world)


async def values(kube: Kube, namespace: str, resource: str, **spec: Any) -> list[Any]:
    return [value for _, value in (await ask(kube, namespace, resource, **spec)).series]


def ready(status: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "Ready", "status": status, **more}]


async def test_a_condition(kube: Kube, namespace: str, kind: Resource) -> None:
    ref = await widget(kube, kind, namespace, "one")
    name = f"widget.{kind.group}/one"
    nothing = await ask(kube, namespace, name, condition="Ready")
    assert nothing.series == ()
    assert "there is no condition Ready, only none at all" in nothing.message
    await say(kube, ref, conditions=ready("False"))
    assert await values(kube, namespace, name, condition="Ready") == ["False"]
    await say(kube, ref, conditions=ready("True"))
    assert await values(kube, namespace, name, condition="ready") == ["True"]
    absent = await ask(kube, namespace, name, condition="Redy")
    assert absent.message == "there is no condition Redy, only Ready"


async def test_a_condition_of_an_older_generation_says_nothing(
    kube: Kube, namespace: str, kind: Resource
) -> None:
    ref = await widget(kube, kind, namespace, "one", observedGeneration=1, conditions=ready("True"))
    name = f"widget.{kind.group}/one"
    assert await values(kube, namespace, name, condition="Ready") == ["True"]
    await kube.patch(ref, {"spec": {"size": 2}}, "merge")
    assert await values(kube, namespace, name, condition="Ready") == ["Unknown"]
    await say(kube, ref, conditions=ready("True", observedGeneration=2))
    assert await values(kube, namespace, name, condition="Ready") == ["True"]
    await say(kube, ref, observedGeneration=2, conditions=ready("True"))
    assert await values(kube, namespace, name, condition="Ready") == ["True"]


async def test_many_objects(kube: Kube, namespace: str, kind: Resource) -> None:
    name = f"widgets.{kind.group}"
    assert await values(kube, namespace, name, count=True) == [0.0]
    empty = await ask(kube, namespace, name, selector="kind=widget", condition="Ready")
    assert empty.series == ()
    assert f"no {name} with kind=widget" in empty.message
    await widget(kube, kind, namespace, "a", conditions=ready("True"), replicas=3)
    await widget(kube, kind, namespace, "b", conditions=ready("False"), replicas=0)
    await widget(kube, kind, namespace, "c")
    measured = await ask(kube, namespace, name, selector="kind=widget", condition="Ready")
    assert dict(measured.series) == {
        f"Widget {namespace}/a": "True",
        f"Widget {namespace}/b": "False",
        f"Widget {namespace}/c": "Unknown",  # not forgotten
    }
    assert await values(kube, namespace, name, count=True) == [3.0]
    assert await values(kube, namespace, name, selector="kind=other", count=True) == [0.0]
    assert await values(kube, namespace, name, condition="Ready", count=True) == [1.0]
    assert await values(kube, namespace, name, jsonPath="{.status.replicas}") == [3, 0, ""]


async def test_a_field(kube: Kube, namespace: str, kind: Resource) -> None:
    name = f"wi.v1.{kind.group}/one"
    await widget(
        kube, kind, namespace, "one", replicas=2, parts=[{"n": 1, "ok": True}, {"n": 2, "ok": False}]
    )
    assert await values(kube, namespace, name, jsonPath="{.status.replicas}") == [2]
    assert await values(kube, namespace, name, jsonPath="{.status.parts[?(@.n==2)].ok}") == [False]
    assert await values(kube, namespace, name, jsonPath="{.status.parts[*].n}") == [1, 2]
    nothing = await ask(kube, namespace, name, jsonPath="{.status.nothing}")
    assert nothing.series == ()
    assert "nothing at {.status.nothing}" in nothing.message
    with pytest.raises(PlatformError, match="leads to a mapping"):
        await ask(kube, namespace, name, jsonPath="{.status}")


async def test_what_is_not_there(kube: Kube, namespace: str) -> None:
    gone = await ask(kube, namespace, "deploy/none", condition="Available")
    assert gone.series == ()
    assert gone.message == f"there is no Deployment {namespace}/none"
    assert await values(kube, namespace, "deploy/none", count=True) == [0.0]
    with pytest.raises(PlatformError, match="is its CRD installed"):
        await ask(kube, namespace, "gadgets.nowhere.example.com", count=True)
    world = World(kube, namespaces=("a", "b"))
    with pytest.raises(PlatformError, match="in which namespace is pods"):
        await Kubernetes().measure(KubernetesSpec(resource="pods", count=True), world)


async def test_names_of_kinds(kube: Kube) -> None:
    for name in ("po", "pod", "pods", "Pod"):
        assert await find_resource(kube, name) == PODS
    assert await find_resource(kube, "no") == NODES
    deployments = await find_resource(kube, "deploy")
    assert deployments == Resource("apps/v1", "Deployment", "deployments")
    for name in ("deployments.apps", "deploy.apps", "deployments.v1.apps", "deployment.v1.apps"):
        assert await find_resource(kube, name) == deployments
    with pytest.raises(PlatformError, match="serves no deploymints in apps/v1"):
        await find_resource(kube, "deploymints.apps")


async def test_known_kinds_are_those_of_the_cluster(kube: Kube) -> None:
    """The list here must not say other than discovery does; what a small API leaves out is passed over."""
    groups = [g["name"] for g in json.loads(await kube.request("GET", "/apis"))["groups"]]
    compared = 0
    for resource in {r for r in known().values() if r.group in ["", *groups]}:
        path = ("/apis/" if resource.group else "/api/") + resource.api_version
        for entry in json.loads(await kube.request("GET", path))["resources"]:
            if entry["kind"] == resource.kind and "/" not in entry["name"]:
                compared += 1
                assert (entry["name"], entry["namespaced"]) == (resource.plural, resource.namespaced)
                assert all(known()[short] == resource for short in entry.get("shortNames", ()))
    assert compared > 10


@pytest.mark.fast
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"resource": "gadget/x", "count": True}, "not a kind known here"),
        ({"resource": "pod/", "count": True}, "is no object's name"),
        ({"resource": "pods"}, "expected one of"),
        ({"resource": "pods", "condition": "Ready", "jsonPath": "{.a}"}, "expected one of"),
        ({"resource": "pod/x", "selector": "a=b", "condition": "Ready"}, "kind alone"),
        ({"resource": "pods", "jsonPath": "{.a[}"}, "is not a JSONPath"),
        ({"resource": "pods", "selector": "a=b=c", "count": True}, "label selector"),
    ],
)
def test_mistakes(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KubernetesSpec.model_validate(spec)
