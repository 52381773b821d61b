"""A request to another system arrives after the undo, of a run that is alive or was killed: nothing stays.

What took it first and kept it stands in for a proxy, for a daemon that is slow, or for a command that goes on
running in its container when nobody listens to it any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.activity import Activity
from gameday.ledger.argocd import Rollback
from gameday.ledger.dcgm import DcgmInject
from gameday.ledger.gpud import GpudInject
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.operations import ATTEMPTS, Operation
from gameday.ledger.recovery import How, recover
from gameday.ledger.slurm import OutOfService
from gameday.node.task import Task
from gameday.platform import dcgm, gpud
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import Via
from tests.support import gitops
from tests.support.ledgers import unguarded
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy

RUN = "late-elsewhere"
NODE = Ref("v1", "Node", "gpu-6")
IN_POD = Via(namespace="slurm", selector="app.kubernetes.io/component=controller", container="slurmctld")
Deliver = Callable[[], Awaitable[object]]
IsOut = Callable[[], Awaitable[bool]]


@asynccontextmanager
async def between(url: str, folder: Path) -> AsyncIterator[tuple[ApiProxy, str]]:
    """What stands before a server that is no API server, and its address."""
    upstream, near = folder / "upstream", folder / "near"
    upstream.write_text(json.dumps({"clusters": [{"cluster": {"server": url}}]}))
    proxy = ApiProxy(upstream, near)
    await asyncio.to_thread(proxy.start)
    try:
        yield proxy, json.loads(near.read_text())["clusters"][0]["cluster"]["server"]
    finally:
        await asyncio.to_thread(proxy.close)


@pytest.fixture
async def unlucky(kube: Kube, api_proxy: ApiProxy) -> AsyncIterator[Kube]:
    """The run's client."""
    await ensure_namespace(kube)
    async with await Kube.connect(api_proxy.kubeconfig) as client:
        yield client


@dataclass
class Late:
    """Makes a change whose request is kept, undoes it, and lets the request arrive at the worst moment."""

    died: bool
    kube: Kube
    unlucky: Kube
    folder: Path
    arriving: list[Deliver]

    async def tried(
        self, operation: Operation, deliver: Deliver, is_out: IsOut, begun: Path | None = None
    ) -> None:
        """With `begun`, a file: the change is cut off once the file is there."""
        ledger = unguarded(self.unlucky, RUN, self.folder, {}, lambda _: None)
        making = asyncio.ensure_future(ledger.step("1").perform([operation]))
        if begun is not None:
            await eventually(lambda: asyncio.to_thread(begun.exists))
            making.cancel()
        with pytest.raises((PlatformError, asyncio.CancelledError)):
            await making
        ledger.kube = self.kube  # the network is well again
        self.arriving.append(deliver)
        if self.died:
            restored = (await recover(self.kube, RUN, lambda _: None, how=How(force=True))).restored
        else:
            restored = {a.state for a in await ledger.restore()} == {"restored"}
            await ledger.close(restored=restored)
        while self.arriving:  # nobody waited
            await self.arriving.pop()()
        assert (restored, await is_out()) == (True, True)


@pytest.fixture(params=[False, True], ids=["alive", "killed"])
def late(
    request: pytest.FixtureRequest, kube: Kube, unlucky: Kube, tmp_path: Path, arriving: list[Deliver]
) -> Late:
    return Late(request.param, kube, unlucky, tmp_path, arriving)


