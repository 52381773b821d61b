"""A kind of the tests' own, whose status nobody but the test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from tests.support.kinds import Served, create, serving


@asynccontextmanager
async def widgets(kube: Kube) -> AsyncIterator[Resource]:
    """The kind, served, under a group that no other test uses."""
    kind = Served(f"w{uuid4().hex[:8]}.example.com/v1", "Widget", "widgets", short=("wi",))
    async with serving(kube, [kind]):
        yield kind.resource


async def widget(kube: Kube, kind: Resource, namespace: str, name: str, **status: object) -> Ref:
    """A widget with that status."""
    obj: Object = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"kind": "widget"}},
        "spec": {"size": 1},
    }
    return await create(kube, obj, **status)


async def say(kube: Kube, ref: Ref, **status: object) -> None:
    """Write a status, as its controller would."""
    await kube.patch(ref, {"status": status}, "merge", subresource="status")
