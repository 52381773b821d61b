"""Chaos Mesh as a fault: planned on known pods, seen in by its own word, out without a trace."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gameday.extend import FaultPlan, PlanError
from gameday.faults.chaos_mesh import ChaosMesh, ChaosMeshSpec
from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.errors import ApiError
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, is_ready
from gameday.platform.resources import PODS
from gameday.safety.plan import with_effects
from tests.faults.chaos import Step, delay, names, step_of, taken_over
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

FAULT = ChaosMesh()
STUCK = {"sandbox.gameday.dev/stuck": "true"}  # the fleet's controller then fails to recover


async def planned(step: Step, spec: Object) -> FaultPlan[ChaosMeshSpec]:
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
        verbs = ("create", "get", "list", "delete")
        assert plan.needs == (
            *(f"{v} networkchaos.chaos-mesh.org inference" for v in verbs),
            *(f"{v} podnetworkchaos.chaos-mesh.org inference" for v in ("list", "patch")),
        )
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
        *((delay(duration=wrong), "its duration is wrong") for wrong in ("soon", "30", "1 m", "1d")),
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
        with pytest.raises(PlanError, match="platform is outside the target"):  # drops at both ends
            await planned(step, delay(action="partition", mode="one", direction="to", target=far_end))
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
        whole = await with_effects(FAULT, plan, step.world)
        assert whole.irreversible == ("2 pods: replaced by controllers, not restored",)
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
        seen = await step.settled(FAULT, plan)
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
        said = step.ledger.ledger.entries[0].message
        assert "finalizers removed by force" in said
        assert f"the fault may stay in inference/{plan.victims[0].ref.name} until replaced" in said
        books = await left_over(kube, "PodNetworkChaos")
        assert not [entry for book in books for entry in book["spec"].get("tcs") or ()]
        await step.becomes(FAULT, plan, "out")


async def test_a_schedule_takes_its_children_with_it(kube: Kube, tmp_path: Path) -> None:
    inner = delay(mode="one")["spec"]
    spec = {"schedule": "@every 1s", "type": "NetworkChaos", "historyLimit": 2, "networkChaos": inner}
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, {"kind": "Schedule", "spec": spec})
        assert len(plan.victims) == 12  # it chooses anew each time, so each of them may be hit
        assert "no end of its own" in plan.warnings[0]
        assert "until a janitor stops it, about 20 s later, or, where none is deployed" in plan.warnings[0]
        assert plan.data["manifest"]["spec"]["networkChaos"]["duration"] == "1m"
        await step.inject(FAULT, plan)
        await eventually(lambda: left_over(kube, "NetworkChaos"))
        assert await step.undo() == ["undone"]
        assert not await left_over(kube, "NetworkChaos")
        await step.becomes(FAULT, plan, "out")


async def test_each_template_chooses_by_itself_and_keeps_its_choice(kube: Kube, tmp_path: Path) -> None:
    def slow(name: str) -> Object:
        half = delay(mode="fixed", value="6")["spec"]
        return {"name": name, "templateType": "NetworkChaos", "networkChaos": half}

    flow = _flow(
        {"name": "both", "templateType": "Parallel", "children": ["a", "b"]},
        slow("a"),
        slow("b"),
        entry="both",
    )
    await all_ready(kube)
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, {"kind": "Workflow", "spec": flow})
        assert 6 < len(plan.victims) <= 12  # with one key for both they would be the same six
        found = await FAULT.effects(plan, step.world)
        assert {e.ref.name for e in found if e.ref.kind == "Pod"} == {v.ref.name for v in plan.victims}


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


def _flow(*templates: Object, entry: str) -> Object:
    return {"entry": entry, "templates": list(templates)}


def _often(kind: str, **inner: Object) -> Object:
    return {"schedule": "@every 1s", "type": kind, "concurrencyPolicy": "Allow", "historyLimit": 2, **inner}


SLOW: Object = {
    "name": "slow",
    "templateType": "NetworkChaos",
    "deadline": "50s",
    "networkChaos": {
        "action": "delay",
        "mode": "one",
        "selector": {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}},
        "delay": {"latency": "1s"},
    },
}
OFTEN = {
    "name": "often",
    "templateType": "Schedule",
    "deadline": "50s",
    "schedule": _often("NetworkChaos", networkChaos=SLOW["networkChaos"]),
}
SERIAL = {"name": "both", "templateType": "Serial", "children": ["slow", "slow"], "deadline": "2m"}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Workflow", _flow(SERIAL, SLOW, entry="both")),
        ("Workflow", _flow(OFTEN, entry="often")),
        ("Schedule", _often("Workflow", workflow=_flow(SERIAL, SLOW, entry="both"))),
        ("Schedule", _often("NetworkChaos", networkChaos=SLOW["networkChaos"])),
    ],
    ids=["workflow", "schedule-in-workflow", "schedule-of-workflows", "schedule"],
)
async def test_out_means_that_nothing_it_made_is_left(
    kube: Kube, tmp_path: Path, kind: str, spec: Object
) -> None:
    made = ("NetworkChaos", "WorkflowNode", "Workflow", "Schedule")
    async with step_of(kube, tmp_path, hold=20) as step:
        plan = await planned(step, {"kind": kind, "spec": spec})
        await step.inject(FAULT, plan)
        await eventually(lambda: left_over(kube, "NetworkChaos"))
        taken = await taken_over(step)  # as `recover` has it: from the record
        assert [entry.state for entry in await taken.undo()] == ["undone"]
        await taken.close(restored=True)
        assert not [obj for each in made for obj in await left_over(kube, each)]
        await step.becomes(FAULT, plan, "out")


SOME = {"namespaces": ["platform"], "labelSelectors": {"app": "some"}}
KILL: Object = {"action": "pod-kill", "mode": "all", "selector": SOME}
EVERY_SECOND: Object = _often("PodChaos", podChaos=KILL)


def _pod(name: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "platform", "labels": {"app": "some", **labels}},
        "spec": {
            "nodeName": "gpu-0",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "example.com/main:1"}],
        },
    }


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Schedule", EVERY_SECOND),
        (
            "Workflow",
            _flow(
                {"name": "often", "templateType": "Schedule", "deadline": "50s", "schedule": EVERY_SECOND},
                entry="often",
            ),
        ),
    ],
)
async def test_of_pods_made_meanwhile_none_is_chosen_that_is_protected(
    kube: Kube, tmp_path: Path, kind: str, spec: Object
) -> None:
    """Each firing chooses anew; all that the cluster says of a pod by then is the pod's own label."""
    pods = [Ref.of(await kube.create(_pod("some-0")))]
    try:
        async with step_of(kube, tmp_path, ["platform"], hold=20) as step:
            plan = await planned(step, {"kind": kind, "spec": spec, "namespace": "platform"})
            await FAULT.inject(plan, step.here)
            pods += [Ref.of(await kube.create(_pod("some-1", **{"gameday.dev/protect": "true"})))]
            pods += [Ref.of(await kube.create(_pod("some-2")))]
            await eventually(lambda: kube.find(pods[2]), lambda pod: pod is None)
            assert await kube.find(pods[1])
            assert await step.undo() == ["undone"]
            assert await kube.find(pods[1])
    finally:
        for pod in pods:
            await kube.delete(pod, grace=0)
            await eventually(lambda pod=pod: kube.find(pod), lambda found: found is None)  # type: ignore[misc]


