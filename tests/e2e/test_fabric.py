"""Faults of nodes' networks: every kind goes in and out, whatever ends the run; what can't be is refused."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger import locks
from gameday.ledger.store import LOCAL_FILE
from gameday.platform import sriov
from gameday.platform.kube import Kube
from gameday.platform.objects import PROTECT, Object, Ref
from gameday.platform.prometheus import Prometheus
from gameday.platform.resources import PODS
from gameday.platform.sriov import NODE_STATES
from gameday.sandbox.fleet.network.operator import NAMESPACE
from gameday.sandbox.fleet.network.tools import WITHOUT
from tests.e2e.experiments import write
from tests.support.kubeconfigs import kubectl
from tests.support.platforms import Platform
from tests.support.polling import eventually, until
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("the links of a real node are in tests/real_node")

RADIUS = {"nodes": 4, "pods": 8, "gpus": 64}
TRAINER = {"selector": "app=trainer", "namespace": "training"}
DOWN = {"nic": {"nodes": {"names": ["gpu-7"]}, "interface": "ens1f0", "state": "down"}, "for": "60s"}


def on(node: str, interface: str = "ens1f0", **change: Any) -> dict[str, Any]:
    return {"nodes": {"names": [node]}, "interface": interface, **change}


def reading(platform: Platform, metric: str, node: str, device: str) -> float:
    """What the node's exporter says now."""
    page = platform.control_url.replace("/control", "/metrics/node-exporter")
    with urllib.request.urlopen(page, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [x for x in lines if x.startswith(metric) and f'"{node}"' in x and f'"{device}"' in x]
    return float(wanted[0].rpartition(" ")[2])


async def firing(platform: Platform) -> set[str]:
    async with Prometheus(platform.prometheus_url) as prometheus:
        return {a.name for a in await prometheus.alerts() if a.state == "firing"}


def test_every_kind_goes_in_and_out(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    faults = [
        {"nic": on("gpu-4", state="down")},
        {"nic": on("gpu-5", flap={"period": "1s", "count": 3})},
        {"nic": on("gpu-6", "ens9f0", rate="1gbit")},
        {"nic": on("gpu-7", mtu=1500)},
        {"vf": on("gpu-0", number=1, maxTxRate="100mbit")},
        {"vf": {"nodes": {"names": ["gpu-1"]}, "pciAddress": "0000:bd:00.3", "vlan": 100}},
        {"vf": {"nodes": {"names": ["gpu-2"]}, "resource": "openshift.io/mlnx_rdma", "trust": False}},
        {
            "vf": {
                "nodes": {"names": ["gpu-3"]},
                "resource": "openshift.io/mlnx_rdma",
                "pick": 3,
                "spoofCheck": True,
            }
        },
    ]
    method = [{"parallel": [{**fault, "for": "4s"} for fault in faults]}]
    ended = gameday.run(write(tmp_path, method=method, blastRadius=RADIUS))
    assert ended.verdict == "passed", ended.output
    seen = {(e["step"], e["state"]): " ".join(e.get("evidence", ())) for e in ended.of("fault")}
    told = [
        ("gpu-4: ens1f0: down, carrier off", "gpu-4: ens1f0: up, carrier on"),
        ("RDMA mlx5_0/1: DOWN", "RDMA mlx5_0/1: ACTIVE"),
        ("gpu-6: ens9f0: tbf rate 1gbit", "gpu-6: ens9f0: mq"),
        ("MTU 1500, 9000 before", "MTU 9000"),
        ("VF 1 of ens1f0: max_tx_rate 100", "max_tx_rate 0"),
        ("VF 1 of ens4f0: vlan 100", "vlan 0"),
        ("trust off", "trust on"),
        ("spoofchk on", "spoofchk off"),
    ]
    for number, (within, after) in enumerate(told, 1):
        assert within in seen[f"1.{number}", "in"]
        assert after in seen[f"1.{number}", "out"]
    assert seen["1.8", "in"].count("spoofchk on") == 3


async def test_who_deletes_the_pod_of_a_program_ends_the_fault(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The program reverts then. It was: in, and passed, for as long as the step would have held it."""
    with gameday.started(write(tmp_path, method=[{**DOWN, "for": "10m"}], blastRadius=RADIUS)) as run:
        await asyncio.to_thread(run.fault_is, "in")
        (program,) = await kube.list(PODS, "gameday", labels="app.kubernetes.io/name=gameday-node")
        await kube.delete(Ref.of({"apiVersion": "v1", "kind": "Pod", **program}))
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    out = ended.of("fault")[-1]
    assert (out["state"], out["by"]) == ("out", "somebody else")
    assert "gpu-7 was deleted" in out["message"]
    node = await kube.get(Ref("v1", "Node", "gpu-7"))
    assert ended.folder is not None
    assert node["metadata"]["uid"] in (ended.folder / LOCAL_FILE).read_text()  # another one is not asked


async def test_an_abort_brings_the_link_back(
    gameday: Program, kube: Kube, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    def is_down(state: Object) -> bool:
        return [i["name"] for i in state["status"]["interfaces"] if i["linkAdminState"] == "down"] == [
            "ens1f0"
        ]

    with gameday.started(write(tmp_path, method=[DOWN], blastRadius=RADIUS)) as run:
        run.fault_is("in")
        ref = Ref(NODE_STATES.api_version, NODE_STATES.kind, "gpu-7", NAMESPACE)
        await eventually(lambda: kube.get(ref), is_down)
        assert reading(platform, "node_network_carrier{", "gpu-7", "ens1f0") == 0
        await eventually(lambda: firing(platform), lambda names: {"FabricLinkDown", "RDMAPortDown"} <= names)
        run.signal(signal.SIGTERM)
        assert run.ended().code == 130
    assert reading(platform, "node_network_carrier{", "gpu-7", "ens1f0") == 1


def test_killed_the_node_brings_its_link_back_by_itself(
    gameday: Program, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[{**DOWN, "for": "10m"}], blastRadius=RADIUS)) as run:
        run.fault_is("in")
        until(lambda: reading(platform, "node_network_carrier{", "gpu-7", "ens1f0") == 0, "the link is down")
        name = run.kill()
    until(lambda: reading(platform, "node_network_carrier{", "gpu-7", "ens1f0") == 1, "the link", within=120)
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output


def test_recovery_brings_a_vf_back(
    gameday: Program, platform: Platform, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = [{"vf": on("gpu-7", number=0, state="disable"), "for": "10m"}]
    with gameday.started(write(tmp_path, method=method, blastRadius=RADIUS)) as run:
        run.fault_is("in")
        assert reading(platform, "node_infiniband_state_id{", "gpu-7", "mlx5_4") == 1
        name = run.kill()
    ended = gameday("recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert reading(platform, "node_infiniband_state_id{", "gpu-7", "mlx5_4") == 4


async def test_the_node_of_a_vf_of_a_pod_is_locked(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A program changes the node's card: nobody else may change the node meanwhile."""
    vf = {"vf": {"pod": {**TRAINER, "pick": 1}, "state": "disable"}, "for": "60s"}
    with gameday.started(write(tmp_path, method=[vf], blastRadius=RADIUS)) as run:
        run.fault_is("in")
        told = next(e for e in run.events if e["type"] == "fault" and e["state"] == "in")
        held = await locks.held(kube)
        run.signal(signal.SIGTERM)
        run.ended()
    node = told["evidence"][0].partition(":")[0]
    assert ("Node", node) in held[run.folder.name]


@asynccontextmanager
async def closed(kube: Kube) -> AsyncIterator[set[str]]:
    """The nodes of the trainers, which take no more pods."""
    trainers = await kube.list(PODS, "training", labels="app=trainer", fields={"status.phase": "Running"})
    names = {t["spec"]["nodeName"] for t in trainers}
    for name in names:
        await kube.patch(Ref("v1", "Node", name), {"spec": {"unschedulable": True}}, "merge")
    try:
        yield names
    finally:
        for name in names:
            await kube.patch(Ref("v1", "Node", name), {"spec": {"unschedulable": None}}, "merge")


@pytest.mark.parametrize("nodes", ["kubernetes.io/hostname=cpu-0", None], ids=["of others", "none"])
async def test_a_vf_of_a_pod_on_a_node_outside_the_target(
    nodes: str | None, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The pod is the target's, and a program would change the node's card."""
    target: dict[str, Any] = {"namespaces": ["training"]} | ({"nodes": {"selector": nodes}} if nodes else {})
    vf = {"vf": {"pod": TRAINER, "state": "disable"}, "for": "2s"}
    ended = gameday("plan", write(tmp_path, method=[vf], target=target, blastRadius=RADIUS))
    assert ended.code == 4, ended.output
    assert "outside the target's nodes" in " ".join(ended.output.split())


KILL = {"podKill": {**TRAINER, "pick": "all", "grace": 0}, "for": "8s"}


async def test_the_node_that_a_pod_moved_to_is_locked(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    vf = {"vf": {"pod": TRAINER, "state": "disable"}, "for": "60s"}
    file = write(tmp_path, method=[KILL, vf], blastRadius=RADIUS, steadyBetweenSteps=False)
    async with closed(kube) as before:
        with gameday.started(file) as run:
            run.until(
                lambda e: e["type"] == "fault" and (e["step"], e["state"]) == ("2", "in"), "a VF is down"
            )
            held = await locks.held(kube)
            told = next(
                e for e in run.events if e["type"] == "fault" and (e["step"], e["state"]) == ("2", "in")
            )
            run.signal(signal.SIGTERM)
            run.ended()
    node = told["evidence"][0].partition(":")[0]
    assert node not in before
    assert ("Node", node) in held[run.folder.name]


async def test_a_pod_that_moved_out_of_the_target_is_left_alone(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    vf = {"vf": {"pod": TRAINER, "state": "disable"}, "for": "2s"}
    async with closed(kube) as before:
        target = {
            "namespaces": ["training", "platform"],
            "nodes": {"selector": f"kubernetes.io/hostname in ({','.join(sorted(before))})"},
        }
        file = write(tmp_path, method=[KILL, vf], target=target, blastRadius=RADIUS, steadyBetweenSteps=False)
        ended = await asyncio.to_thread(gameday.run, file)
    assert ended.code == 3, ended.output
    assert "outside the target's nodes" in " ".join(ended.output.split())
    programs = [e for e in ended.of("change") if e["step"] == "2" and "ask" not in e["summary"]]
    assert not programs


async def test_the_vf_of_a_pod_that_moved_meanwhile(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Approved for one pod, made on a VF that its successors have."""
    vf = {"vf": {"pod": TRAINER, "state": "disable"}, "for": "2s"}
    file = write(tmp_path, method=[KILL, vf], blastRadius=RADIUS, steadyBetweenSteps=False)
    ended = await asyncio.to_thread(gameday.run, file)
    assert ended.verdict == "passed", ended.output
    told = next(e for e in ended.of("fault") if e["step"] == "2" and e["state"] == "in")
    used = sriov.users(await kube.list(PODS, "training", labels="app=trainer"))
    states = await sriov.node_states(kube)
    theirs = {
        f"{vf.node}: VF {vf.number} of {vf.pf}: state disable"
        for state in states.values()
        for vf in sriov.functions(state)
        if (vf.node, vf.pci) in used
    }
    assert told["evidence"][0] in theirs


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"nic": on("gpu-0", "ens7f0", state="down")},
            ["gpu-0: there is no interface ens7f0; the node has eth0, ens9f0"],
        ),
        (
            {"nic": on("gpu-0", "eth0", state="down")},
            ["eth0 carries the node's management", "allowManagement"],
        ),
        ({"vf": on("gpu-0", number=9, state="disable")}, ["ens1f0 has no VF 9, but 0, 1"]),
        (
            {"vf": {"pod": {"selector": "app=inference", "namespace": "inference"}, "state": "disable"}},
            ["uses no VF", "choose a pod that asks for an SR-IOV resource"],
        ),
    ],
    ids=["interface", "management", "vf", "pod"],
)
def test_refused(
    fault: dict[str, Any], words: list[str], gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{**fault, "for": "5s"}], blastRadius={"nodes": 1, "pods": 1, "gpus": 8})
    ended = gameday.run(file)
    assert ended.code == 4, ended.output
    for word in words:
        assert word in " ".join(ended.output.split())
    assert not ended.of("fault")


