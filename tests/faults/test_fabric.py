"""From what users know of a network interface to the interface, and what can't be meant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from gameday.extend import PlanError
from gameday.faults.fabric.nic import Nic, NicSpec
from gameday.faults.fabric.units import bucket, megabits
from gameday.faults.fabric.vf import VfSpec, VirtualFunction
from gameday.platform import sriov
from gameday.platform.effect import of_victim
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.world import World
from gameday.safety.blast import Count, count
from gameday.safety.plan import Plan, StepPlan

TRAINER = {"selector": "app=trainer", "namespace": "training"}
RESOURCE = "openshift.io/mlnx_rdma"


def world(kube: Kube, hold: float = 10.0, **more: Any) -> World:
    spaces = ("training", "inference")
    return World(kube, namespaces=spaces, node_selector="nvidia.com/gpu.present=true", hold=hold, **more)


async def planned(kube: Kube, fault: str, spec: dict[str, Any], **more: Any) -> Any:
    kind: Any = {"nic": Nic, "vf": VirtualFunction}[fault]
    return await kind().plan(kind.Spec.model_validate(spec), world(kube, **more))


def counted(kind: str, plan: Any) -> Count:
    plan = replace(plan, effects=tuple(map(of_victim, plan.victims)))
    return count(Plan(0, steps={"1": StepPlan("1", "", kind, 10.0, 1, plan)}))


def on(node: str, **what: Any) -> dict[str, Any]:
    return {"nodes": {"names": [node]}, **what}


async def test_the_chain_from_a_pod_to_the_node(kube: Kube) -> None:
    plan = await planned(kube, "vf", {"pod": {**TRAINER, "network": "rdma"}, "state": "disable"})
    (victim,) = plan.victims
    port = plan.data["ports"][0]
    assert (victim.role, victim.gpus, victim.node) == ("pod", 4, port["node"])
    chain = plan.changes[0]
    order = [
        "state disable: pod training/trainer-",
        "(training/rdma)",
        "VF ",
        "PF ens",
        f"node {victim.node}",
    ]
    places = [chain.index(part) for part in order]
    assert places == sorted(places)
    assert "also carries VF" in plan.warnings[0]
    program = VirtualFunction().programs(plan)[0]
    assert (program.node.name, program.action) == (victim.node, "vf")
    assert program.options["set"] == {"state": "disable"}
    assert program.options["vfPciAddress"] == port["vf_pci"]


async def test_several_on_one_node_are_one_program(kube: Kube) -> None:
    plan = await planned(kube, "vf", {"pod": TRAINER, "pick": "all", "state": "disable"})
    (program,) = VirtualFunction().programs(plan)
    assert program.action == "several"
    assert len(program.options["each"]) == 4
    assert len(plan.victims) == 1


async def test_a_pf_is_the_nodes_loss_with_all_that_lives_on_it(kube: Kube) -> None:
    for spec in ({"pod": TRAINER}, on("gpu-0", resource=RESOURCE), on("gpu-0", pciAddress="0000:1a:00.0")):
        plan = await planned(kube, "nic", {**spec, "state": "down"})
        assert counted("nic", plan) == Count({plan.victims[0].node: 8}, gpus=8)
        assert "also carries VF 0 (" in plan.warnings[0]


async def test_an_interface_of_the_node_below_a_pod(kube: Kube) -> None:
    plan = await planned(kube, "nic", {"pod": TRAINER, "interface": "ens9f0", "loss": "1%"})
    assert [p["interface"] for p in plan.data["ports"]] == ["ens9f0"]
    assert plan.warnings == ()


async def test_tc_does_not_reach_rdma_and_that_is_said(kube: Kube) -> None:
    plan = await planned(kube, "nic", on("gpu-0", interface="ens1f0", delay="5ms"))
    assert "RDMA and what its VFs send pass it by" in plan.warnings[0]


async def test_a_vf_that_nobody_uses_costs_nothing(kube: Kube) -> None:
    states = await sriov.node_states(kube)
    used = sriov.users([p async for p in kube.each(await kube.resource("v1", "Pod"))])
    free = next(v for s in states.values() for v in sriov.functions(s) if (v.node, v.pci) not in used)
    plan = await planned(kube, "vf", on(free.node, pciAddress=free.pci, trust=False))
    assert counted("vf", plan) == Count({})


@pytest.mark.parametrize(
    ("fault", "spec", "words"),
    [
        ("vf", on("gpu-0", interface="eth0", state="disable"), "eth0 of gpu-0 has no VFs; ens1f0, ens2f0"),
        ("vf", on("gpu-0", resource="openshift.io/x", vlan=5), f"serves openshift.io/x; there is {RESOURCE}"),
        ("vf", on("gpu-0", pciAddress="0000:ff:00.1", vlan=5), "has no VF 0000:ff:00.1; it has 0000:1a:00.2"),
        ("vf", {"pod": {**TRAINER, "network": "storage"}, "vlan": 5}, "uses no VF of the network storage"),
        (
            "vf",
            {"pod": {"name": "nobody", "namespace": "training"}, "vlan": 5},
            "running pod training/nobody",
        ),
        ("vf", {"pod": {**TRAINER, "namespace": "kube-system"}, "vlan": 5}, "outside the target"),
        ("vf", on("cpu-0", interface="ens1f0", vlan=5), "outside the target's nodes"),
        ("nic", on("cpu-0", interface="ens1f0", state="down"), "outside the target's nodes"),
        ("nic", on("gpu-99", interface="ens1f0", state="down"), "there is no node gpu-99"),
    ],
)
async def test_refused(fault: str, spec: dict[str, Any], words: str, kube: Kube) -> None:
    with pytest.raises(PlanError) as refused:
        await planned(kube, fault, spec)
    assert words in str(refused.value)


async def test_a_pod_that_has_not_started_has_no_network_yet(kube: Kube) -> None:
    """Nobody is told that such a pod asks for no SR-IOV resource."""
    container = {"name": "a", "image": "a", "resources": {"limits": {RESOURCE: 1, "nvidia.com/gpu": 1}}}
    spec = {"containers": [container], "nodeSelector": {"example.com/none": "true"}}
    meta = {"name": "waits", "namespace": "training", "labels": {"app": "waits"}}
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}))
    try:
        for pod, words in (
            ({"name": "waits"}, "waits has not started"),
            ({"selector": "app=waits"}, "no running pod matches app=waits"),
        ):
            with pytest.raises(PlanError, match=words):
                await planned(kube, "vf", {"pod": {**pod, "namespace": "training"}, "vlan": 5})
    finally:
        await kube.delete(ref)


async def test_the_management_may_be_cut_for_a_short_time_only(kube: Kube) -> None:
    spec = on("gpu-0", interface="eth0", state="down", allowManagement=True)
    with pytest.raises(PlanError, match="needs a hold below 120 s"):
        await planned(kube, "nic", spec, hold=120.0)
    assert (await planned(kube, "nic", spec, hold=119.0)).victims


@pytest.mark.fast
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "either `nodes` or `pod`"),
        ({"pod": TRAINER, **on("a", interface="b")}, "either `nodes` or `pod`"),
        (on("a"), "expected one of `interface`, `pciAddress`"),
        (
            on("a", interface="b", resource=RESOURCE),
            "expected one of `interface`, `pciAddress` and `resource`",
        ),
        (on("a", interface="a b"), "is no interface's name"),
        (on("a", pciAddress="1a:00.0"), "is no PCI address"),
        (on("a", resource="mlnx_rdma"), "is no resource of a node"),
        ({"pod": {"namespace": "x"}}, "either `selector` or `name`"),
        ({"pod": TRAINER, "resource": RESOURCE}, "tells already what is meant"),
    ],
)
def test_no_target(spec: dict[str, Any], words: str) -> None:
    for kind, change in ((NicSpec, {"state": "down"}), (VfSpec, {"state": "disable"})):
        with pytest.raises(ValidationError) as refused:
            kind.model_validate({**spec, **change})
        assert words in str(refused.value)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (NicSpec, {}, "found none"),
        (NicSpec, {"state": "down", "mtu": 1500}, "found state, mtu"),
        (NicSpec, {"rate": "1gbit", "loss": "1%"}, "found rate, loss"),
        (NicSpec, {"reorder": "5%"}, "need a `delay`"),
        (NicSpec, {"loss": "200%"}, "expected a percentage"),
        (NicSpec, {"loss": "0%"}, "expected a percentage"),
        (NicSpec, {"rate": "fast"}, "expected a rate such as"),
        (NicSpec, {"rate": "0mbit"}, "expected a rate such as"),
        (NicSpec, {"mtu": 100}, "greater than or equal to 1280"),
        (NicSpec, {"flap": {"period": "1s", "count": 0}}, "greater than or equal to 1"),
        (NicSpec, {"state": "up"}, "'down'"),
        (VfSpec, {}, "expected one of `state`"),
        (VfSpec, {"vlan": 4095}, "less than or equal to 4094"),
        (VfSpec, {"state": "down"}, "'disable', 'auto' or 'enable'"),
    ],
)
def test_no_change(kind: type[NicSpec] | type[VfSpec], change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate({**on("a", interface="b"), **change})
    assert words in str(refused.value)


@pytest.mark.fast
def test_a_vf_needs_its_pf() -> None:
    with pytest.raises(ValidationError, match="needs its PF"):
        VfSpec.model_validate({"pod": TRAINER, "number": 0, "state": "disable"})


@pytest.mark.fast
def test_the_words_of_tc() -> None:
    spec = NicSpec.model_validate(on("a", interface="b", delay="1.5ms", jitter="500us", loss="0.1%"))
    assert spec.netem == ["netem", "delay", "1500us", "500us", "loss", "0.1%"]
    assert (bucket("1mbit"), bucket("10gbit")) == ("32768b", "12500000b")
    assert (megabits("2.5gbit"), megabits("10kbit")) == (2500, 1)


@pytest.mark.fast
@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", "[1]", '[{"name": "x"}]', '[{"device-info": {"pci": {}}}]']
)
def test_a_damaged_network_status_is_none(text: str) -> None:
    assert sriov.attachments({"metadata": {"annotations": {sriov.STATUS: text}}}) == []


@pytest.mark.fast
def test_the_operators_words() -> None:
    """Shapes as the SR-IOV operator writes them; what is missing there is missing here."""
    state = {
        "metadata": {"name": "n"},
        "spec": {
            "interfaces": [
                {
                    "pciAddress": "0000:18:00.0",
                    "numVfs": 3,
                    "vfGroups": [
                        {"resourceName": "fast", "vfRange": "0-1"},
                        {"resourceName": "slow", "vfRange": "2"},
                    ],
                }
            ]
        },
        "status": {
            "interfaces": [
                {
                    "name": "ens785f0",
                    "pciAddress": "0000:18:00.0",
                    "Vfs": [{"vfID": i, "pciAddress": f"0000:18:02.{i}"} for i in (2, 0, 1)],
                },
                {"name": "ens785f1", "pciAddress": "0000:18:00.1"},
            ]
        },
    }
    told = [(v.pf, v.number, v.resource) for v in sriov.functions(state)]
    assert told == [("ens785f0", 0, "fast"), ("ens785f0", 1, "fast"), ("ens785f0", 2, "slow")]
    assert sriov.functions({"metadata": {"name": "n"}}) == []


@pytest.mark.fast
def test_attachments_by_the_older_key_and_on_a_vdpa_device() -> None:
    """As Multus before 3.7 wrote them, and as the Device Information Specification has vDPA."""
    pci = {"name": "a", "interface": "net1", "device-info": {"pci": {"pci-address": "0000:18:02.3"}}}
    vdpa = {"name": "b", "interface": "net2", "device-info": {"vdpa": {"pci-address": "0000:18:02.4"}}}
    text = json.dumps([pci, vdpa])
    for key in ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status"):
        found = sriov.attachments({"metadata": {"annotations": {key: text}}})
        assert [a.pci for a in found] == ["0000:18:02.3", "0000:18:02.4"]
