"""A kind of the tests' own, whose status nobody but the test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, is_true
from tests.support.polling import eventually


@asynccontextmanager
async def widgets(kube: Kube) -> AsyncIterator[Resource]:
    """The kind, served, under a group that no other test uses."""
    group = f"w{uuid4().hex[:8]}.example.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wi"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }
    ref = Ref.of(await kube.create(crd))
    await eventually(lambda: kube.get(ref), lambda obj: is_true(obj, "Established"))
    resource = Resource(f"{group}/v1", "Widget", "widgets")

    async def served() -> bool:
        try:
            await kube.list(resource)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    await eventually(served)
    yield resource
    await kube.delete(ref)


async def widget(kube: Kube, kind: Resource, namespace: str, name: str, **status: object) -> Ref:
    """A widget with that status."""
    obj: Object = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"kind": "widget"}},
        "spec": {"size": 1},
    }
    ref = Ref.of(await kube.create(obj))
    if status:
        await say(kube, ref, **status)
    return ref


async def say(kube: Kube, ref: Ref, **status: object) -> None:
    """Write a status, as its controller would."""
    await kube.patch(ref, {"status": status}, "merge", subresource="status")
