"""The http probe against a server that answers, refuses, redirects, hangs, and talks nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from gameday.platform.errors import PlatformError, Unreachable
from gameday.platform.world import World
from gameday.probes.http import Http, HttpSpec
from tests.support.monitoring import free_port
from tests.support.polling import left_at_once

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
WORLD = World(kube=None)  # type: ignore[arg-type]


async def ask(url: str, **options: Any) -> list[tuple[str, Any]]:
    return list((await Http().measure(HttpSpec.model_validate({"url": url, **options}), WORLD)).series)


async def handler(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            await asyncio.sleep(0.2)  # what the latency is to be
            return response
        case "/login":
            raise web.HTTPFound("/")
        case "/echo":
            body = await request.text()
            return web.json_response(
                {"body": body, "method": request.method, "x": request.headers.get("X-A")}
            )
        case "/json":
            return web.json_response({"queue": {"depth": 7}, "items": [{"n": 1}, {"n": 2}], "empty": None})
    return web.Response(text="well", status=200 if request.path == "/" else 404)


async def test_status(serve: Serve) -> None:
    url = await serve(handler)
    assert await ask(url) == [("", 200.0)]
    assert await ask(url + "/missing") == [("", 404.0)]
    assert await ask(url + "/login") == [("", 302.0)]
    assert await ask(url + "/login", followRedirects=True) == [("", 200.0)]


async def test_latency_counts_until_all_is_read(serve: Serve) -> None:
    ((_, took),) = await ask(await serve(handler) + "/slow", measure="latency")
    assert took > 0.19


async def test_a_field_of_json(serve: Serve) -> None:
    url = await serve(handler)
    assert await ask(url + "/json", measure="json", jsonPath="{.queue.depth}") == [("", 7)]
    assert await ask(url + "/json", measure="json", jsonPath="{.items[*].n}") == [("[0]", 1), ("[1]", 2)]
    assert await ask(url + "/json", measure="json", jsonPath="{.empty}") == []
    with pytest.raises(PlatformError, match="leads to a list"):
        await ask(url + "/json", measure="json", jsonPath="{.items}")
    with pytest.raises(PlatformError, match="no JSON: 'well'"):
        await ask(url, measure="json", jsonPath="{.x}")


async def test_what_is_sent(serve: Serve) -> None:
    url = await serve(handler) + "/echo"
    sent = {"method": "POST", "headers": {"X-A": "b"}, "measure": "json"}
    assert await ask(url, **sent, body={"a": 1}, jsonPath="{.body}") == [("", '{"a": 1}')]
    assert await ask(url, **sent, body="text", jsonPath="{.body}") == [("", "text")]
    assert await ask(url, **sent, jsonPath="{.method}") == [("", "POST")]
    assert await ask(url, **sent, jsonPath="{.x}") == [("", "b")]


async def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match="cannot be asked"):
        await ask(f"http://127.0.0.1:{free_port()}")


async def test_it_can_be_left_at_once(serve: Serve) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    asked = asyncio.Event()
    task = asyncio.create_task(ask(await serve(hang)))
    await asked.wait()
    assert await left_at_once(task)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"url": "example.com"}, "is not a URL"),
        ({"url": "http://x", "measure": "json"}, "need each other"),
        ({"url": "http://x", "jsonPath": "{.a}"}, "need each other"),
        ({"url": "http://x", "measure": "json", "jsonPath": "{.a[}"}, "is not a JSONPath"),
        ({"url": "http://x", "method": "get"}, "Input should be"),
    ],
)
def test_mistakes(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HttpSpec.model_validate(spec)


def test_short_form() -> None:
    assert HttpSpec.model_validate("http://x/y").url == "http://x/y"