async def test_it_chooses_no_more_than_were_there(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path, hold=20) as step:
        again = _often("NetworkChaos", networkChaos={**SLOW["networkChaos"], "mode": "all"})
        plan = await planned(step, {"kind": "Schedule", "spec": again})
        assert len(plan.victims) == 12
        made = plan.data["manifest"]["spec"]["networkChaos"]
        assert (made["mode"], made["value"]) == ("fixed", "12")


@pytest.mark.parametrize("mode", ["fixed-percent", "random-max-percent"])
async def test_a_share_of_what_is_there_by_then_is_refused(kube: Kube, tmp_path: Path, mode: str) -> None:
    selector = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
    kill = {"action": "pod-kill", "mode": mode, "value": "50", "selector": selector}
    async with step_of(kube, tmp_path, hold=20) as step:
        with pytest.raises(PlanError, match="nobody knows how many it ends: give `mode: fixed`"):
            await planned(step, {"kind": "Schedule", "spec": _often("PodChaos", podChaos=kill)})
        await planned(step, {"kind": "PodChaos", "spec": kill})


async def test_a_protected_node_must_be_out_of_reach(kube: Kube, tmp_path: Path) -> None:
    node, label = Ref("v1", "Node", "gpu-3"), "gameday.dev/protect"
    often = _often("NetworkChaos", networkChaos=SLOW["networkChaos"])
    await kube.patch(node, {"metadata": {"labels": {label: "true"}}}, "merge")
    try:
        async with step_of(kube, tmp_path, hold=20) as step:
            with pytest.raises(PlanError, match="may come to gpu-3, which carries the label"):
                await planned(step, {"kind": "Schedule", "spec": often})
            pods = await kube.list(PODS, "inference", labels="app=inference")
            there = next(p["spec"]["nodeName"] for p in pods if p["spec"]["nodeName"] != "gpu-3")
            near = {
                **SLOW["networkChaos"],
                "selector": {**SLOW["networkChaos"]["selector"], "nodes": [there]},
            }
            await planned(step, {"kind": "Schedule", "spec": _often("NetworkChaos", networkChaos=near)})
    finally:
        await kube.patch(node, {"metadata": {"labels": {label: None}}}, "merge")