async def test_slurm(
    late: Late, platform: Platform, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JWT", platform.slurm_token)
    async with between(platform.slurm_url, tmp_path) as (proxy, url):
        slurm = Slurm.of(Via(url=url), kube)
        proxy.postpone("POST", f"/node/{NODE.name}")
        drain = OutOfService(Via(url=url), NODE.name, "DRAIN", RUN, "test", "idle")

        async def is_out() -> bool:
            return not (await slurm.node(NODE.name)).out

        await late.tried(drain, _from(proxy), is_out)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "slurm_update error: Socket timed out on send/recv operation"),
        (1, "slurm_update error: Message receive failure"),
        (137, ""),
    ],
    ids=["too slow", "broken off", "killed"],
)
async def test_scontrol_in_a_pod(code: int, said: str, late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    slurm = Slurm.of(IN_POD, kube)
    api_proxy.end_command("exec.*command=update", code, said)
    drain = OutOfService(IN_POD, NODE.name, "DRAIN", RUN, "test", "idle")

    async def is_out() -> bool:
        return not (await slurm.node(NODE.name)).out

    await late.tried(drain, _from(api_proxy), is_out)


@pytest.mark.parametrize("code", [0, 245, 143], ids=["cut off", "timed out", "killed"])
async def test_dcgmi(code: int, late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    """245 is DCGM_ST_TIMEOUT, -11, as an exit code: the engine did not answer dcgmi in time."""
    inject = await DcgmInject.of(kube, NODE, 1, 202, 10.0)
    if code:
        api_proxy.end_command("exec.*command=--inject", code, "Error: Unable to inject info. Return: Timeout")
    else:
        api_proxy.postpone("GET", "exec.*command=--inject")

    async def is_out() -> bool:
        return not await dcgm.value(kube, NODE.name, 1, 202)

    await late.tried(inject, _from(api_proxy), is_out)


@pytest.mark.parametrize("status", [0, 500, 502, 504, 520])
async def test_gpud(status: int, late: Late, platform: Platform, tmp_path: Path) -> None:
    """Also behind a gateway that does not wait for it."""
    async with between(platform.gpud_url.partition("/gpud/")[0], tmp_path) as (proxy, near):
        url = f"{near}/gpud/{NODE.name}"
        proxy.postpone("POST", "inject-fault", status)

        async def is_out() -> bool:
            return await gpud.is_healthy(url, gpud.XID_COMPONENT)

        inject = await GpudInject.of(NODE, url, 79)
        await late.tried(inject, _from(proxy), is_out)


async def test_an_error_that_dcgm_holds(late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    """Its value is not all that comes late: the engine's health holds the error until it starts anew."""
    inject = await DcgmInject.of(kube, NODE, 3, dcgm.XID_FIELD, 79)
    api_proxy.hang_up("GET", "exec.*inject")

    async def deliver() -> None:
        engine = await dcgm.engine(kube, NODE.name)
        assert engine is not None
        await dcgm.inject(kube, engine, 3, dcgm.XID_FIELD, 79)

    async def is_out() -> bool:
        engine = await dcgm.engine(kube, NODE.name)
        assert engine is not None
        value = await dcgm.read(kube, engine, 3, dcgm.XID_FIELD)
        return (value or 0, await dcgm.health(kube, engine)) == (0, inject.health)

    await late.tried(inject, deliver, is_out)


@pytest.mark.parametrize("what", ["pods", "configmaps", "rolebindings"])
async def test_a_program_on_a_node(what: str, late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    """It is several objects, any of which may come late."""
    ref = Ref("v1", "Pod", "late-program", "default")
    own = ("default", ref.name)
    task = Task(ref.name, "link-down", {"interface": "ens1f0"}, lease=("gameday", f"gameday-{RUN}"), pod=own)
    program = NodeProgram(ref, RUN, NODE.name, task, Settings("registry.example/python:3"))
    api_proxy.postpone("POST", f"namespaces/default/{what}")

    async def is_out() -> bool:
        return not await program._left(kube)

    await late.tried(program, _from(api_proxy), is_out)


async def test_a_program_one_of_whose_objects_is_refused(late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    """A no to one request says nothing of another one's end."""
    ref = Ref("v1", "Pod", "late-program", "default")
    own = ("default", ref.name)
    task = Task(ref.name, "link-down", {"interface": "ens1f0"}, lease=("gameday", f"gameday-{RUN}"), pod=own)
    program = NodeProgram(ref, RUN, NODE.name, task, Settings("registry.example/python:3"))
    api_proxy.fail("POST", "default/configmaps", 403, reason="Forbidden", message="too many")
    api_proxy.postpone("POST", "default/rolebindings")

    async def is_out() -> bool:
        return not await program._left(kube)

    await late.tried(program, _from(api_proxy), is_out)


@pytest.mark.parametrize("how", ["fails", "is cut off"])
async def test_an_activity(how: str, late: Late, tmp_path: Path) -> None:
    """What it asked of others, only they know, also when its own end was heard."""
    begun, mark = tmp_path / "begun", tmp_path / "mark"
    hangs = {"type": "process", "path": "sh", "arguments": ["-c", f"touch {begun}; exec sleep 600"]}
    fails = {"type": "python", "module": "os", "func": "unlink", "arguments": {"path": "/nowhere"}}
    ask = {"type": "action", "name": "ask", "provider": fails if how == "fails" else hangs}
    wipe = {"type": "process", "path": "rm", "arguments": ["-f", str(mark)]}
    undo = {"type": "action", "name": "wipe", "provider": wipe}
    activity = Activity("ask", "ask somebody", activity=ask, undo_with=undo)

    async def deliver() -> None:
        mark.write_text("late")

    async def is_out() -> bool:
        return not mark.exists()

    await late.tried(activity, deliver, is_out, begun if how == "is cut off" else None)


@pytest.mark.parametrize("then", ["lost", "refused"])
async def test_a_rollback(then: str, late: Late, kube: Kube, api_proxy: ApiProxy) -> None:
    """Its requests are good for one version of the Application alone, which the undo replaces.

    A no to the second request does not say that the first one was not carried out.
    """
    await gitops.ensure_namespace(kube)
    async with gitops.deployed(kube, gitops.application("settings")) as ref:
        history = (await kube.get(ref))["status"]["history"]
        rollback = Rollback(ref, RUN, to=history[1], before=history[-1], prune_back=True)
        for _ in range(1 if then == "refused" else ATTEMPTS):
            api_proxy.postpone("PATCH", f"applications/{ref.name}")
        if then == "refused":
            api_proxy.fail("PATCH", f"applications/{ref.name}", 403, reason="Forbidden", message="not now")

        async def is_out() -> bool:
            now: dict[str, Any] = await kube.get(ref)
            return "operation" not in now and now["status"]["history"] == history

        await late.tried(rollback, _from(api_proxy), is_out)


async def test_nobody_waits_after_a_plain_no(
    kube: Kube, unlucky: Kube, api_proxy: ApiProxy, platform: Platform, tmp_path: Path
) -> None:
    """An exit code with Slurm's or DCGM's reason, GPUd's own failure, an activity that was never begun."""
    nothing = {"type": "action", "name": "nothing", "provider": {"type": "process", "path": "/nowhere"}}
    refused: list[Operation] = [
        OutOfService(IN_POD, NODE.name, "DRAIN", RUN, "test", "idle"),
        await DcgmInject.of(kube, NODE, 1, 202, 10.0),
        await GpudInject.of(NODE, platform.gpud_url.replace("{node}", NODE.name), 0),
        Activity("ask", "ask somebody", activity=nothing, undo_with=nothing),
    ]
    api_proxy.end_command("exec.*command=update", 1, "slurm_update error: Access/permission denied")
    api_proxy.end_command(
        "exec.*command=--inject", 255, "Error: Unable to inject info. Return: Bad parameter"
    )
    ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
    for operation in refused:
        with pytest.raises(PlatformError):
            await ledger.step("1").perform([operation])
    assert [e.lands_until for e in ledger.entries] == [0.0] * len(refused)
    ledger.kube = kube
    await ledger.undo()
    await ledger.close(restored=True)


def _from(proxy: ApiProxy) -> Deliver:
    async def deliver() -> object:
        return await asyncio.to_thread(proxy.deliver)

    return deliver
