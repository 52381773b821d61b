"""Chaos Mesh as a fault: planned on known pods, seen in by its own word, out without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gameday.faults.base import FaultPlan, PlanError
from gameday.faults.chaos_mesh import ChaosMesh, ChaosMeshSpec
from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from gameday.platform.resources import PODS
from tests.faults.chaos import Step, delay, names, step_of
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

FAULT = ChaosMesh()
STUCK = {"sandbox.gameday.dev/stuck": "true"}  # the fleet's controller then fails to recover


async def planned(step: Step, spec: Object) -> FaultPlan:
    return await FAULT.plan(ChaosMeshSpec.model_validate(spec), step.world)


async def all_ready(kube: Kube) -> None:
    """The inference pods are all there and ready, whatever a test before did to them."""

    async def pods() -> list[Object]:
        return await kube.list(PODS, "inference", labels="app=inference")

    await eventually(pods, lambda found: len(found) >= 12 and all(is_ready(p) for p in found))


async def left_over(kube: Kube, kind: str) -> list[Object]:
    return await kube.list(await kube.resource(API_VERSION, kind), "inference")


async def test_delay_gets_in_and_out(kube: Kube, tmp_path: Path, world_unchanged: Snapshot) -> None:
    async with step_of(kube, tmp_path, hold=30) as step:
        plan = await planned(step, delay(mode="fixed", value="3"))
        assert [(v.role, v.gpus) for v in plan.victims] == [("pod", 1)] * 3
        assert all(v.node and v.ref.uid for v in plan.victims)
        assert plan.changes == (
            f"create NetworkChaos gameday-{step.world.run}-1: NetworkChaos delay on 3 pods for 1m30s",
        )
        verbs = ("create", "get", "delete")
        assert plan.needs == tuple(f"{v} networkchaos.chaos-mesh.org inference" for v in verbs)
        assert (await step.inject(FAULT, plan)).facts[0].endswith("AllInjected, 3 of 3 targets are injected")
        made = await kube.get(Ref.of(plan.data["manifest"]))
        assert {r["id"] for r in made["status"]["experiment"]["containerRecords"]} == names(plan.victims)
        assert names(step.admitted) == names(plan.victims)
        assert made["metadata"]["labels"]["gameday.dev/run"] == step.world.run
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")
    assert not await left_over(kube, "NetworkChaos")


async def test_the_same_seed_means_the_same_pods(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as first, step_of(kube, tmp_path, seed=8) as other:
        half = delay(mode="fixed-percent", value="50")
        chosen = names((await planned(first, half)).victims)
        assert chosen == names((await planned(first, half)).victims)
        assert len(chosen) == 6
        assert chosen != names((await planned(other, half)).victims)


async def test_a_pod_that_went_is_replaced_by_another(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, delay(mode="fixed", value="2"))
        gone, kept = plan.victims
        await kube.delete(gone.ref, grace=0)
        await eventually(lambda: kube.find(gone.ref), lambda pod: pod is None)
        await step.inject(FAULT, plan)
        assert len(step.admitted) == 2
        assert str(kept) in map(str, step.admitted)
        assert gone.ref.uid not in {v.ref.uid for v in step.admitted}
    await all_ready(kube)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (delay(selector={"namespaces": ["kube-system"]}), "kube-system is outside the target"),
        (delay(selector={"pods": {"platform": ["x"]}}), "platform is outside the target"),
        (delay(selector={"labelSelectors": {"app": "nothing"}}), "matches no pods in inference"),
        (delay(selector={"nodes": ["nowhere"]}), "node nowhere, which is not in the cluster"),
        (delay(mode="fixed"), "mode fixed needs `value`"),
        (delay(mode="fixed-percent", value="101"), "a number from 1 to 100"),
        (delay(mode="some"), 'spec.mode: Unsupported value: "some"'),
        (delay(action="dely"), 'spec.action: Unsupported value: "dely"'),
        (
            delay(selector={"labelSelector": {"app": "inference"}}),
            'unknown field "spec.selector.labelSelector"',
        ),
        (delay(remoteCluster="other"), "names the remote cluster other"),
        (delay(duration="soon"), "its duration is wrong"),
        ({"kind": "GremlinChaos", "spec": {}}, "does not serve GremlinChaos here: install it"),
        ({"kind": "PodNetworkChaos", "spec": {}}, "is no fault"),
        ({"manifest": "nowhere.yaml"}, "cannot be read"),
    ],
)
async def test_refused_before_anything_is_touched(
    kube: Kube, tmp_path: Path, spec: Object, words: str
) -> None:
    async with step_of(kube, tmp_path, hold=10) as step:
        with pytest.raises(PlanError) as refused:
            await planned(step, spec)
        assert words in str(refused.value)


async def test_a_node_without_daemon_is_named(kube: Kube, tmp_path: Path) -> None:
    """On a node without a kubelet the daemon's pod never runs; killing through the API needs none."""
    lonely = Ref.of(
        await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "without-daemon"}})
    )
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "lonely", "namespace": "inference", "labels": {"app": "lonely"}},
        "spec": {
            "nodeName": lonely.name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none"}],
        },
    }
    pod = Ref.of(await kube.create(body))
    try:
        async with step_of(kube, tmp_path) as step:
            selector = {"labelSelectors": {"app": "lonely"}}
            with pytest.raises(
                PlanError, match=r"not ready on 1 node .*without-daemon \(holds Pod inference/lonely\)"
            ):
                await planned(step, delay(selector=selector))
            kill = {"kind": "PodChaos", "spec": {"action": "pod-kill", "mode": "one", "selector": selector}}
            assert names((await planned(step, kill)).victims) == {"inference/lonely"}
    finally:
        await kube.delete(pod, grace=0)
        await kube.delete(lonely)


