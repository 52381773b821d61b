"""A change is sent once, also by a GET, which HTTP libraries send again when the connection breaks."""

from __future__ import annotations

import pytest

from gameday.platform.errors import Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.slurm.rest import SlurmRest
from tests.support.proxy import ApiProxy
from tests.support.raw import Asked, answer, raw_server

REQUEUE = "/slurm/v0.0.45/job/{job_id}/requeue"


async def test_a_requeue_by_slurmrestd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was requeued, and the connection broke before slurmrestd could say so."""
    monkeypatch.setenv("SLURM_JWT", "a.b.c")

    def respond(asked: Asked) -> bytes:
        return answer(200, {"paths": {REQUEUE: {"get": {}}}}) if asked.path.startswith("/openapi") else b""

    async with raw_server(respond) as server:
        with pytest.raises(Unreachable) as failed:
            await SlurmRest(server.url, "root").requeue(7)
        assert [a.path for a in server.asked[1:]] == [REQUEUE.format(job_id=7)]
    assert failed.value.may_land


async def test_a_command_in_a_container(kube: Kube, api_proxy: ApiProxy) -> None:
    """As `scontrol requeue` may be; the API server, or what is before it, breaks off."""
    api_proxy.hang_up("GET", "/exec", times=9)
    async with await Kube.connect(api_proxy.kubeconfig) as ours:
        with pytest.raises(Unreachable) as failed:
            await ours.exec(Ref("v1", "Pod", "a", "default"), "main", ["scontrol", "requeue", "7"])
    assert len([r for r in api_proxy.requests if "/exec" in r]) == 1
    assert failed.value.may_land
