"""slurmrestd is upgraded while a process goes on, as a janitor does for weeks: new versions are asked."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import SlurmError, Via
from tests.support.answering import answering

NO_KUBE = None  # this way needs no cluster
READ: dict[str, Any] = {"get": {}}
CHANGE: dict[str, Any] = {"get": {}, "post": {}}
GONE = "Unable find requested URL. Please view /openapi/v3 for API reference."  # slurmrestd 22.05


class Restd:
    """Speaks the versions that it is given; what it does not serve is answered as slurmrestd answers it."""

    def __init__(self, *versions: int, changes: bool = True) -> None:
        self.upgraded(*versions, changes=changes)
        self.asked: list[str] = []

    def upgraded(self, *versions: int, changes: bool = True) -> None:
        paths = {"nodes": READ, "node/{node_name}": CHANGE if changes else READ}
        self.paths = {f"/slurm/v0.0.{v}/{path}": methods for v in versions for path, methods in paths.items()}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/openapi/v3":
            return web.json_response({"paths": self.paths})
        if request.path.replace("/gpu-0", "/{node_name}") not in self.paths:
            return web.Response(status=404, text=GONE)
        return web.json_response({"nodes": [], "errors": []})


def of(url: str) -> Slurm:
    return Slurm.of(Via(url=url, user="x"), NO_KUBE)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "a.b.c")


async def test_a_version_that_was_taken_away() -> None:
    restd = Restd(39, 40)
    async with answering() as serve:
        url = await serve(restd.answer)
        assert await of(url).nodes() == []
        restd.upgraded(41, 42)
        assert await of(url).nodes() == []
        assert restd.asked[-1] == "GET /slurm/v0.0.42/nodes"
        restd.upgraded(43)
        restd.asked.clear()
        await of(url).update_node("gpu-0", "RESUME")
        assert [a for a in restd.asked if a.startswith("POST")] == [
            "POST /slurm/v0.0.42/node/gpu-0",
            "POST /slurm/v0.0.43/node/gpu-0",
        ]


async def test_a_change_that_an_upgrade_brought() -> None:
    restd = Restd(38, changes=False)
    async with answering() as serve:
        url = await serve(restd.answer)
        assert "can't update nodes" in await of(url).cannot("node")
        restd.upgraded(39)
        assert await of(url).cannot("node") == ""
        await of(url).update_node("gpu-0", "RESUME")
        assert restd.asked[-1] == "POST /slurm/v0.0.39/node/gpu-0"


async def test_what_is_not_there_although_it_is_listed_is_asked_for_once() -> None:
    restd = Restd(40)
    async with answering() as serve:
        url = await serve(restd.answer)
        with pytest.raises(SlurmError, match="Unable find requested URL"):
            await of(url).update_node("gpu-7", "RESUME")
        assert [a for a in restd.asked if a.startswith("POST")] == ["POST /slurm/v0.0.40/node/gpu-7"]