async def test_the_far_end_is_touched_only_where_its_own_traffic_is(kube: Kube, tmp_path: Path) -> None:
    far_end = {
        "mode": "one",
        "selector": {"namespaces": ["platform"], "labelSelectors": {"app": "job-queue-controller"}},
    }
    async with step_of(kube, tmp_path) as step:
        outward = await planned(step, delay(mode="one", direction="to", target=far_end))
        assert {v.ref.namespace for v in outward.victims} == {"inference"}
        assert outward.data["manifest"]["spec"]["target"]["mode"] == "all"
        with pytest.raises(PlanError, match="platform is outside the target"):
            await planned(step, delay(mode="one", direction="both", target=far_end))
    async with step_of(kube, tmp_path, ["inference", "platform"]) as step:
        both = await planned(step, delay(mode="one", direction="both", target=far_end))
        assert {v.ref.namespace for v in both.victims} == {"inference", "platform"}


@pytest.mark.parametrize(
    ("hold", "duration", "becomes", "warned"),
    [
        (30, None, "1m30s", False),
        (None, None, "1m", False),
        (30, "20s", "20s", True),
        (30, "2m", "2m", False),
    ],
)
async def test_it_always_ends_by_itself(
    kube: Kube, tmp_path: Path, hold: float | None, duration: str | None, becomes: str, warned: bool
) -> None:
    async with step_of(kube, tmp_path, hold=hold) as step:
        plan = await planned(step, delay(mode="one", **({"duration": duration} if duration else {})))
        assert plan.data["manifest"]["spec"]["duration"] == becomes
        assert bool(plan.warnings) is warned


async def test_killed_pods_are_counted_as_lost(kube: Kube, tmp_path: Path) -> None:
    selector = {"labelSelectors": {"app": "inference"}}
    async with step_of(kube, tmp_path) as step:
        spec = {"action": "pod-kill", "mode": "fixed", "value": "2", "selector": selector}
        plan = await planned(step, {"kind": "PodChaos", "spec": spec})
        assert plan.irreversible == ("2 killed pods: replaced by controllers, not restored",)
        await step.inject(FAULT, plan)
        assert [await kube.find(v.ref) for v in plan.victims] == [None, None]
        assert await step.undo() == ["undone"]
        assert (await step.becomes(FAULT, plan, "out")).facts[1] == "0 target pods are as before"
    await all_ready(kube)


def _file(folder: Path, document: Object, **metadata: Any) -> Object:
    whole = {"apiVersion": API_VERSION, **document, "metadata": {"namespace": "inference", **metadata}}
    (folder / "chaos.yaml").write_text(yaml.safe_dump(whole))
    return {"manifest": "chaos.yaml"}


