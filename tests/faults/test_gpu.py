"""What the `gpu` fault takes in a file, and how it says no."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from gameday.faults.gpu import GpuSpec
from gameday.faults.gpu.device_loss import is_plugin, passing_over
from gameday.platform import xids

pytestmark = pytest.mark.fast
NODES = {"names": ["gpu-0"]}


def spec(**mode: Any) -> GpuSpec:
    return GpuSpec.model_validate({"nodes": NODES, **mode})


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (79, 79),
        ("79", 79),
        ("fell off the bus", 79),
        ("GPU has fallen off the bus", 79),
        ("Double Bit ECC", 48),
        ("row remap failure", 64),
        ("NVLink  error", 74),
        ("GPU fatal timeout", 158),
    ],
)
def test_an_xid_is_known_by_number_and_by_name(said: object, number: int) -> None:
    chosen = spec(xid={"error": said}).xid
    assert chosen is not None
    assert chosen.error == number


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean `row remap failure`"):
        spec(xid={"error": "row remap failur"})
    with pytest.raises(ValidationError, match="names are graphics engine exception"):
        spec(xid={"error": "melted"})


def test_a_number_that_we_have_not_heard_of_is_taken_as_it_is() -> None:
    assert not xids.xid(171).fatal
    assert str(xids.xid(171)) == "XID 171"


def test_fatal_are_those_after_which_a_gpu_is_reset_or_its_node_restarted() -> None:
    """All of NVIDIA's catalogue with RESET_GPU or RESTART_BM, and the workflows that begin so (48, 74)."""
    reset = {46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158}
    fatal = {number for number in range(xids.HIGHEST + 1) if xids.xid(number).fatal}
    assert fatal == reset | {48, 74, 79}


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ({}, "expected exactly one of `deviceLoss`, `xid`, `throttle`, `mig`, `deviceTaint`, found none"),
        ({"deviceLoss": {}, "mig": {"config": "all-1g.10gb"}}, "found 2"),
        ({"xid": {}}, "expected either `error`, or `field` and `value`"),
        ({"xid": {"field": 150}}, "expected either `error`, or `field` and `value`"),
        ({"xid": {"field": 150, "value": 95, "via": "gpud"}}, "expected `via: dcgm`"),
        ({"xid": {"error": 94, "via": "gpud"}}, "GPUd stays healthy for XID 94"),
        ({"throttle": {}}, "expected either `powerLimit` or `clocks`"),
        ({"throttle": {"powerLimit": "half"}}, "expected W or a share"),
    ],
)
def test_what_makes_no_sense_is_refused(mode: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        spec(**mode)


@pytest.mark.parametrize(
    ("name", "image", "yes"),
    [
        ("nvidia-device-plugin-daemonset-x7", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0", True),
        ("nvdp-nvidia-device-plugin-4hk2p", "registry.example.com/k8s-device-plugin@sha256:00", True),
        ("nvidia-gpu-device-plugin-small-cos-9z", "gke.gcr.io/nvidia-gpu-device-plugin:1.0", True),
        ("rdma-shared-dp-ds-kk2", "nvcr.io/nvidia/cloud-native/k8s-rdma-shared-dev-plugin:v1.5", False),
        ("sriov-device-plugin-a", "ghcr.io/k8snetworkplumbingwg/sriov-network-device-plugin:v3.9", False),
        ("nvidia-dcgm-exporter-a", "nvcr.io/nvidia/k8s/dcgm-exporter:4.4", False),
    ],
)
def test_the_device_plugin_is_told_from_its_neighbours(name: str, image: str, yes: bool) -> None:
    assert is_plugin({"metadata": {"name": name}, "spec": {"containers": [{"image": image}]}}) == yes


def test_nodes_are_passed_over_in_every_way_that_a_daemonset_may_choose_them() -> None:
    """The terms of an affinity are alternatives: one that still took a node would put the pod back there."""
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]} for z in "ab"]
    affinity = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zones}}
    }
    daemons = {"spec": {"template": {"spec": {"affinity": affinity}}}}
    strategy, edit = passing_over(daemons, ["gpu-0", "gpu-1"])
    assert strategy.after == {"type": "OnDelete"}
    terms = edit.after["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    without = [{"key": "metadata.name", "operator": "NotIn", "values": [n]} for n in ("gpu-0", "gpu-1")]
    assert [t["matchFields"] for t in terms] == [without, without]
    assert [t["matchExpressions"] for t in terms] == [z["matchExpressions"] for z in zones]
    assert "matchFields" not in zones[0], "the DaemonSet as it was read must stay as it is, for the way back"
