"""How custom resources are defined and checked: the same on the sandbox and on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, is_true
from tests.platform.arrange import put, refusal, unique
from tests.support.polling import eventually

GROUP = "contract.gameday.dev"
STORMS = Resource(f"{GROUP}/v1", "Storm", "storms")
SPEC_SCHEMA = {
    "type": "object",
    "required": ["action"],
    "properties": {
        "action": {"type": "string", "enum": ["delay", "loss"]},
        "seconds": {"type": "integer", "minimum": 1},
        "mode": {"type": "string", "default": "all"},
        "targets": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
STATUS_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition() -> Object:
    schema = {"type": "object", "properties": {"spec": SPEC_SCHEMA, "status": STATUS_SCHEMA}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Action", "type": "string", "jsonPath": ".spec.action"}],
    }
    names = {"kind": "Storm", "plural": "storms", "singular": "storm", "shortNames": ["st"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"storms.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
async def storms(kube: Kube) -> AsyncIterator[Resource]:
    """The definition, once it is served."""
    ref = Ref.of(await kube.create(definition()))
    await eventually(lambda: kube.get(ref), lambda o: is_true(o, "Established"))

    async def served() -> bool:
        with suppress(ApiError):
            return bool(await kube.request("GET", STORMS.path("default")))
        return False

    await eventually(served)
    assert await kube.resource(STORMS.api_version, "Storm") == STORMS
    yield STORMS
    await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda found: found is None)


def storm(namespace: str, **spec: Any) -> Object:
    return {
        "apiVersion": STORMS.api_version,
        "kind": "Storm",
        "metadata": {"name": unique("storm"), "namespace": namespace},
        "spec": {"action": "delay", **spec},
    }


async def test_create_with_defaults_and_generation(kube: Kube, storms: Resource, namespace: str) -> None:
    created = await kube.create(storm(namespace, seconds=3, port="http", free={"any": [1]}))
    assert created["spec"]["mode"] == "all"
    assert created["spec"]["free"] == {"any": [1]}
    ref = Ref.of(created)
    assert created["metadata"]["generation"] == 1
    assert (await kube.patch(ref, {"spec": {"seconds": 4}}, "merge"))["metadata"]["generation"] == 2
    labelled = await kube.patch(ref, {"metadata": {"labels": {"a": "b"}}}, "merge")
    assert labelled["metadata"]["generation"] == 2


async def test_strict_validation_refuses_unknown_fields(kube: Kube, storms: Resource, namespace: str) -> None:
    wrong = storm(namespace, unknown=1, targets=[{"name": "a", "other": 2}])
    error = await refusal(kube.create(wrong))
    assert (error.status, error.reason) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.targets[0].other", unknown field "spec.unknown"' in (
        error.message
    )


async def test_unknown_fields_are_dropped_otherwise(kube: Kube, storms: Resource, namespace: str) -> None:
    wrong = storm(namespace, unknown=1, labels={"any": "thing"})
    created = json.loads(await kube.request("POST", storms.path(namespace), body=wrong))
    assert created["spec"] == {"action": "delay", "mode": "all", "labels": {"any": "thing"}}


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"action": "rain"}, "spec.action", 'Unsupported value: "rain": supported values: "delay", "loss"'),
        ({"seconds": "3"}, "spec.seconds", 'must be of type integer: "string"'),
        ({"seconds": 0}, "spec.seconds", "should be greater than or equal to 1"),
        ({"labels": {"a": 1}}, "spec.labels.a", 'must be of type string: "integer"'),
        ({"port": True}, "spec.port", "must be of type integer,string"),
    ],
)
async def test_values_against_the_schema(
    kube: Kube, storms: Resource, namespace: str, spec: Object, field: str, says: str
) -> None:
    error = await refusal(kube.create(storm(namespace, **spec)))
    assert (error.status, error.reason) == (422, "Invalid")
    assert field in [c["field"] for c in error.details["causes"]]
    assert says in error.message


async def test_a_required_field_is_missing(kube: Kube, storms: Resource, namespace: str) -> None:
    wrong = storm(namespace)
    del wrong["spec"]["action"]
    error = await refusal(kube.dry_run(wrong))
    assert (error.status, error.reason) == (422, "Invalid")
    assert error.message == (
        f'Storm.{GROUP} "{wrong["metadata"]["name"]}" is invalid: spec.action: Required value'
    )


async def test_status_is_written_apart(kube: Kube, storms: Resource, namespace: str) -> None:
    created = await kube.create(storm(namespace) | {"status": {"phase": "no"}})
    ref = Ref.of(created)
    assert "status" not in created
    ignored = await kube.patch(ref, {"status": {"phase": "no"}}, "merge")
    assert "status" not in ignored
    body = {"status": {"phase": "yes"}, "spec": {"action": "loss"}, "metadata": {"labels": {"a": "b"}}}
    written = await kube.patch(ref, body, "merge", subresource="status")
    assert written["status"] == {"phase": "yes"}
    assert written["spec"]["action"] == "delay"
    assert "labels" not in written["metadata"]
    assert written["metadata"]["generation"] == 1


async def test_put_must_name_a_version(kube: Kube, storms: Resource, namespace: str) -> None:
    created = await kube.create(storm(namespace))
    metadata = {k: v for k, v in created["metadata"].items() if k != "resourceVersion"}
    error = await refusal(put(kube, storms, created | {"metadata": metadata}))
    assert error.status == 422
    assert error.details["causes"][0]["field"] == "metadata.resourceVersion"


async def test_no_strategic_merge_for_custom_resources(kube: Kube, storms: Resource, namespace: str) -> None:
    ref = Ref.of(await kube.create(storm(namespace)))
    error = await refusal(kube.patch(ref, {"spec": {"seconds": 1}}, "strategic"))
    assert (error.status, error.reason) == (415, "UnsupportedMediaType")


async def test_watch_of_custom_resources(kube: Kube, storms: Resource, namespace: str) -> None:
    start = json.loads(await kube.request("GET", storms.path(namespace)))["metadata"]["resourceVersion"]
    created = await kube.create(storm(namespace))
    async with asyncio.timeout(20):
        async for kind, obj in kube.watch(storms, namespace, version=start):
            assert (kind, obj["metadata"]["name"]) == ("ADDED", created["metadata"]["name"])
            return
    raise AssertionError("the watch ended without an event")


async def test_a_version_that_is_too_old_is_gone(kube: Kube, storms: Resource, namespace: str) -> None:
    """From before the kind was defined: a server of any age remembers nothing of that.

    The stream begins, with an ERROR for an event: the HTTP status says nothing of it.
    """
    query = {"watch": "true", "resourceVersion": "1", "timeoutSeconds": "1"}
    event = json.loads(await kube.request("GET", storms.path(namespace), query=query))
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert "too old resource version" in status["message"]
    assert (await refusal(anext(kube.watch(storms, namespace, version="1")))).status == 410


async def test_a_bad_definition_is_refused(kube: Kube) -> None:
    wrong = definition()
    wrong["metadata"]["name"] = "storms.elsewhere.example.com"
    error = await refusal(kube.create(wrong))
    assert (error.status, error.reason) == (422, "Invalid")
    assert error.details["causes"][0]["field"] == "metadata.name"


_ABSENT = f"/apis/{GROUP}/v1/namespaces/default/storms/absent"


@pytest.mark.parametrize(
    ("path", "details"),
    [
        ("/api/v1/namespaces/default/configmaps/absent", {"name": "absent", "kind": "configmaps"}),
        ("/api/v1/namespaces/no-such/configmaps/absent", {"name": "absent", "kind": "configmaps"}),
        ("/api/v1/namespaces/absent", {"name": "absent", "kind": "namespaces"}),
        ("/apis/apps/v1/namespaces/default/deployments/absent", {"group": "apps", "kind": "deployments"}),
        ("/apis/apps/v1/namespaces/default/deployments/absent/scale", {"group": "apps", "name": "absent"}),
        (_ABSENT, {"name": "absent", "group": GROUP, "kind": "storms"}),
        (f"{_ABSENT}/scale", {"name": "absent", "group": GROUP, "kind": "storms"}),
        (_ABSENT.replace("/v1/", "/v9/"), None),
        (_ABSENT.replace("/storms/", "/nothings/"), None),
        (f"/apis/{GROUP}/v9", None),
        ("/apis/nobody.example.com", None),
        ("/apis/nobody.example.com/v1/things/absent", None),
        ("/apis/apps/v1beta9/namespaces/default/deployments/absent", {}),
        ("/api/v9/namespaces/default/configmaps/absent", {}),
        ("/api/v1/namespaces/default/nothings/absent", {}),
        ("/api/v1/namespaces/default/configmaps/absent/resize", {}),
        ("/apis/apps/v1/namespaces/default/nothings/absent", {}),
    ],
)
async def test_what_is_not_there(
    kube: Kube, storms: Resource, path: str, details: dict[str, str] | None
) -> None:
    """A Status names it; what is not served is a bare Status in built-in groups, else a text (None)."""
    async with kube._open("GET", path, None, None, "application/json", 30) as answer:
        body = await answer.read()
    assert answer.status == 404
    if details is None:
        assert body == b"404 page not found\n"
        return
    status = json.loads(body)
    assert (status["kind"], status["reason"]) == ("Status", "NotFound")
    told = status.get("details") or {}
    assert {k: told.get(k) for k in details} == details
    assert details or not told.get("name"), told
