"""Faults that Chaos Mesh's daemon carries out: seen in and out in the pods themselves, on a real node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.extend import FaultPlan, PlanError
from gameday.faults.chaos_mesh import ChaosMesh, ChaosMeshSpec
from gameday.ledger.chaos_mesh import CreateChaos
from gameday.platform.chaos_mesh import complaints
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready, is_true
from tests.e2e import experiments
from tests.faults.chaos import Step, step_of
from tests.real_node import pods
from tests.support.node import RealNode
from tests.support.polling import eventually
from tests.support.program import Program
from tests.systems import chaos_daemon, chaos_mesh
from tests.systems.chaos_mesh import NAMESPACE, RealChaosMesh
from tests.systems.on_node.conftest import BYSTANDER

FAULT = ChaosMesh()
SPACE = "default"
API = "chaos-mesh.org/v1alpha1"
KINDS = ("PodChaos", "NetworkChaos", "StressChaos", "Schedule", "Workflow", "WorkflowNode")

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
async def pair(kube: Kube, node: RealNode) -> AsyncIterator[tuple[Ref, Ref]]:
    """Two pods that can reach each other, and nothing of Chaos Mesh afterwards."""
    near, far = (pods.manifest(node, name, "/bin/busybox", "sleep", "infinity") for name in ("near", "far"))
    for pod in (near, far):
        pod["metadata"]["labels"] = {"app": pod["metadata"]["name"]}
    async with pods.running(kube, near) as one, pods.running(kube, far) as other:
        yield one, other
    left = [await kube.list(await kube.resource(API, kind), SPACE) for kind in KINDS]
    assert not [str(Ref.of(obj)) for objects in left for obj in objects]


async def _planned(step: Step, kind: str, **spec: Any) -> FaultPlan[ChaosMeshSpec]:
    options: Object = {k: spec.pop(k) for k in ("settleWithin", "force") if k in spec}
    whole: Object = {"mode": "all", "selector": _pod("near"), **spec}
    told = {"kind": kind, "spec": whole, "namespace": SPACE, **options}
    return await FAULT.plan(ChaosMeshSpec.model_validate(told), step.world)


def _pod(app: str) -> Object:
    return {"labelSelectors": {"app": app}}


def _step(kube: Kube, folder: Path) -> Any:
    return step_of(kube, folder, [SPACE], hold=20)


async def _inside(kube: Kube, node: RealNode, ref: Ref, *command: str) -> str:
    """What a program of the node prints in the pod's network."""
    status = (await kube.get(ref))["status"]["containerStatuses"][0]
    container = status["containerID"].removeprefix("containerd://")
    listed = node.run("ctr", "--namespace=k8s.io", "tasks", "ls")
    process = next(line.split()[1] for line in listed.splitlines() if line.startswith(container))
    return node.run("nsenter", f"--target={process}", "--net", "--", *command)


async def _dropped(kube: Kube, node: RealNode, ref: Ref) -> list[str]:
    """The rules by which packets come to a chain that drops them; the chain itself stays, with its sets."""
    rules = await _inside(kube, node, ref, "iptables", "-w", "-S")
    return [rule for rule in rules.splitlines() if rule.startswith(("-A CHAOS-INPUT", "-A CHAOS-OUTPUT"))]


async def _sets(kube: Kube, node: RealNode, ref: Ref) -> str:
    return await _inside(kube, node, ref, "ipset", "list")


async def _reaches(kube: Kube, ref: Ref, other: Ref) -> bool:
    address = (await kube.get(other))["status"]["podIP"]
    done = await kube.exec(ref, pods.MAIN, ["/bin/busybox", "ping", "-c", "1", "-W", "1", address])
    return done.code == 0


PARTITION: Object = {
    "action": "partition",
    "direction": "to",
    "target": {"mode": "all", "selector": _pod("far")},
}