async def test_a_protected_workload_must_be_out_of_reach(kube: Kube, tmp_path: Path) -> None:
    """None of its pods is there yet, so the gate can't see it; those that come would be chosen."""
    label = {"gameday.dev/protect": "true"}
    template = _pod("")["spec"] | {"restartPolicy": "Always"}
    del template["nodeName"]
    body: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "guarded", "namespace": "inference", "labels": label},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"of": "guarded"}},
            "template": {"metadata": {"labels": {"of": "guarded", "app": "inference"}}, "spec": template},
        },
    }
    often = {"kind": "Schedule", "spec": _often("NetworkChaos", networkChaos=SLOW["networkChaos"])}
    ref = Ref.of(await kube.create(body))
    try:
        async with step_of(kube, tmp_path, hold=20) as step:
            with pytest.raises(PlanError, match="Deployment inference/guarded carries the label"):
                await planned(step, often)
            labels = {"spec": {"template": {"metadata": {"labels": label}}}}
            await kube.patch(ref, labels, "merge")
            await planned(step, often)
    finally:
        await kube.delete(ref)
        await eventually(lambda: kube.find(ref), lambda found: found is None)


WRONG = {**SLOW, "networkChaos": {**SLOW["networkChaos"], "device": "nowhere0"}}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Workflow", _flow(WRONG, entry="slow")),
        ("Schedule", _often("NetworkChaos", networkChaos=WRONG["networkChaos"])),
    ],
)
async def test_an_experiment_that_cannot_be_carried_out_is_not_in_for_whoever_made_it(
    kube: Kube, tmp_path: Path, kind: str, spec: Object
) -> None:
    """The object is there, so Chaos Mesh calls it active."""
    async with step_of(kube, tmp_path, hold=20) as step:
        plan = await planned(step, {"kind": kind, "spec": spec, "settleWithin": "1s"})
        await FAULT.inject(plan, step.here)
        await eventually(lambda: left_over(kube, "NetworkChaos"))
        seen = await eventually(
            lambda: step.settled(FAULT, plan), lambda e: "Cannot find device" in " ".join(e.facts)
        )
        assert seen.state == "partial"
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")


