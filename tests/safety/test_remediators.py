"""Who else acts on the nodes that a fault takes is planned, and refused until the file allows it by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.effect import NodeState
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import NODES
from gameday.safety.remediator_kinds import _consolidates, _of_check, _shortest
from tests.e2e.experiments import EVERYWHERE
from tests.safety.test_effects import made, plan, refused
from tests.support.kinds import Served, create, serving
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

NODE = "gpu-2"
CAPI, POOL = "cluster.x-k8s.io/v1beta2", "node.cluster.x-k8s.io/pool=elastic"
WORDS = {"nodes": {"names": [NODE]}}


def drain(hold: str) -> dict[str, Any]:
    return {"drain": {**WORDS, "force": True, "deleteEmptyDirData": True}, "for": hold}


def shutdown(hold: str, node: str = NODE) -> dict[str, Any]:
    return {"nodeShutdown": {"nodes": {"names": [node]}}, "for": hold}


XID = {"gpu": {**WORDS, "xid": {"error": 79}}, "for": "1s"}


@asynccontextmanager
async def annotated(kube: Kube, part: str, key: str, value: str) -> AsyncIterator[None]:
    """The node, with one more annotation or label."""
    ref = Ref("v1", "Node", NODE)
    await kube.patch(ref, {"metadata": {part: {key: value}}}, "merge")
    try:
        yield
    finally:
        await kube.patch(ref, {"metadata": {part: {key: None}}}, "merge")


async def test_cluster_autoscaler(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """What lasts less long than its times is a warning, and an annotated node is kept."""
    status = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-autoscaler-status", "namespace": "kube-system"},
        "data": {"status": "Cluster-wide: Health: Healthy"},
    }
    radius: dict[str, Any] = {"nodes": 1, "gpus": 8}
    text = f"may remove node {NODE} once it is empty for 10m"
    async with made(kube, status):
        ended = await plan(gameday, tmp_path, drain("20m"), blastRadius=radius)
        refused(ended, text, "scale-down-disabled=true", "others: [cluster-autoscaler]")
        allowed = radius | {"others": ["cluster-autoscaler"]}
        ended = await plan(gameday, tmp_path, drain("20m"), blastRadius=allowed)
        assert ended.code == 0, ended.output
        ended = await plan(gameday, tmp_path, drain("1m"), blastRadius=radius)
        assert ended.code == 0, ended.output
        assert text in " ".join(ended.output.split())
        key = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
        async with annotated(kube, "annotations", key, "true"):
            ended = await plan(gameday, tmp_path, drain("20m"), blastRadius=radius)
        assert ended.code == 0, ended.output
        assert "cluster-autoscaler may" not in " ".join(ended.output.split())


NOT_READY = {"status": "Unknown", "timeoutSeconds": 120}


@pytest.mark.parametrize(
    "checks",
    [
        {"unhealthyNodeConditions": [{"type": "Ready", **NOT_READY}]},
        {
            "unhealthyMachineConditions": [
                {"type": "Updating", "status": "True", "timeoutSeconds": 1},
                {"type": "NodeReady", **NOT_READY},
            ]
        },
    ],
    ids=["of the node", "of the machine"],
)
async def test_a_machine_health_check_of_cluster_api(
    checks: Object, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """For a machine of the pool that the platform's Cluster API keeps."""
    (node,) = await eventually(lambda: kube.list(NODES, labels=POOL), lambda found: len(found) == 1)
    machine = Ref(CAPI, "Machine", node["metadata"]["annotations"]["cluster.x-k8s.io/machine"], "platform")
    check = {
        "apiVersion": CAPI,
        "kind": "MachineHealthCheck",
        "metadata": {"name": "lost-nodes", "namespace": "platform"},
        "spec": {"clusterName": "c", "selector": {}, "checks": checks},
    }
    spec: dict[str, Any] = {
        "blastRadius": {"nodes": 1, "gpus": 8, "pods": 16},
        "target": {"context": "gameday-.*", "namespaces": EVERYWHERE, "nodes": {"selector": POOL}},
    }
    name = node["metadata"]["name"]
    async with serving(kube, [Served(CAPI, "MachineHealthCheck", "machinehealthchecks")]), made(kube, check):
        ended = await plan(gameday, tmp_path, shutdown("5m", name), **spec)
        refused(
            ended,
            f"may delete node {name} with its Machine platform/{machine.name} once it is unhealthy for 2m",
            "others: [MachineHealthCheck/lost-nodes]",
        )
        ended = await plan(gameday, tmp_path, shutdown("5s", name), **spec)
        assert "MachineHealthCheck/lost-nodes can't be counted" not in " ".join(ended.output.split())
        skip: dict[str, Any] = {"metadata": {"annotations": {"cluster.x-k8s.io/skip-remediation": ""}}}
        await kube.patch(machine, skip, "merge")
        ended = await plan(gameday, tmp_path, shutdown("5m", name), **spec)
        skip["metadata"]["annotations"] = {"cluster.x-k8s.io/skip-remediation": None}
        await kube.patch(machine, skip, "merge")
        assert "lost-nodes" not in ended.output, ended.output