async def test_a_partition_drops_packets_at_both_ends_and_takes_its_rules_away(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    near, far = pair
    assert await _reaches(kube, near, far)
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", **PARTITION)
        assert {v.ref.name for v in plan.victims} == {"near", "far"}
        await step.inject(FAULT, plan)
        assert await _dropped(kube, node, near)
        assert await _dropped(kube, node, far)  # with direction `to` as well
        assert (await kube.get(far))["status"]["podIP"] in await _sets(kube, node, near)
        assert not await _reaches(kube, near, far)
        assert await step.undo() == ["undone"]
        assert not await _dropped(kube, node, near)
        assert not await _dropped(kube, node, far)
        assert await _reaches(kube, near, far)
        await step.becomes(FAULT, plan, "out")


async def test_stress_runs_in_the_pods_control_group_and_ends(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    async with _step(kube, tmp_path) as step:
        stressors = {"cpu": {"workers": 1, "load": 10}}
        plan = await _planned(step, "StressChaos", stressors=stressors)
        await step.inject(FAULT, plan)
        running = await eventually(lambda: _stress(node), lambda found: len(found) > 0)
        container = (await kube.get(pair[0]))["status"]["containerStatuses"][0]["containerID"]
        groups = {node.run("cat", f"/proc/{process}/cgroup") for process in running}
        assert all(container.removeprefix("containerd://") in group for group in groups), groups
        assert await step.undo() == ["undone"]
        await eventually(lambda: _stress(node), lambda found: not found)
        await step.becomes(FAULT, plan, "out")


async def _stress(node: RealNode) -> list[int]:
    listed = node.run("ps", "-e", "-o", "pid=,comm=").splitlines()
    return [int(line.split()[0]) for line in listed if "stress-ng" in line]


async def test_a_killed_container_is_another_one(kube: Kube, tmp_path: Path, pair: tuple[Ref, Ref]) -> None:
    async with _step(kube, tmp_path) as step:
        before = (await kube.get(pair[0]))["status"]["containerStatuses"][0]
        plan = await _planned(step, "PodChaos", action="container-kill", containerNames=[pods.MAIN])
        await step.inject(FAULT, plan)
        after = (await kube.get(pair[0]))["status"]["containerStatuses"][0]
        assert after["restartCount"] > before["restartCount"] or "running" not in after["state"]
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")


async def test_pod_failure_is_in_when_the_container_has_ended(
    kube: Kube, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    """The image is one that the node has not: the pod stops being ready, a while after AllInjected."""
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "PodChaos", action="pod-failure")
        await step.inject(FAULT, plan)
        assert not is_ready(await kube.get(pair[0]))
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")
        assert is_ready(await kube.get(pair[0]))


async def test_what_the_kernel_cannot_do_goes_and_spoils_no_later_fault(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    """A delay needs netem. Left alone, such an experiment never goes, nor does another fault on that pod."""
    async with _step(kube, tmp_path) as step:
        plan = await _planned(
            step, "NetworkChaos", action="delay", delay={"latency": "50ms"}, settleWithin="5s"
        )
        await FAULT.inject(plan, step.here)
        said = await eventually(
            lambda: step.settled(FAULT, plan), lambda e: "failed" in " ".join(e.facts), within=30
        )
        assert said.state == "partial"
        assert await step.undo() == ["undone"]
        assert "bookkeeping" in step.ledger.ledger.entries[0].message
        await step.becomes(FAULT, plan, "out")
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", **PARTITION)
        await step.inject(FAULT, plan)
        assert await _dropped(kube, node, pair[0])
        assert await step.undo() == ["undone"]
        assert not await _dropped(kube, node, pair[0])


async def test_a_finalizer_removed_by_hand_leaves_nothing_behind(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref], mesh: RealChaosMesh
) -> None:
    """What an impatient person does while the controllers are away: its rules stay."""
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", **PARTITION, settleWithin="5s")
        await step.inject(FAULT, plan)
        ref = Ref.of(plan.data["manifest"])
        async with chaos_mesh.without_webhooks(mesh, kube):
            mesh.stop()
            try:
                await kube.delete(ref)
                await kube.patch(ref, {"metadata": {"finalizers": None}}, "merge")
                await eventually(lambda: kube.find(ref), lambda found: found is None)
            finally:
                mesh.start()
        assert await _dropped(kube, node, pair[0])
        seen = await step.settled(FAULT, plan)
        assert seen.state == "partial"
        assert "PodNetworkChaos default/near" in " ".join(seen.facts)
        assert await step.undo() == ["undone"]
        assert not await _dropped(kube, node, pair[0])
        await step.becomes(FAULT, plan, "out")


async def test_a_daemon_that_is_gone_is_told_of_and_recovered_from(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref], daemon: Path
) -> None:
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "NetworkChaos", **PARTITION, settleWithin="5s")
        await step.inject(FAULT, plan)
        ref = Ref("v1", "Pod", chaos_daemon.NAME, NAMESPACE)
        await chaos_daemon.stop(kube, ref)
        try:
            assert await step.undo() == ["failed"]
            assert "chaos-mesh/records" in step.ledger.ledger.entries[0].message
            with pytest.raises(PlanError, match="chaos-daemon is not ready on 1 node with targets: node-1"):
                await _planned(step, "StressChaos", stressors={"cpu": {"workers": 1}})
        finally:
            await chaos_daemon.start(kube, node, daemon)
        assert await step.undo() == ["undone"]
        await eventually(lambda: _dropped(kube, node, pair[0]), lambda rules: not rules)
        await step.becomes(FAULT, plan, "out")