async def test_a_schedule_whose_name_another_namespace_has_is_refused(kube: Kube, tmp_path: Path) -> None:
    """Chaos Mesh finds what a Schedule made by its name alone: an undo would pause what theirs made."""
    often = _often("NetworkChaos", networkChaos=SLOW["networkChaos"])
    theirs = {**often, "schedule": "@yearly"}
    meta = {"name": "nightly", "namespace": "platform"}
    body = {"apiVersion": API_VERSION, "kind": "Schedule", "metadata": meta, "spec": theirs}
    ref = Ref.of(await kube.create(body))
    try:
        async with step_of(kube, tmp_path, hold=20) as step:
            with pytest.raises(PlanError, match="namespace platform has a Schedule nightly too"):
                await planned(step, {"kind": "Schedule", "spec": often, "name": "nightly"})
            await planned(step, {"kind": "Schedule", "spec": often, "name": "hourly"})
    finally:
        await kube.delete(ref)


async def test_a_paused_schedule_is_not_in(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path, hold=20) as step:
        often = _often("NetworkChaos", networkChaos=SLOW["networkChaos"])
        plan = await planned(step, {"kind": "Schedule", "spec": often})
        await step.inject(FAULT, plan)
        paused = {"metadata": {"annotations": {"experiment.chaos-mesh.org/pause": "true"}}}
        await kube.patch(Ref.of(plan.data["manifest"]), paused, "merge")
        seen = await step.becomes(FAULT, plan, "partial")
        assert "it is paused by its annotation" in seen.facts[0]
        assert await step.undo() == ["undone"]


async def _without_waiting(kube: Kube) -> list[Object]:
    """Schedules that are left; the garbage collector has one wait for what it made, if it knows of that."""
    left = await left_over(kube, "Schedule")
    for each in left:
        if each["metadata"].get("deletionTimestamp"):
            with suppress(ApiError):
                await kube.patch(Ref.of(each), {"metadata": {"finalizers": None}}, "merge")
    return left


async def test_what_was_made_and_orphaned_is_found(kube: Kube, tmp_path: Path) -> None:
    """Somebody else deleted the Workflow: its Schedule's experiment bears the Schedule's name alone."""
    async with step_of(kube, tmp_path, hold=20) as step:
        plan = await planned(step, {"kind": "Workflow", "spec": _flow(OFTEN, entry="often")})
        await step.inject(FAULT, plan)
        (first, *_) = await eventually(lambda: left_over(kube, "NetworkChaos"))
        await kube.patch(Ref.of(first), {"metadata": {"annotations": STUCK}}, "merge")
        await kube.delete(Ref.of(plan.data["manifest"]))
        await eventually(lambda: _without_waiting(kube), lambda left: not left)
        seen = await step.settled(FAULT, plan)
        assert seen.state == "partial"
        assert f"NetworkChaos inference/{first['metadata']['name']}" in seen.facts[1]
        await kube.patch(Ref.of(first), {"metadata": {"annotations": dict.fromkeys(STUCK)}}, "merge")
        assert await step.undo() == ["undone"]


async def test_force_leaves_alone_what_only_a_name_speaks_for(kube: Kube, tmp_path: Path) -> None:
    """Another Workflow's template has the same name; what it made is no object of ours to force."""
    body = {"apiVersion": API_VERSION, **delay(mode="one")}
    body["metadata"] = {
        "name": "often-aaaaa-bbbbb-ccccc",
        "namespace": "inference",
        "labels": {"managed-by": "often-aaaaa-bbbbb"},
        "annotations": STUCK,
    }
    theirs = Ref.of(await kube.create(body))
    try:
        await eventually(lambda: kube.get(theirs), lambda o: bool(o["metadata"].get("finalizers")))
        async with step_of(kube, tmp_path, hold=20) as step:
            flow = {"kind": "Workflow", "spec": _flow(OFTEN, entry="often")}
            plan = await planned(step, flow | {"settleWithin": "2s", "force": True})
            await step.inject(FAULT, plan)
            assert await step.undo() == ["failed"]
            assert str(theirs) in step.ledger.ledger.entries[0].message
            assert (await kube.get(theirs))["metadata"]["finalizers"] == ["chaos-mesh/records"]
            await kube.patch(theirs, {"metadata": {"annotations": dict.fromkeys(STUCK)}}, "merge")
            await kube.delete(theirs)
            await eventually(lambda: kube.find(theirs), lambda found: found is None)
            assert await step.undo() == ["undone"]
    finally:
        if await kube.find(theirs):
            await kube.patch(theirs, {"metadata": {"annotations": dict.fromkeys(STUCK)}}, "merge")
            await kube.delete(theirs)


