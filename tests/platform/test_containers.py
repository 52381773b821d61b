"""Logs of containers and commands in them, on the way that real ones take: API server, then kubelet."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.resources import NODES, PODS
from tests.platform.arrange import pod
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy

MACHINE = "cluster.x-k8s.io/machine"
SLURM = "app.kubernetes.io/component=controller"


@pytest.fixture
async def controller(kube: Kube) -> Ref:
    """The sandbox's Slurm controller, in whose container `scontrol` can be run."""

    async def ready() -> list[Object]:
        return [p for p in await kube.list(PODS, "slurm", labels=SLURM) if is_ready(p)]

    return Ref.of((await eventually(ready))[0])


async def test_a_command_and_its_output(kube: Kube, controller: Ref) -> None:
    done = await kube.exec(controller, "slurmctld", ["scontrol", "show", "nodes", "--json"])
    assert (done.code, done.stderr) == (0, "")
    assert "gpu-0" in {n["name"] for n in json.loads(done.stdout)["nodes"]}


async def test_arguments_arrive_as_they_are(kube: Kube, controller: Ref) -> None:
    odd = "gpu-0 &?=%\"'ä"
    done = await kube.exec(controller, "slurmctld", ["scontrol", "show", "node", odd])
    assert odd in done.stdout + done.stderr


async def test_a_command_that_fails_says_how(kube: Kube, controller: Ref) -> None:
    done = await kube.exec(controller, "slurmctld", ["scontrol", "show", "node", "no-such-node"])
    assert done.code == 1, done


async def test_a_command_that_is_not_there(kube: Kube, controller: Ref) -> None:
    with pytest.raises(ApiError) as refused:
        await kube.exec(controller, "slurmctld", ["no-such-command"])
    assert 'exec: "no-such-command": executable file not found' in str(refused.value)
    assert "container slurmctld of Pod slurm/" in str(refused.value)


async def test_a_pod_or_container_that_is_not_there(kube: Kube, controller: Ref) -> None:
    with pytest.raises(ApiError) as refused:
        await kube.exec(Ref("v1", "Pod", "nobody", "slurm"), "main", ["true"])
    assert refused.value.status == 404
    assert 'pods "nobody" not found' in str(refused.value)
    with pytest.raises(ApiError) as refused:
        await kube.exec(controller, "nobody", ["true"])
    assert refused.value.status == 400
    assert "container nobody is not valid for pod" in str(refused.value)


async def test_without_permission(platform: Platform, controller: Ref) -> None:
    if platform.restricted_kubeconfig is None:
        pytest.skip("the embedded API lets everybody do everything")
    async with await Kube.connect(platform.restricted_kubeconfig) as nobody:
        with pytest.raises(ApiError) as refused:
            await nobody.exec(controller, "slurmctld", ["true"])
    assert refused.value.status == 403
    assert 'cannot get resource "pods/exec"' in str(refused.value)


async def test_a_pod_that_no_node_has(kube: Kube, namespace: str) -> None:
    waiting = Ref.of(await kube.create(pod(namespace)))
    try:
        with pytest.raises(ApiError) as refused:
            await kube.exec(waiting, "main", ["true"])
        assert "does not have a host assigned" in str(refused.value)
        assert await kube.logs(waiting, "main") == ""
    finally:
        await kube.delete(waiting, grace=0)


async def test_a_kubelet_that_does_not_answer(kube: Kube, platform: Platform, controller: Ref) -> None:
    node = (await kube.get(controller))["spec"]["nodeName"]
    kube.patience, patience = 0.0, kube.patience
    platform.control(f"nodes/{node}/stop")
    try:
        with pytest.raises((ApiError, Unreachable)) as refused:
            await kube.exec(controller, "slurmctld", ["scontrol", "ping"])
        assert "container slurmctld" in str(refused.value)
        with pytest.raises(ApiError) as gone:
            await kube.logs(controller, "slurmctld")
        assert gone.value.status in (500, 502, 503)
    finally:
        kube.patience = patience
        platform.control(f"nodes/{node}/start")
    done = await kube.exec(controller, "slurmctld", ["scontrol", "show", "nodes", "--json"])
    assert done.code == 0


async def test_the_log_of_a_container(kube: Kube, controller: Ref) -> None:
    whole = await kube.logs(controller, "slurmctld")
    assert whole.endswith("\n")
    assert await kube.logs(controller, "slurmctld", limit=5) == whole[:5]
    assert await kube.logs(controller, "slurmctld", lines=0) == ""


async def test_the_log_on_a_node_that_joined_later(kube: Kube) -> None:
    """Of the nodes that a MachineSet made, which are not there when the platform is set up."""

    async def joined() -> list[Object]:
        nodes = await kube.list(NODES)
        return [n for n in nodes if MACHINE in (n["metadata"].get("annotations") or {}) and is_ready(n)]

    node = (await eventually(joined))[0]["metadata"]["name"]
    ref = Ref.of(await kube.create(pod("default", node=node)))
    try:
        await eventually(lambda: kube.find(ref), lambda found: bool(found and is_ready(found)))
        assert "sandbox keeps no logs" in await kube.logs(ref, "main")
    finally:
        await kube.delete(ref, grace=0)


async def test_a_log_that_cannot_be_had_is_not_asked_for_for_long(
    api_proxy: ApiProxy, controller: Ref
) -> None:
    """The API server answers 500 for a node out of its reach, and a run asks for the logs of many pods."""
    api_proxy.fail("GET", "/log", 500, message="error dialing backend", times=99)
    async with await Kube.connect(api_proxy.kubeconfig) as ours:
        with pytest.raises(ApiError):
            await ours.logs(controller, "slurmctld")
    assert len([r for r in api_proxy.requests if "/log" in r]) < 5


async def test_an_api_server_that_is_not_there(tmp_path: Path, platform: Platform, controller: Ref) -> None:
    config = tmp_path / "kubeconfig"
    text = platform.kubeconfig.read_text()
    config.write_text(text.replace(platform.api_url, "http://127.0.0.1:9"))
    async with await Kube.connect(config) as away:
        away.patience = 0.0
        with pytest.raises(Unreachable) as failed:
            await away.exec(controller, "slurmctld", ["true"])
    assert "127.0.0.1" in str(failed.value)


async def test_kubectl_reads_the_same(platform: Platform, kube: Kube, controller: Ref) -> None:
    """`kubectl logs`, which knows nothing of us, finds the log where we do."""
    which = [controller.name, "--container=slurmctld", "--tail=50"]
    command = [platform.kubectl, f"--kubeconfig={platform.kubeconfig}", "--namespace=slurm"]

    def said() -> str:
        done = subprocess.run([*command, "logs", *which], capture_output=True, text=True, check=False)
        return done.stdout

    async def same() -> bool:  # the log may grow between the two
        ours = await kube.logs(controller, "slurmctld")
        return bool(ours) and await asyncio.to_thread(said) == ours

    await eventually(same)