async def test_a_pod_on_its_nodes_network_is_refused_as_chaos_mesh_does(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    body = pods.manifest(node, "shares", "/bin/busybox", "sleep", "infinity", hostNetwork=True)
    body["metadata"]["labels"] = {"app": "shares"}
    async with pods.running(kube, body), _step(kube, tmp_path) as step:
        with pytest.raises(PlanError, match="default/shares is on its node's own network"):
            await _planned(step, "NetworkChaos", action="partition", selector=_pod("shares"))
        # What would come of it: it is never applied, and does not go of itself.
        spec = {"action": "partition", "mode": "all", "selector": _pod("shares"), "duration": "1m"}
        meta = {"name": "shares", "namespace": SPACE}
        body = {"apiVersion": API, "kind": "NetworkChaos", "metadata": meta, "spec": spec}
        operation = CreateChaos.of(body, step.world.run, force=True, within=3.0)
        await step.ledger.perform([operation])
        ref = Ref(API, "NetworkChaos", "shares", SPACE)
        await eventually(lambda: kube.get(ref), lambda o: "dangerous" in " ".join(complaints(o)))
        assert await step.undo() == ["undone"]
        assert "finalizers removed by force" in step.ledger.ledger.entries[0].message


async def test_a_target_on_a_node_without_a_daemon_is_refused(
    kube: Kube, node: RealNode, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    body = pods.manifest(node, "lonely", "/bin/busybox", "sleep", "infinity", nodeName=BYSTANDER)
    body["metadata"]["labels"] = {"app": "lonely"}
    ref = Ref.of(await kube.create(body))
    try:
        async with _step(kube, tmp_path) as step:
            with pytest.raises(PlanError, match=f"not ready on 1 node with targets: {BYSTANDER}"):
                await _planned(step, "NetworkChaos", action="partition", selector=_pod("lonely"))
    finally:
        await kube.delete(ref, grace=0)


READY = {
    "name": "near",
    "kubernetes": {"resource": "pods/near", "namespace": SPACE, "jsonPath": "{.status.phase}"},
    "is": "Running",
    "during": "ignore",
    "interval": "500ms",
}


def _experiment(folder: Path, node: RealNode, kind: str, spec: Object, hold: str) -> Path:
    step = {"chaosMesh": {"kind": kind, "spec": spec, "namespace": SPACE}, "for": hold}
    target = {"context": "gameday-.*", "namespaces": [SPACE]}
    radius = {"pods": 2, "nodes": 1}
    return experiments.write(folder, method=[step], target=target, steadyState=[READY], blastRadius=radius)


async def _cut_off(gameday: Program, file: Path) -> str:
    """A run that was killed once its fault was in."""
    with gameday.started(file) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "fault" and e.get("state") == "in", "in")
        return run.kill()


async def test_killed_and_recovered(
    kube: Kube, node: RealNode, gameday: Program, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    spec = {"mode": "all", "selector": _pod("near"), **PARTITION}
    name = await _cut_off(gameday, _experiment(tmp_path, node, "NetworkChaos", spec, "60s"))
    assert await _dropped(kube, node, pair[0])
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert not await _dropped(kube, node, pair[0])
    assert not await _dropped(kube, node, pair[1])


async def test_its_duration_ends_it_when_gameday_is_dead(
    kube: Kube, node: RealNode, gameday: Program, tmp_path: Path, pair: tuple[Ref, Ref]
) -> None:
    """The dead-man's switch: nobody recovers, and the packets pass again all the same."""
    spec = {"mode": "all", "selector": _pod("near"), **PARTITION, "duration": "15s"}
    name = await _cut_off(gameday, _experiment(tmp_path, node, "NetworkChaos", spec, "10s"))
    (chaos,) = await kube.list(await kube.resource(API, "NetworkChaos"), SPACE)
    await eventually(lambda: kube.get(Ref.of(chaos)), lambda o: is_true(o, "AllRecovered"))
    assert not await _dropped(kube, node, pair[0])
    assert await _reaches(kube, *pair)
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
