"""GPUs leave nodes and come back: by the operator's label, and where there is no operator."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.faults.gpu.device_loss import LABEL, is_plugin
from gameday.platform.devices import allocatable_gpus, pods_on
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.experiments import write
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot


def _loss(*nodes: str, hold: str = "30s") -> list[dict[str, Any]]:
    return [{"gpu": {"nodes": {"names": list(nodes)}, "deviceLoss": {}}, "for": hold}]


def _node(name: str) -> Ref:
    return Ref("v1", "Node", name)


async def _label(kube: Kube, node: str, value: str) -> None:
    await kube.patch(_node(node), {"metadata": {"labels": {LABEL: value}}}, "merge")


async def _allocatable(kube: Kube, name: str) -> int:
    return allocatable_gpus(await kube.get(_node(name)))


async def _plugin(kube: Kube, node: str) -> str:
    """The UID of the node's device plugin, "" when it has none."""
    pods = [p for p in await pods_on(kube, node) if is_plugin(p)]
    return str(pods[0]["metadata"]["uid"]) if pods else ""


async def test_gpus_leave_and_come_back(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=_loss("gpu-5", hold="1s"))
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    evidence = {e["state"]: e.get("evidence") for e in ended.of("fault")}
    assert evidence["in"] == ["gpu-5: 0 of 8 GPUs allocatable"]
    assert evidence["out"] == ["gpu-5: 8 of 8 GPUs allocatable"]


@pytest.mark.parametrize("way", ["abort", "kill"])
async def test_gpus_come_back_when_the_run_is_cut_off(
    way: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=_loss("gpu-5"))) as run:
        run.fault_is("in")
        assert await _allocatable(kube, "gpu-5") == 0
        run.signal(signal.SIGINT if way == "abort" else signal.SIGKILL)
        run.ended()
        if way == "kill":
            ended = gameday("recover", "--run", run.folder.name, "--force")
            assert ended.code == 0, ended.output

    async def back() -> bool:
        return await _allocatable(kube, "gpu-5") == 8

    await eventually(back)


@pytest.fixture
async def no_operator(kube: Kube) -> AsyncIterator[Object]:
    """gpu-6 and gpu-7 as on a cluster without the operator: NVIDIA's DaemonSet, which asks for no label."""
    nodes = ["gpu-6", "gpu-7"]
    labels = {"name": "nvidia-device-plugin-ds"}
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]}]
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    sockets = {"name": "device-plugin", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}
    mount = {"name": "device-plugin", "mountPath": "/var/lib/kubelet/device-plugins"}
    image = "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"
    container = {"name": "nvidia-device-plugin-ctr", "image": image, "volumeMounts": [mount]}
    daemons = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "nvidia-device-plugin", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "affinity": {"nodeAffinity": affinity},
                    "containers": [container],
                    "volumes": [sockets],
                },
            },
        },
    }
    for node in nodes:
        await _label(kube, node, "false")

    async def bare() -> bool:
        return not any([await _plugin(kube, n) for n in nodes])

    await eventually(bare)
    created = await kube.create(daemons)

    async def there() -> bool:
        return all([await _allocatable(kube, n) == 8 and await _plugin(kube, n) for n in nodes])

    await eventually(there)
    yield created
    await kube.delete(Ref.of(created))
    for node in nodes:
        await _label(kube, node, "true")

    async def back() -> bool:
        pods = [p for n in nodes for p in await pods_on(kube, n) if is_plugin(p)]
        return len(pods) == 2 and all(p["metadata"]["namespace"] == "gpu-operator" for p in pods)

    await eventually(back)


async def test_without_an_operator_no_other_node_is_disturbed(
    world_unchanged: Snapshot, no_operator: Object, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    before = await _plugin(kube, "gpu-7")
    ref = Ref.of(no_operator)
    target = {
        "namespaces": ["kube-system"],
        "nodes": {"selector": "nvidia.com/gpu.present=true"},
        "allowProtected": ["Namespace/kube-system"],  # where the plugin's DaemonSet is
    }
    with gameday.started(write(tmp_path, method=_loss("gpu-6"), target=target)) as run:
        run.fault_is("in")
        assert await _plugin(kube, "gpu-6") == ""
        assert (await _plugin(kube, "gpu-7"), await _allocatable(kube, "gpu-7")) == (before, 8)
        run.signal(signal.SIGINT)
        run.ended()

    async def back() -> bool:
        return await _allocatable(kube, "gpu-6") == 8

    await eventually(back)
    assert await _plugin(kube, "gpu-7") == before, "the plugin of a node that was not meant restarted"
    assert (await kube.get(ref))["spec"] == no_operator["spec"]


async def test_a_node_whose_operator_is_busy_is_refused(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await _label(kube, "gpu-5", "paused-for-driver-upgrade")
    try:
        ended = gameday("plan", write(tmp_path, method=_loss("gpu-5")))
    finally:
        await _label(kube, "gpu-5", "true")
    assert ended.code != 0
    assert "gpu-5" in ended.output
    await eventually(lambda: _plugin(kube, "gpu-5"))