async def test_a_kernel_without_netem_is_named_before_anything_is_touched(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ref = Ref("v1", "Node", "gpu-7")
    await kube.patch(ref, {"metadata": {"annotations": {WITHOUT: "netem"}}}, "merge")
    try:
        nodes = {"nodes": {"names": ["gpu-6", "gpu-7"]}, "interface": "ens9f0"}
        file = write(tmp_path, method=[{"nic": {**nodes, "loss": "1%"}, "for": "5s"}], blastRadius=RADIUS)
        ended = await asyncio.to_thread(gameday.run, file)
        assert ended.code == 4, ended.output
        assert "gpu-7: the node's kernel has no netem (module sch_netem" in " ".join(ended.output.split())
        assert "gpu-6" not in "".join(e["message"] for e in ended.of("preflight") if e["level"] == "refused")
    finally:
        await kube.patch(ref, {"metadata": {"annotations": {WITHOUT: None}}}, "merge")


async def test_no_program_looks_at_a_node_that_the_cluster_protects_meanwhile(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Between preflight and the look on the spot a person is asked, and hooks run."""
    node = Ref("v1", "Node", "gpu-7")
    hooks = {"beforeRun": [{"command": [kubectl(), "label", "node", node.name, f"{PROTECT}=true"]}]}
    try:
        file = write(tmp_path, method=[DOWN], blastRadius=RADIUS, hooks=hooks)
        ended = await asyncio.to_thread(gameday.run, file)
    finally:
        await kube.patch(node, {"metadata": {"labels": {PROTECT: None}}}, "merge")
    assert ended.code == 4, ended.output
    assert f"carries the label {PROTECT}" in " ".join(ended.output.split())
    assert not ended.of("change")


def test_what_shares_the_link_is_told(gameday: Program, tmp_path: Path) -> None:
    method = [{"nic": {"pod": TRAINER, "state": "down"}, "for": "5s"}]
    planned = gameday("plan", write(tmp_path, method=method, blastRadius=RADIUS))
    text = " ".join(planned.output.split())
    assert planned.code == 0, planned.output
    assert "also carries VF 0 (training/trainer-" in text
    assert "1 node (at most 4" in text