async def test_a_machine_health_check_of_openshift(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    version = "machine.openshift.io/v1beta1"
    kinds = [
        Served(version, "MachineHealthCheck", "machinehealthchecks"),
        Served(version, "Machine", "machines"),
    ]
    meta = {"name": "worker-1", "namespace": "default", "labels": {"pool": "tested"}}
    conditions = [{"type": "Ready", "status": "Unknown", "timeout": "2m0s"}]
    check = {
        "apiVersion": version,
        "kind": "MachineHealthCheck",
        "metadata": {"name": "lost-nodes", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"pool": "tested"}}, "unhealthyConditions": conditions},
    }
    radius: dict[str, Any] = {"nodes": 1, "gpus": 8, "pods": 16}
    async with serving(kube, kinds):
        await create(
            kube, {"apiVersion": version, "kind": "Machine", "metadata": meta}, nodeRef={"name": NODE}
        )
        await create(kube, check)
        ended = await plan(gameday, tmp_path, shutdown("5m"), blastRadius=radius)
        refused(
            ended, f"may delete node {NODE} with its Machine default/worker-1 once it is unhealthy for 2m"
        )


async def test_karpenter(gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot) -> None:
    pool = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "gpus"},
        "spec": {"disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "30s"}},
    }
    radius: dict[str, Any] = {"nodes": 1, "gpus": 8}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            serving(kube, [Served("karpenter.sh/v1", "NodePool", "nodepools", False)])
        )
        await stack.enter_async_context(made(kube, pool))
        await stack.enter_async_context(annotated(kube, "labels", "karpenter.sh/nodepool", "gpus"))
        ended = await plan(gameday, tmp_path, drain("1m"), blastRadius=radius)
        refused(ended, f"may remove node {NODE} once it is empty for 30s", "others: [Karpenter]")
        async with annotated(kube, "annotations", "karpenter.sh/do-not-disrupt", "true"):
            ended = await plan(gameday, tmp_path, drain("1m"), blastRadius=radius)
        assert ended.code == 0, ended.output
        cordon = {"cordon": WORDS, "for": "1m"}
        ended = await plan(gameday, tmp_path, cordon, blastRadius=radius)
        assert ended.code == 0, ended.output
        assert f"Karpenter may remove node {NODE}" in " ".join(ended.output.split())


