"""Which resources and devices are GPUs, and how many a pod or a node has."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.platform.devices import drives_gpus, gpus, is_gpu

pytestmark = pytest.mark.fast

GPUS = (
    *("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb.me"),
    *("nvidia.com/mig-1g.5gb.shared", "nvidia.com/GH100_H100_SXM5_80GB", "nvidia.com/NVIDIA_L40S-48Q"),
    *("nvidia.com/pgpu", "amd.com/gpu", "amd.com/cpx_nps4", "amd.com/gpu_vf", "gpu.intel.com/i915"),
    *("gpu.intel.com/xe", "habana.ai/gaudi", "metax-tech.com/gpu", "alpha.example.com/vgpu"),
    *("volcano.sh/vgpu-number", "nos.nebuly.com/gpu-10gb", "metax-tech.com/sgpu", "iluvatar.ai/BI-V150-vgpu"),
)
OTHERS = (
    *("cpu", "memory", "gpu", "example.com/foo", "openshift.io/mlnx_rdma", "rdma/hca_shared_devices_a"),
    *("nvidia.com/hostdev", "nvidia.com/sriov_rdma_vf", "nvidia.com/cx7_a", "nvidia.com/mlnxnics"),
    *("nvidia.com/bf3_p0_vfs", "nvidia.com/rail_0", "amd.com/nic", "amd.com/vnic", "nvidia.com/gpumem"),
    *("nvidia.com/gpumem-percentage", "nvidia.com/gpucores", "gpu.intel.com/i915_monitoring"),
    *("gpu.intel.com/millicores", "gpu.intel.com/memory.max", "gpu.intel.com/tiles"),
)


@pytest.mark.parametrize("name", GPUS)
def test_what_counts_as_gpus(name: str) -> None:
    pod = {"spec": {"containers": [{"resources": {"limits": {name: "2"}}}]}}
    assert (is_gpu(name), gpus(pod)) == (True, 2)
    assert gpus({"kind": "Node", "metadata": {}, "status": {"capacity": {name: "7", "cpu": "4"}}}) == 7


@pytest.mark.parametrize(
    "name", ["volcano.sh/vgpu-memory", "aliyun.com/gpu-mem", "tencent.com/vcuda-core", "nvidia.com/gpumem"]
)
def test_a_measure_of_a_share_is_one_gpu(name: str) -> None:
    """Whatever its amount; and none beside the GPUs that a pod asks for."""
    assert gpus({"spec": {"containers": [{"resources": {"requests": {name: "4096"}}}]}}) == 1
    both = {name: "4096", "volcano.sh/vgpu-number": "2"}
    assert gpus({"spec": {"containers": [{"resources": {"requests": both}}]}}) == 2
    assert gpus({"spec": {"containers": [{"resources": {"requests": {name: "0"}}}]}}) == 0


@pytest.mark.parametrize("name", OTHERS)
def test_what_does_not(name: str) -> None:
    assert not is_gpu(name)


@pytest.mark.parametrize(
    ("driver", "yes"),
    [
        ("gpu.nvidia.com", True),
        ("gpu.example.com", True),
        ("gaudi.intel.com", True),
        ("compute-domain.nvidia.com", False),
        ("dra.net", False),
        ("dra.cpu", False),
        ("devices.acme.example", None),
    ],
)
def test_drivers(driver: str, yes: bool | None) -> None:
    assert drives_gpus(driver) is yes


def test_a_pod_holds_what_its_init_containers_hold() -> None:
    def container(count: int, **more: Any) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": str(count)}}, **more}

    assert gpus({"spec": {"initContainers": [container(4)], "containers": [container(1)]}}) == 4
    assert (
        gpus(
            {"spec": {"initContainers": [container(1, restartPolicy="Always")], "containers": [container(1)]}}
        )
        == 2
    )


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({"gpu-fraction": "0.5"}, 1),
        ({"gpu-memory": "4096"}, 1),
        ({"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"}, 2),
        ({}, 0),
    ],
)
def test_a_share_that_stands_in_annotations(said: dict[str, str], count: int) -> None:
    assert gpus({"metadata": {"annotations": said}, "spec": {"containers": [{}]}}) == count


def test_a_node_keeps_its_gpus_while_the_device_plugin_is_gone() -> None:
    """The kubelet forgets them after five minutes; a label that feature discovery set stays."""
    meta = {"labels": {"nvidia.com/gpu.count": "8"}}
    assert gpus({"kind": "Node", "metadata": meta, "status": {"capacity": {"nvidia.com/gpu": "0"}}}) == 8
    assert (
        gpus({"kind": "Node", "metadata": meta, "status": {"capacity": {"nvidia.com/mig-1g.10gb": "56"}}})
        == 56
    )
