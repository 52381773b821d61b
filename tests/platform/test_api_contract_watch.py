"""How watches behave: the same on the sandbox and on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import CONFIG_MAPS, PODS
from tests.platform.arrange import config_map, pod, unique

Event = tuple[str, Object]


async def version(kube: Kube, namespace: str) -> str:
    page = json.loads(await kube.request("GET", CONFIG_MAPS.path(namespace), query={"limit": 1}))
    return str(page["metadata"]["resourceVersion"])


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next events that are no bookmarks."""
    found: list[Event] = []
    async with asyncio.timeout(20):
        async for kind, obj in events:
            if kind != "BOOKMARK":
                found.append((kind, obj))
            if len(found) == count:
                break
    return found


def names(events: list[Event]) -> list[tuple[str, str]]:
    return [(kind, obj["metadata"]["name"]) for kind, obj in events]


async def raw(kube: Kube, path: str, **query: str) -> list[Object]:
    """Every event of a watch that ends by itself."""
    query = {"watch": "true", **query}
    answer = await kube.request("GET", path, query=query)
    return [json.loads(line) for line in answer.splitlines()]


async def test_watch_from_a_version_sees_everything_since(kube: Kube, namespace: str) -> None:
    start = await version(kube, namespace)
    obj = config_map(namespace, labels={"watched": unique("w")}, a="1")
    labels = f"watched={obj['metadata']['labels']['watched']}"
    name = obj["metadata"]["name"]
    ref = Ref.of(await kube.create(obj))
    changed = await kube.patch(ref, {"data": {"a": "2"}}, "merge")
    await kube.delete(ref)
    events = await take(kube.watch(CONFIG_MAPS, namespace, labels=labels, version=start), 3)
    assert names(events) == [("ADDED", name), ("MODIFIED", name), ("DELETED", name)]
    versions = [int(o["metadata"]["resourceVersion"]) for _, o in events]
    assert versions == sorted(versions)
    assert versions[1] == int(changed["metadata"]["resourceVersion"])
    assert versions[2] > versions[1]  # a deletion has a version of its own
    assert events[2][1]["data"] == {"a": "2"}
    later = await take(kube.watch(CONFIG_MAPS, namespace, labels=labels, version=str(versions[0])), 2)
    assert [kind for kind, _ in later] == ["MODIFIED", "DELETED"]


async def test_watch_is_live(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace)
    fields = {"metadata.name": obj["metadata"]["name"]}
    start = await version(kube, namespace)
    watching = asyncio.create_task(take(kube.watch(CONFIG_MAPS, namespace, fields=fields, version=start), 1))
    await kube.create(config_map(namespace))  # not the one
    await kube.create(obj)
    assert names(await watching) == [("ADDED", obj["metadata"]["name"])]


async def test_selection_shows_as_added_and_deleted(kube: Kube, namespace: str) -> None:
    start = await version(kube, namespace)
    mark = unique("mark")
    ref = Ref.of(await kube.create(config_map(namespace, labels={"mark": "other"}, a="1")))
    await kube.patch(ref, {"metadata": {"labels": {"mark": mark}}}, "merge")
    await kube.patch(ref, {"data": {"a": "2"}}, "merge")
    left = await kube.patch(ref, {"metadata": {"labels": {"mark": "other"}}, "data": {"a": "3"}}, "merge")
    await kube.delete(ref)
    sees = kube.watch(CONFIG_MAPS, namespace, labels=f"mark={mark}", version=start)
    events = await take(sees, 3)
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    last = events[2][1]
    assert last["data"] == {"a": "2"}  # the last state that was selected …
    assert (
        last["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    )  # … at the change's version


async def test_field_selectors_on_watches(kube: Kube, namespace: str, node: str) -> None:
    start = json.loads(await kube.request("GET", PODS.path(namespace)))["metadata"]["resourceVersion"]
    await kube.create(pod(namespace))
    bound = await kube.create(pod(namespace, node=node))
    fields = {"spec.nodeName": node, "status.phase": "Pending"}
    ref = Ref.of(bound)
    await kube.patch(ref, {"status": {"phase": "Running"}}, "merge", subresource="status")
    events = await take(kube.watch(PODS, namespace, fields=fields, version=start), 2)
    assert names(events) == [("ADDED", ref.name), ("DELETED", ref.name)]
    await kube.delete(ref, grace=0)


@pytest.mark.parametrize("start", ["", "0"])
async def test_watch_from_nowhere_begins_with_what_is_there(kube: Kube, namespace: str, start: str) -> None:
    obj = await kube.create(config_map(namespace))
    name = obj["metadata"]["name"]
    query = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": "1"}
    (event,) = await raw(kube, CONFIG_MAPS.path(namespace), resourceVersion=start, **query)
    assert (event["type"], event["object"]["metadata"]["uid"]) == ("ADDED", obj["metadata"]["uid"])


async def test_a_list_as_a_stream(kube: Kube, namespace: str) -> None:
    obj = await kube.create(config_map(namespace))
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "1",
        "fieldSelector": f"metadata.name={obj['metadata']['name']}",
    }
    first, second, *_ = await raw(kube, CONFIG_MAPS.path(namespace), **query)
    assert (first["type"], second["type"]) == ("ADDED", "BOOKMARK")
    annotations: dict[str, Any] = second["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


async def test_follow_reports_changes_and_deletions(kube: Kube, namespace: str) -> None:
    mark = unique("follow")
    obj = config_map(namespace, labels={"mark": mark})
    ref = Ref.of(await kube.create(obj))
    following = follow(kube, CONFIG_MAPS, namespace, labels=f"mark={mark}")
    first = await take(following, 2)
    assert [kind for kind, _ in first] == ["ADDED", "SYNCED"]
    await kube.delete(ref)
    last = await take(following, 1)
    assert names(last) == [("DELETED", ref.name)]
