"""Whether everybody means the same hardware: each disagreement is found, and named."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import Via
from gameday.platform.world import World
from gameday.probes.hardware import HardwareAgrees, of_network, of_node, of_slurm
from tests.support.platforms import Platform
from tests.support.polling import eventually

PF = {"pciAddress": "0000:1a:00.0", "name": "ens1f0", "numVfs": 2}
NODE: dict[str, Any] = {
    "kind": "Node",
    "metadata": {"name": "n"},
    "status": {
        "capacity": {"nvidia.com/gpu": "8", "openshift.io/rdma": "2"},
        "allocatable": {"nvidia.com/gpu": "8", "openshift.io/rdma": "2"},
    },
}
STATE: dict[str, Any] = {
    "metadata": {"name": "n"},
    "spec": {"interfaces": [{**PF, "vfGroups": [{"resourceName": "rdma", "vfRange": "0-1"}]}]},
    "status": {
        "syncStatus": "Succeeded",
        "interfaces": [{**PF, "Vfs": [{"vfID": i, "pciAddress": f"0000:1a:00.{i + 2}"} for i in (0, 1)]}],
    },
}


def changed(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field set; None takes it away."""
    copy = deepcopy(obj)
    *way, last = path.split("|")
    at: Any = copy
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return copy


@pytest.mark.fast
def test_nothing_to_say() -> None:
    assert list(of_node(NODE, STATE)) == []
    assert list(of_node(NODE, {})) == []  # a cluster without the operator
    assert list(of_slurm(NODE, {"n": 8})) == []
    assert list(of_slurm(NODE, {"another": 4})) == []


@pytest.mark.fast
@pytest.mark.parametrize(
    ("node", "state", "words"),
    [
        (
            changed(NODE, "status|allocatable|nvidia.com/gpu", "7"),
            STATE,
            "7 of 8 nvidia.com/gpu are",
        ),
        (NODE, None, "has no SriovNetworkNodeState"),
        (NODE, changed(STATE, "status|syncStatus", "Failed"), "sync is Failed (no reason given)"),
        (NODE, changed(STATE, "status|syncStatus", None), "does not say whether its sync has succeeded"),
        (
            changed(NODE, "status|allocatable|openshift.io/rdma", "1"),
            STATE,
            "2 VFs serve openshift.io/rdma, but 1 are allocatable",
        ),
        (
            changed(NODE, "status|allocatable|openshift.io/rdma", None),
            STATE,
            "2 VFs serve rdma, which is not allocatable at all",
        ),
        (NODE, changed(STATE, "spec|interfaces|0|numVfs", 4), "ens1f0 has 2 VFs, its policy wants 4"),
        (NODE, changed(STATE, "status|interfaces", []), "ens1f0 has 0 VFs, its policy wants 2"),
    ],
)
def test_each_disagreement_is_named(node: dict[str, Any], state: Any, words: str) -> None:
    said = list(of_node(node, state))
    assert any(words in text for text in said), said


@pytest.mark.fast
def test_slurm_and_networks() -> None:
    assert list(of_slurm(NODE, {"n": 4})) == ["Slurm's GRES counts 4 GPUs, Kubernetes 8"]
    network = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/resourceName": "openshift.io/other"}}}
    assert list(of_network(network, {"openshift.io/rdma"})) == [
        "it takes openshift.io/other, which no node here offers"
    ]
    assert list(of_network({"metadata": {}}, set())) == []


async def test_on_the_platform(kube: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """All agree, Slurm too; then a network asks for what nobody has, and it alone is named."""
    monkeypatch.setenv("SLURM_JWT", platform.slurm_token)
    slurm = Slurm.of(Via(url=platform.slurm_url), kube)
    assert {n.gpus for n in await slurm.nodes()} == {8}
    world = World(kube, namespaces=("training",), slurm=slurm)
    spec = HardwareAgrees.Spec.model_validate({"nodes": {"selector": "nvidia.com/gpu.present=true"}})
    told = await HardwareAgrees().measure(spec, world)
    assert {name for name, _ in told.series} >= {"gpu-0", "gpu-7", "training/rdma"}
    assert all(value == 0 for _, value in told.series), told.message
    meta: dict[str, Any] = {"name": "wrong", "namespace": "training"}
    meta |= {"annotations": {"k8s.v1.cni.cncf.io/resourceName": "openshift.io/nothing"}}
    api = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    ref = Ref.of(await kube.create({**api, "metadata": meta, "spec": {"config": "{}"}}))
    try:
        told = await HardwareAgrees().measure(spec, world)
        assert [name for name, value in told.series if value] == ["training/wrong"]
        assert "training/wrong: it takes openshift.io/nothing" in told.message
    finally:
        await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda found: found is None)