async def test_what_reads_an_xid_as_real(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    radius: dict[str, Any] = {"nodes": 1, "gpus": 8}
    kinds = [Served("janitor.dgxc.nvidia.com/v1alpha1", "RebootNode", "rebootnodes", False)]
    async with serving(kube, kinds):
        ended = await plan(gameday, tmp_path, XID, blastRadius=radius)
        refused(ended, f"reboot or terminate node {NODE}", "others: [NVSentinel]")
        async with annotated(kube, "labels", "nvsentinel.dgxc.nvidia.com/managed", "false"):
            ended = await plan(gameday, tmp_path, XID, blastRadius=radius)
        assert "NVSentinel may" not in " ".join(ended.output.split()), ended.output


async def test_the_repair_of_a_managed_cloud(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """EKS replaces a node whose accelerator is in error for 10 minutes; GKE's repair heeds Ready alone."""
    radius: dict[str, Any] = {"nodes": 1, "gpus": 8}
    long = XID | {"for": "20m"}
    async with annotated(kube, "labels", "eks.amazonaws.com/nodegroup", "p5"):
        ended = await plan(gameday, tmp_path, long, blastRadius=radius)
        refused(ended, f"may replace or reboot node {NODE} once a GPU of it is in error for 10m", "EKS'")
        ended = await plan(gameday, tmp_path, XID, blastRadius=radius)
        assert ended.code == 0, ended.output
    async with annotated(kube, "labels", "cloud.google.com/gke-nodepool", "a3"):
        ended = await plan(gameday, tmp_path, long, blastRadius=radius)
        assert ended.code == 0, ended.output
        ended = await plan(gameday, tmp_path, shutdown("20m"), blastRadius=radius)
        refused(ended, f"may replace or reboot node {NODE} once it is not Ready for 10m")


async def test_kured_and_its_lock(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    labels = {"name": "kured"}
    daemons: Object = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kured", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"no": "where"},
                    "containers": [{"name": "kured", "image": "kured"}],
                },
            },
        },
    }
    cordon, radius = {"cordon": WORDS, "for": "1s"}, {"nodes": 1, "gpus": 8}

    async def said(holder: str) -> str:
        lock = json.dumps({"nodeID": holder}) if holder else None
        body = {"metadata": {"annotations": {"weave.works/kured-node-lock": lock}}}
        await kube.patch(ref, body, "merge")
        ended = await plan(gameday, tmp_path, cordon, blastRadius=radius)
        assert ended.code == (4 if holder == NODE else 0), ended.output
        return " ".join(ended.output.split())

    async with made(kube, daemons) as ref:
        assert "kured may reboot a node beside those of this step" in await said("")
        assert "kured reboots node gpu-7 now" in await said("gpu-7")
        assert "others: [kured]" in await said(NODE)
        assert "kured reboots" not in (quiet := await said("manual"))
        assert "kured may" not in quiet


@pytest.mark.fast
@pytest.mark.parametrize(
    ("disruption", "seconds"),
    [
        ({}, 0.0),
        ({"consolidateAfter": "Never"}, None),
        ({"consolidateAfter": "1m", "budgets": [{"nodes": "10%"}]}, 60.0),
        ({"budgets": [{"nodes": "0"}]}, None),
        ({"budgets": [{"nodes": "0", "reasons": ["Drifted"]}]}, 0.0),
        ({"budgets": [{"nodes": "0", "schedule": "0 9 * * *", "duration": "8h"}]}, 0.0),
    ],
)
def test_when_karpenter_removes_an_empty_node(disruption: Object, seconds: float | None) -> None:
    assert _consolidates({"spec": {"disruption": disruption}}) == seconds


@pytest.mark.fast
def test_which_conditions_a_fault_may_meet() -> None:
    """A lost node is not Ready; an error of a GPU may set any condition that is not the kubelet's own."""
    conditions: list[Object] = [
        {"type": "Ready", "status": "False", "timeout": "5m"},
        {"type": "Ready", "status": "Unknown", "timeoutSeconds": 200},
        {"type": "GpuXidError", "status": "True", "duration": "30s"},
        {"type": "DiskPressure", "status": "True", "timeout": "1s"},
    ]
    assert _shortest(conditions, frozenset({NodeState.NOT_READY})) == 200.0
    assert _shortest(conditions, frozenset({NodeState.GPU_ERROR})) == 30.0
    assert _shortest(conditions[3:], frozenset(NodeState)) is None


@pytest.mark.fast
@pytest.mark.parametrize(
    ("selector", "acts"),
    [
        ({"matchLabels": {"pool": "a"}}, True),
        ({"matchLabels": {"pool": "b"}}, False),
        ({"matchExpressions": [{"key": "pool", "operator": "Gt", "values": ["1"]}]}, True),
    ],
    ids=["selected", "not selected", "with an operator that label selectors don't have"],
)
def test_a_health_check_acts_on_all_that_it_may_select(selector: Object, acts: bool) -> None:
    conditions = [{"type": "Ready", "status": "Unknown", "timeout": "5m"}]
    meta = {"name": "check", "namespace": "platform"}
    check = {"metadata": meta, "spec": {"selector": selector, "unhealthyConditions": conditions}}
    machine = {
        "metadata": {"name": "m", "namespace": "platform", "labels": {"pool": "a"}},
        "status": {"nodeRef": {"name": NODE}},
    }
    found = _of_check(check, [machine], [{"metadata": {"name": NODE}}], frozenset(NodeState))
    assert bool(found) == acts
