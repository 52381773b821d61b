"""What only the sandbox's API server does: it fails, forbids and forgets when it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gameday.platform.errors import Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import CONFIG_MAPS
from gameday.sandbox.apiserver import ApiServer, Denial, write_kubeconfig
from gameday.sandbox.apiserver.resources import BUILT_IN, Resource
from gameday.sandbox.apiserver.tables import table
from tests.platform.arrange import config_map, refusal

pytestmark = pytest.mark.fast
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@asynccontextmanager
async def serving(directory: Path, token: str = "", **options: Any) -> AsyncIterator[tuple[ApiServer, Kube]]:
    """An API server, and a client of it with that token."""
    server = ApiServer(**options)
    kubeconfig = write_kubeconfig(directory / "kubeconfig", await server.start(), token=token or None)
    try:
        async with await Kube.connect(kubeconfig) as kube:
            kube.patience = 0.0
            yield server, kube
    finally:
        await server.stop()


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[Kube]:
    async with serving(tmp_path, bookmark_every=0.05) as (_, client):
        yield client


async def told(kube: Kube, method: str, path: str, body: Any = None) -> Object:
    answer: Object = json.loads(await kube.request(method, f"/sandbox/{path}", body=body))
    return answer


async def test_the_kubeconfig_names_the_sandbox(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, kube):
        assert kube.context == "gameday-sandbox"
        assert (tmp_path / "kubeconfig").stat().st_mode & 0o777 == 0o600


async def test_failures_are_counted(kube: Kube) -> None:
    match = {"verb": "get", "path": "/configmaps/"}
    failure = {"match": match, "status": 500, "count": 2}
    await told(kube, "PUT", "failures", failure)
    ref = Ref.of(await kube.create(config_map("default")))
    for _ in range(2):
        error = await refusal(kube.get(ref))
        assert (error.status, error.reason) == (500, "InternalError")
    assert await kube.get(ref)
    assert await told(kube, "GET", "failures") == {"failures": []}


async def test_a_failure_may_name_a_time_to_wait(kube: Kube) -> None:
    await told(
        kube, "PUT", "failures", {"match": {"verb": "list"}, "status": 429, "retryAfter": 7, "count": 0}
    )
    for _ in range(3):
        error = await refusal(kube.list(CONFIG_MAPS))
        assert (error.status, error.reason, error.retry_after) == (429, "TooManyRequests", 7)
    await told(kube, "DELETE", "failures")
    assert await kube.list(CONFIG_MAPS) == []


async def test_a_failure_may_delay_or_drop(kube: Kube) -> None:
    await told(kube, "PUT", "failures", {"delay": 0.2})
    started = time.monotonic()
    await kube.list(CONFIG_MAPS)
    assert time.monotonic() - started >= 0.2
    await told(kube, "PUT", "failures", {"status": "drop", "count": 0})
    with pytest.raises(Unreachable):
        await kube.list(CONFIG_MAPS)


async def test_a_bad_failure_is_refused(kube: Kube) -> None:
    assert (await refusal(told(kube, "PUT", "failures", {"match": {"path": "("}}))).status == 400
    assert (await refusal(told(kube, "PUT", "denials", {"verbs": "no"}))).status == 400


async def test_denials_speak_as_rbac_does(tmp_path: Path) -> None:
    denial = Denial(verb="create", resource="configmaps")
    async with serving(tmp_path, denials=[denial]) as (_, kube):
        error = await refusal(kube.create(config_map("default")))
        assert (error.status, error.reason) == (403, "Forbidden")
        assert error.message == (
            'configmaps is forbidden: User "gameday" cannot create resource "configmaps" in API group "" '
            'in the namespace "default"'
        )
        assert await kube.list(CONFIG_MAPS, "default") == []
        await told(kube, "DELETE", "denials")
        await kube.create(config_map("default"))


async def test_access_reviews_know_of_denials(kube: Kube) -> None:
    await told(kube, "PUT", "denials", {"verb": "create", "resource": "pods/eviction"})

    async def allowed(**attributes: str) -> bool:
        body = {"spec": {"resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = json.loads(await kube.request("POST", path, body=body))
        return bool(answer["status"]["allowed"])

    assert not await allowed(verb="create", resource="pods", subresource="eviction")
    assert await allowed(verb="create", resource="pods")


async def test_a_token_names_the_user(tmp_path: Path) -> None:
    async with serving(tmp_path, token="restricted", denials=[Denial(user="restricted")]) as (_, kube):
        error = await refusal(kube.list(CONFIG_MAPS))
        assert error.message == (
            'configmaps is forbidden: User "restricted" cannot list resource "configmaps" in API group "" '
            "at the cluster scope"
        )


async def test_a_wrong_token_is_unauthorized(tmp_path: Path) -> None:
    server = ApiServer(token="right")
    url = await server.start()
    right, wrong = (write_kubeconfig(tmp_path / t, url, token=t) for t in ("right", "wrong"))
    async with await Kube.connect(right) as kube:
        assert await kube.version()
    async with await Kube.connect(wrong) as kube:
        error = await refusal(kube.version())
        assert (error.status, error.reason) == (401, "Unauthorized")
    await server.stop()


async def test_forgotten_history_is_gone(kube: Kube) -> None:
    for number in range(3):
        await kube.create(config_map("default", f"map-{number}"))
    page = json.loads(await kube.request("GET", CONFIG_MAPS.path("default"), query={"limit": 1}))
    await told(kube, "POST", "history/forget")
    query = {"limit": 1, "continue": page["metadata"]["continue"]}
    error = await refusal(kube.request("GET", CONFIG_MAPS.path("default"), query=query))
    assert (error.status, error.reason) == (410, "Expired")
    await kube.create(config_map("default"))
    watching = kube.watch(CONFIG_MAPS, "default", version=str(int(page["metadata"]["resourceVersion"]) - 1))
    assert (await refusal(anext(watching))).status == 410


async def test_the_window_of_events_is_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path, window=3) as (_, kube):
        first = await kube.create(config_map("default"))
        for _ in range(4):
            await kube.create(config_map("default"))
        version = first["metadata"]["resourceVersion"]
        assert (await refusal(anext(kube.watch(CONFIG_MAPS, version=version)))).status == 410


async def test_a_version_that_is_still_to_come(kube: Kube) -> None:
    query = {"resourceVersion": "999999"}
    error = await refusal(kube.request("GET", CONFIG_MAPS.path("default"), query=query))
    assert (error.status, error.reason) == (504, "Timeout")
    assert "Too large resource version: 999999" in error.message


async def test_bookmarks_come_by_themselves(kube: Kube) -> None:
    created = await kube.create(config_map("default"))
    version = created["metadata"]["resourceVersion"]
    watching = kube.watch(CONFIG_MAPS, "default", fields={"metadata.name": "nothing"}, version=version)
    await kube.create(config_map("default"))
    async with asyncio.timeout(10):
        async for kind, obj in watching:
            assert kind == "BOOKMARK"
            if int(obj["metadata"]["resourceVersion"]) > int(version):
                return
    raise AssertionError("the watch ended without a bookmark")


async def test_watches_can_be_ended(kube: Kube) -> None:
    created = await kube.create(config_map("default"))
    watching = kube.watch(CONFIG_MAPS, "default", version=created["metadata"]["resourceVersion"])
    assert (await anext(watching))[0] == "BOOKMARK"
    await told(kube, "POST", "watches/end")
    async with asyncio.timeout(10):
        assert {kind async for kind, _ in watching} <= {"BOOKMARK"}


async def test_a_restarted_server_has_its_objects(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, kube):
        ref = Ref.of(await kube.create(config_map("default")))
        host, port = kube.server.removeprefix("http://").split(":")
        watching = kube.watch(CONFIG_MAPS, version="0")
        assert (await anext(watching))[0] == "ADDED"
        await server.stop()
        with pytest.raises(Unreachable):
            await kube.get(ref)
        await server.start(host, int(port))
        assert await kube.get(ref)


async def test_tables_and_metadata_only(kube: Kube) -> None:
    created = await kube.create(config_map("default", a="1"))
    async with aiohttp.ClientSession(kube.server) as session:

        async def shown(accept: str) -> tuple[int, Object]:
            path = CONFIG_MAPS.path("default", created["metadata"]["name"])
            async with session.get(path, headers={"Accept": accept}) as answer:
                return answer.status, await answer.json()

        _, table = await shown(TABLE)
        assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert table["rows"][0]["cells"][:2] == [created["metadata"]["name"], 1]
        _, partial = await shown("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        assert (partial["kind"], "data" in partial) == ("PartialObjectMetadata", False)
        assert (await shown("application/vnd.kubernetes.protobuf"))[0] == 406


@pytest.mark.parametrize("resource", BUILT_IN, ids=lambda r: r.qualified)
def test_every_column_has_a_cell(resource: Resource) -> None:
    metadata = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    columns, (cells,) = table(resource, [{"metadata": metadata, "spec": {}}])
    assert len(cells) == len(columns)


async def test_events_are_one_collection_in_two_apis(kube: Kube) -> None:
    about = {"kind": "Pod", "name": "a", "namespace": "default"}
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "happened", "namespace": "default"},
        "regarding": about,
        "note": "it happened",
        "reason": "Happened",
        "type": "Normal",
    }
    assert (await kube.create(event))["note"] == "it happened"
    old = await kube.get(Ref("v1", "Event", "happened", "default"))
    assert (old["involvedObject"], old["message"]) == (about, "it happened")
    patched = await kube.patch(Ref.of(event), {"note": "again"}, "merge")
    assert (patched["note"], patched["regarding"]) == ("again", about)


async def test_cost_of_a_large_list_and_of_writes(tmp_path: Path) -> None:
    """No benchmark: a guard against a list or a write that costs ten times what it should."""
    async with serving(tmp_path) as (server, kube):
        for number in range(3000):
            pods = server.catalogue.find("", "v1", "nodes")
            assert pods
            server.store.put((("", "nodes"), "", f"n{number}"), _node(f"n{number}"))
        started = time.process_time()
        answer = await kube.request("GET", "/api/v1/nodes")
        assert len(answer) > 300_000
        assert time.process_time() - started < 1.0
        started = time.process_time()
        await asyncio.gather(*(kube.create(config_map("default")) for _ in range(200)))
        assert time.process_time() - started < 2.0


def _node(name: str) -> Object:
    metadata = {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": {}}
