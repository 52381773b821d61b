"""GPUs as the kubelet counts them: NVIDIA's own device plugin, over NVIDIA's own simulation of a DGX A100.

Only the driver's library is not NVIDIA's (tests/controlplane/driver): it asks the simulation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.devices import allocatable_gpus
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from tests.controlplane import nvidia
from tests.real_node.experiments import write
from tests.real_node.pods import MAIN, manifest, running
from tests.support.node import RealNode
from tests.support.polling import eventually
from tests.support.program import Program

SPACE = "gpu-operator"
LABEL = "nvidia.com/gpu.deploy.device-plugin"
PRESENT = "nvidia.com/gpu.present"
DRIVER = "/run/nvidia/driver"  # where the GPU Operator's driver container puts the driver
PLUGINS = "/var/lib/kubelet/device-plugins"
GPUS = 8
OPERATOR = "as the GPU Operator does"


@pytest.fixture(scope="module")
def driver(node: RealNode) -> None:
    """The node has a driver, and the plugin's image."""
    node.run("mkdir", "-p", f"{DRIVER}/usr/lib64", "/run/nvidia/simulated")
    node.run("cp", str(nvidia.build() / nvidia.LIBRARY), f"{DRIVER}/usr/lib64/")
    node.run("ctr", "--namespace=k8s.io", "images", "import", str(nvidia.image()))


@pytest.fixture(scope="module", params=[OPERATOR, "as a plain DaemonSet"])
async def plugin(
    request: pytest.FixtureRequest, driver: None, kube: Kube, node: RealNode
) -> AsyncIterator[str]:
    """The device plugin runs and has told the kubelet of its GPUs."""
    with_operator = request.param == OPERATOR
    labels = {PRESENT: "true", LABEL: "true" if with_operator else None}
    await kube.patch(Ref("v1", "Node", node.name), {"metadata": {"labels": labels}}, "merge")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    if await kube.find(Ref.of(space)) is None:
        await kube.create(space)
    daemons = Ref.of(await kube.create(_daemon_set(LABEL if with_operator else PRESENT)))
    await _allocatable(kube, node, GPUS)
    yield request.param
    await kube.delete(daemons)
    await eventually(lambda: _pods(kube), lambda pods: not pods)
    await _allocatable(kube, node, 0)
    gone = dict.fromkeys(labels)  # the janitor's pods, for one, keep off GPU nodes
    await kube.patch(Ref("v1", "Node", node.name), {"metadata": {"labels": gone}}, "merge")


def _daemon_set(label: str) -> Object:
    name = "nvidia-device-plugin-daemonset"
    volumes = {"driver-root": DRIVER, "plugins": PLUGINS, "simulated": "/run/nvidia/simulated"}
    paths = volumes | {"driver-root": "/driver-root"}
    container = {
        "name": "nvidia-device-plugin",
        "image": nvidia.IMAGE,
        "imagePullPolicy": "Never",
        "command": ["nvidia-device-plugin"],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in paths.items()],
    }
    template: dict[str, Any] = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "nodeSelector": {label: "true"},
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": volume, "hostPath": {"path": path}} for volume, path in volumes.items()],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


async def _allocatable(kube: Kube, node: RealNode, count: int) -> None:
    ref = Ref("v1", "Node", node.name)
    await eventually(lambda: kube.get(ref), lambda obj: allocatable_gpus(obj) == count, within=60)


async def _pods(kube: Kube) -> list[Object]:
    return await kube.list(PODS, SPACE)


async def _label(kube: Kube, node: RealNode) -> str | None:
    found = await kube.get(Ref("v1", "Node", node.name))
    value: str | None = found["metadata"]["labels"].get(LABEL)
    return value


def _device_loss(folder: Path, node: RealNode, hold: str) -> Path:
    step = {"gpu": {"nodes": {"names": [node.name]}, "deviceLoss": {}}, "for": hold}
    return write(folder, node, step, spaces=("default", SPACE))  # whose DaemonSet may be edited


async def test_a_pod_gets_gpus_from_the_plugin(kube: Kube, node: RealNode, plugin: str) -> None:
    asks = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    command = ("sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES; sleep 600")
    async with running(kube, manifest(node, "trains", *command, container=asks)) as pod:
        said = await eventually(lambda: kube.logs(pod, MAIN))
    assert [name[:4] for name in said.strip().split(",")] == ["GPU-", "GPU-"]


async def test_gpus_leave_allocatable_and_return(
    kube: Kube, node: RealNode, plugin: str, gameday: Program, tmp_path: Path
) -> None:
    before = await _label(kube, node)
    ended = gameday.run(_device_loss(tmp_path, node, "2s"))
    assert ended.code == 0, ended.output
    facts = {e["state"]: e["evidence"] for e in ended.of("fault") if e["state"] in ("in", "out")}
    assert facts["in"] == [f"{node.name}: 0 of {GPUS} GPUs allocatable"]
    assert facts["out"] == [f"{node.name}: {GPUS} of {GPUS} GPUs allocatable"]
    assert await _label(kube, node) == before
    assert all(pod["status"]["phase"] == "Running" for pod in await _pods(kube))


async def test_gpus_return_when_gameday_is_killed(
    kube: Kube, node: RealNode, plugin: str, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(_device_loss(tmp_path, node, "300s")) as run:
        run.fault_is("in")
        run.kill()
    await _allocatable(kube, node, 0)
    ended = gameday("recover", "--run", run.folder.name, "--force")
    assert ended.code == 0, ended.output
    await _allocatable(kube, node, GPUS)


async def test_an_xid_takes_one_gpu_away_until_the_plugin_restarts(
    kube: Kube, node: RealNode, plugin: str
) -> None:
    await _xid(kube, node, "3 31", says="Skipping event")  # the application's fault, not the GPU's
    await _allocatable(kube, node, GPUS)
    await _xid(kube, node, "3 79", says="Xid=79")
    await _allocatable(kube, node, GPUS - 1)
    (pod,) = await _pods(kube)
    await kube.delete(Ref.of(pod))
    await _allocatable(kube, node, GPUS)


async def _xid(kube: Kube, node: RealNode, event: str, *, says: str) -> None:
    """An event of the driver, and what the plugin makes of it."""
    node.run("sh", "-c", f"cd /run/nvidia/simulated && echo {event} > new && mv new events")
    (pod,) = await _pods(kube)
    await eventually(lambda: kube.logs(Ref.of(pod), "nvidia-device-plugin"), lambda text: says in text)