async def test_a_whole_manifest_from_beside_the_experiment(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        spec = _file(tmp_path, delay(mode="one"), name="theirs", labels={"team": "a"}) | {"name": "slow"}
        manifest = (await planned(step, spec)).data["manifest"]
        assert manifest["metadata"] == {"name": "slow", "namespace": "inference", "labels": {"team": "a"}}
        with pytest.raises(PlanError, match="it would never get in"):
            await planned(
                step, _file(tmp_path, delay(), annotations={"experiment.chaos-mesh.org/pause": "true"})
            )


async def test_a_stuck_finalizer_is_reported_with_its_reason(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        spec = _file(tmp_path, delay(mode="one"), annotations=STUCK) | {"settleWithin": "2s"}
        plan = await planned(step, spec)
        await step.inject(FAULT, plan)
        assert await step.undo() == ["failed"]
        message = step.ledger.ledger.entries[0].message
        assert "finalizers chaos-mesh/records" in message
        assert "recover of inference/" in message
        assert "unable to flush tc qdisc" in message
        seen = await FAULT.settled(plan, step.world)
        assert seen.state == "partial"
        assert "is being deleted: 1 of 1 targets are injected" in seen.facts[0]
        await kube.patch(
            Ref.of(plan.data["manifest"]), {"metadata": {"annotations": dict.fromkeys(STUCK)}}, "merge"
        )
        assert await step.undo() == ["undone"]


async def test_force_removes_a_stuck_finalizer_and_says_so(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        spec = _file(tmp_path, delay(mode="one"), annotations=STUCK) | {"settleWithin": "1s", "force": True}
        plan = await planned(step, spec)
        await step.inject(FAULT, plan)
        assert await step.undo() == ["undone"]
        assert "finalizers removed by force" in step.ledger.ledger.entries[0].message
        await step.becomes(FAULT, plan, "out")


async def test_a_schedule_takes_its_children_with_it(kube: Kube, tmp_path: Path) -> None:
    inner = delay(mode="one")["spec"]
    spec = {"schedule": "@every 1s", "type": "NetworkChaos", "historyLimit": 2, "networkChaos": inner}
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, {"kind": "Schedule", "spec": spec})
        assert len(plan.victims) == 12  # it chooses anew each time, so each of them may be hit
        assert "no end of its own" in plan.warnings[0]
        assert plan.data["manifest"]["spec"]["networkChaos"]["duration"] == "1m"
        await step.inject(FAULT, plan)
        await eventually(lambda: left_over(kube, "NetworkChaos"))
        assert await step.undo() == ["undone"]
        assert not await left_over(kube, "NetworkChaos")
        await step.becomes(FAULT, plan, "out")


async def test_a_workflow_takes_its_children_with_it(kube: Kube, tmp_path: Path) -> None:
    templates = [
        {"name": "both", "templateType": "Parallel", "children": ["slow", "wait"]},
        {"name": "slow", "templateType": "NetworkChaos", "networkChaos": delay(mode="one")["spec"]},
        {"name": "wait", "templateType": "Suspend", "deadline": "50s"},
    ]
    async with step_of(kube, tmp_path, hold=20) as step:
        plan = await planned(step, {"kind": "Workflow", "spec": {"entry": "both", "templates": templates}})
        assert len(plan.victims) == 1
        made = {t["name"]: t for t in plan.data["manifest"]["spec"]["templates"]}
        assert [made[n].get("deadline") for n in ("both", "slow", "wait")] == [None, "1m20s", "50s"]
        assert "duration" not in made["slow"]["networkChaos"]  # upstream's webhook refuses it there
        await step.inject(FAULT, plan)
        await eventually(lambda: left_over(kube, "NetworkChaos"))
        assert await step.undo() == ["undone"]
        assert not await left_over(kube, "NetworkChaos")


async def test_a_plan_survives_its_file(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        made = await planned(step, delay(mode="one"))
        plan = FaultPlan.from_data(made.spec, made.to_data())
        await step.inject(FAULT, plan)
        assert names(step.admitted) == names(made.victims)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"kind": "PodChaos"}, {"spec": {}}, delay() | {"manifest": "x"}, {"kind": "A", "manifest": "x"}],
)
def test_exactly_one_way_to_say_it(wrong: Object) -> None:
    with pytest.raises(ValidationError, match="either `kind` and `spec`, or `manifest`"):
        ChaosMeshSpec.model_validate(wrong)


def test_the_example_is_valid() -> None:
    ChaosMeshSpec.model_validate(yaml.safe_load(ChaosMesh.example)["chaosMesh"])