async def test_what_cannot_be_applied_goes_and_spoils_no_later_fault(kube: Kube, tmp_path: Path) -> None:
    """Its entry in the pod's bookkeeping would keep it, and make every later fault on that pod fail."""
    async with step_of(kube, tmp_path) as step:
        wrong = delay(mode="one", device="nowhere0") | {"settleWithin": "1s"}
        plan = await planned(step, wrong)
        await FAULT.inject(plan, step.here)
        said = await eventually(
            lambda: step.settled(FAULT, plan), lambda e: "Cannot find device" in " ".join(e.facts)
        )
        assert said.state == "partial"
        assert await step.undo() == ["undone"]
        assert "Cannot find device" in step.ledger.ledger.entries[0].message
        await step.becomes(FAULT, plan, "out")
    (victim,) = plan.victims
    async with step_of(kube, tmp_path) as step:
        selector = {"pods": {"inference": [victim.ref.name]}}
        await step.inject(FAULT, await planned(step, delay(mode="one", selector=selector)))


async def test_pod_failure_is_in_when_its_pods_show_it(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        selector = {"labelSelectors": {"app": "inference"}}
        spec = {"action": "pod-failure", "mode": "fixed", "value": "2", "selector": selector}
        plan = await planned(step, {"kind": "PodChaos", "spec": spec})
        seen = await step.inject(FAULT, plan)
        assert "2 target pods show it" in seen.facts
        for victim in plan.victims:
            status = (await kube.get(victim.ref))["status"]["containerStatuses"][0]
            assert "pause" in status["image"]
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")
    await all_ready(kube)


async def test_a_pod_on_its_nodes_network_is_refused(kube: Kube, tmp_path: Path) -> None:
    node = (await kube.list(PODS, "inference", labels="app=inference"))[0]["spec"]["nodeName"]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shares", "namespace": "inference", "labels": {"app": "shares"}},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "example.com/main:1"}],
        },
    }
    pod = Ref.of(await kube.create(body))
    try:
        async with step_of(kube, tmp_path) as step:
            with pytest.raises(PlanError, match="inference/shares is on its node's own network"):
                await planned(step, delay(selector={"labelSelectors": {"app": "shares"}}))
    finally:
        await kube.delete(pod, grace=0)
        await eventually(lambda: kube.find(pod), lambda found: found is None)


async def test_a_running_workflow_does_not_inject_again_while_undone(kube: Kube, tmp_path: Path) -> None:
    """Deleted in the foreground it would make its entry node, and the fault, a second time."""
    selector = {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}}
    slow = {"action": "delay", "mode": "one", "selector": selector, "delay": {"latency": "1s"}}
    templates = [{"name": "slow", "templateType": "NetworkChaos", "networkChaos": slow, "deadline": "50s"}]
    made: set[str] = set()

    async def follow_all(resource: Resource) -> None:
        async for _, obj in follow(kube, resource, "inference", labels="chaos-mesh.org/workflow"):
            if obj.get("metadata", {}).get("name"):
                made.add(obj["metadata"]["name"])

    async with step_of(kube, tmp_path, hold=20) as step:
        plan = await planned(step, {"kind": "Workflow", "spec": {"entry": "slow", "templates": templates}})
        seen = asyncio.create_task(follow_all(await kube.resource("chaos-mesh.org/v1alpha1", "NetworkChaos")))
        try:
            await step.inject(FAULT, plan)
            await eventually(lambda: left_over(kube, "NetworkChaos"))
            assert await step.undo() == ["undone"]
            assert (await step.becomes(FAULT, plan, "out")).state == "out"
            assert not await left_over(kube, "NetworkChaos")
        finally:
            seen.cancel()
    assert len(made) == 1


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
