"""Chaos Mesh's own controllers and webhooks: faults that they inject through the API server alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gameday.extend import FaultPlan, PlanError
from gameday.faults.chaos_mesh import ChaosMesh, ChaosMeshSpec
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready, is_true
from gameday.platform.resources import PODS
from tests.e2e import experiments
from tests.faults.chaos import Step, step_of, taken_over
from tests.support.polling import eventually
from tests.support.program import Program
from tests.systems import chaos_mesh
from tests.systems.chaos_mesh import RealChaosMesh

FAULT = ChaosMesh()
SPACE = "victims"
API = "chaos-mesh.org/v1alpha1"
IMAGE = "example.com/victim:1"
MADE = ("PodChaos", "WorkflowNode", "Workflow", "Schedule")

pytestmark = pytest.mark.usefixtures("mesh", "victims")


@pytest.fixture(scope="module")
async def victims(kube: Kube) -> AsyncIterator[None]:
    """Three pods, which a Deployment replaces."""
    space = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}))
    labels = {"app": "victim"}
    container = {"name": "main", "image": IMAGE}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "victim", "namespace": SPACE},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", SPACE)))
    await kube.create(body)
    await _well(kube)
    yield
    await kube.delete(space)


@pytest.fixture(autouse=True)
async def as_before(kube: Kube) -> AsyncIterator[None]:
    """Each test leaves the pods running what they ran, and nothing that Chaos Mesh makes."""
    yield
    await _well(kube)
    assert not await _made(kube)


async def _pods(kube: Kube) -> list[Object]:
    return await kube.list(PODS, SPACE, labels="app=victim")


async def _well(kube: Kube) -> None:
    def holds(pods: list[Object]) -> bool:
        images = {s["image"] for p in pods for s in p.get("status", {}).get("containerStatuses") or ()}
        return len(pods) == 3 and all(map(is_ready, pods)) and images == {IMAGE}

    await eventually(lambda: _pods(kube), holds, within=60)


async def _made(kube: Kube) -> list[str]:
    listed = [await kube.list(await kube.resource(API, kind), SPACE) for kind in MADE]
    return [str(Ref.of(obj)) for objects in listed for obj in objects]


async def _experiments(kube: Kube) -> list[Object]:
    return await kube.list(await kube.resource(API, "PodChaos"), SPACE)


def _fault(action: str, mode: str = "one", **more: Any) -> Object:
    return {"action": action, "mode": mode, "selector": {"labelSelectors": {"app": "victim"}}, **more}


async def _planned(step: Step, kind: str, spec: Object, **more: Any) -> FaultPlan[ChaosMeshSpec]:
    told = {"kind": kind, "spec": spec, "namespace": SPACE, **more}
    return await FAULT.plan(ChaosMeshSpec.model_validate(told), step.world)


def _step(kube: Kube, folder: Path, **options: Any) -> Any:
    return step_of(kube, folder, [SPACE], **options)


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("PodChaos", _fault("container-kill"), "the name of container is required on container-kill action"),
        ("PodChaos", _fault("pod-kill", value="-1", mode="fixed"), "value"),
        (
            "Schedule",
            {"schedule": "now and then", "type": "PodChaos", "podChaos": _fault("pod-kill")},
            "schedule",
        ),
        ("Workflow", {"entry": "nobody", "templates": []}, "entry"),
    ],
    ids=["no-container", "negative", "cron", "entry"],
)
async def test_its_webhooks_judge_a_plan(
    kube: Kube, tmp_path: Path, kind: str, spec: Object, words: str
) -> None:
    async with _step(kube, tmp_path) as step:
        with pytest.raises(PlanError, match=words):
            await _planned(step, kind, spec)


async def test_killed_pods_are_gone_when_it_is_in(kube: Kube, tmp_path: Path) -> None:
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "PodChaos", _fault("pod-kill", "fixed", value="2"))
        await step.inject(FAULT, plan)
        left = [await kube.find(v.ref) for v in plan.victims]
        assert all(pod is None or "deletionTimestamp" in pod["metadata"] for pod in left)
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")


async def test_pod_failure_is_in_when_its_pods_show_it(
    kube: Kube, tmp_path: Path, mesh: RealChaosMesh
) -> None:
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "PodChaos", _fault("pod-failure", "all"))
        await step.inject(FAULT, plan)
        images = {p["status"]["containerStatuses"][0]["image"] for p in await _pods(kube)}
        assert images == {mesh.pause_image}
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")
        images = {p["status"]["containerStatuses"][0]["image"] for p in await _pods(kube)}
        assert images == {IMAGE}


FAILURE: Object = {
    "name": "break",
    "templateType": "PodChaos",
    "deadline": "50s",
    "podChaos": _fault("pod-failure"),
}
OFTEN: Object = {
    "schedule": "@every 1s",
    "type": "PodChaos",
    "concurrencyPolicy": "Allow",
    "historyLimit": 2,
    "podChaos": _fault("pod-failure"),
}
SERIAL: Object = {"name": "both", "templateType": "Serial", "children": ["break", "break"], "deadline": "2m"}
FLOW: Object = {"entry": "both", "templates": [SERIAL, FAILURE]}
HOLDER: Object = {"name": "often", "templateType": "Schedule", "deadline": "50s", "schedule": OFTEN}
SHAPES = [
    pytest.param("Workflow", FLOW, id="workflow"),
    pytest.param("Workflow", {"entry": "often", "templates": [HOLDER]}, id="schedule-in-workflow"),
    pytest.param(
        "Schedule",
        {"schedule": "@every 1s", "type": "Workflow", "historyLimit": 2, "workflow": FLOW},
        id="schedule-of-workflows",
    ),
    pytest.param("Schedule", OFTEN, id="schedule"),
]


@asynccontextmanager
async def _watching(kube: Kube) -> AsyncIterator[list[str]]:
    """The names of all experiments that are made meanwhile, in that order."""
    made: list[str] = []

    async def watch() -> None:
        async for change, obj in follow(kube, await kube.resource(API, "PodChaos"), SPACE):
            if change == "ADDED" and obj["metadata"]["name"] not in made:
                made.append(obj["metadata"]["name"])

    task = asyncio.create_task(watch())
    try:
        yield made
    finally:
        task.cancel()


@pytest.mark.parametrize(("kind", "spec"), SHAPES)
async def test_nothing_is_injected_again_while_it_is_undone(
    kube: Kube, tmp_path: Path, kind: str, spec: Object
) -> None:
    async with _watching(kube) as made, _step(kube, tmp_path, hold=20) as step:
        plan = await _planned(step, kind, spec)
        await step.inject(FAULT, plan)
        await eventually(lambda: _experiments(kube))
        taken = await taken_over(step)  # as `recover` has it: from the record
        before = len(made)
        assert [entry.state for entry in await taken.undo()] == ["undone"]
        await taken.close(restored=True)
        assert not await _made(kube)
        await step.becomes(FAULT, plan, "out")
        # A Schedule may fire once more before it hears that it is paused.
        assert len(made) <= before + (kind == "Schedule" or spec["entry"] == "often")


async def test_a_workflow_that_is_aborted_before_its_first_node_exists(
    kube: Kube, tmp_path: Path, mesh: RealChaosMesh
) -> None:
    """Its controller is late: it makes the entry node, and then hears of the end."""
    async with _watching(kube) as made, _step(kube, tmp_path, hold=20) as step:
        plan = await _planned(step, "Workflow", FLOW)
        ref = Ref.of(plan.data["manifest"])
        async with chaos_mesh.without_webhooks(mesh, kube):  # they would be as late
            mesh.hold()
            try:
                await FAULT.inject(plan, step.here)
                undoing = asyncio.create_task(step.undo())
                await eventually(
                    lambda: kube.get(ref), lambda o: bool(o["metadata"].get("annotations")), within=15
                )
            finally:
                mesh.go_on()
            assert await undoing == ["undone"]
        assert not await _made(kube)
        assert len(made) <= 1
        await step.becomes(FAULT, plan, "out")


async def test_a_dead_controller_is_told_of_and_recovered_from(
    kube: Kube, tmp_path: Path, mesh: RealChaosMesh
) -> None:
    async with _step(kube, tmp_path) as step:
        plan = await _planned(step, "PodChaos", _fault("pod-failure"), settleWithin="3s")
        await step.inject(FAULT, plan)
        mesh.stop()
        try:
            assert await step.undo() == ["failed"]
            assert "finalizers chaos-mesh/records" in step.ledger.ledger.entries[0].message
            assert (await step.settled(FAULT, plan)).state == "partial"
        finally:
            mesh.start()
        assert await step.undo() == ["undone"]
        await step.becomes(FAULT, plan, "out")


READY = {
    "name": "victims",
    "kubernetes": {
        "resource": "deployment/victim",
        "namespace": SPACE,
        "jsonPath": "{.status.readyReplicas}",
    },
    "is": ">= 1",
    "during": "ignore",
    "interval": "500ms",
}


def _experiment(folder: Path, kind: str, spec: Object, hold: str) -> Path:
    step = {"chaosMesh": {"kind": kind, "spec": spec, "namespace": SPACE}, "for": hold}
    target = {"context": "gameday-.*", "namespaces": [SPACE]}
    return experiments.write(
        folder, method=[step], target=target, steadyState=[READY], blastRadius={"pods": 3}
    )


@pytest.mark.parametrize(("kind", "spec"), [SHAPES[0], SHAPES[3]])
async def test_killed_and_recovered(
    kube: Kube, gameday: Program, tmp_path: Path, kind: str, spec: Object
) -> None:
    file = _experiment(tmp_path, kind, spec, "60s")
    with gameday.started(file) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "fault" and e.get("state") == "in", "in")
        await eventually(lambda: _experiments(kube))
        name = run.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert not await _made(kube)


async def test_its_duration_ends_it_when_gameday_is_dead(
    kube: Kube, gameday: Program, tmp_path: Path
) -> None:
    """The dead-man's switch: nobody recovers, and the pods run their own image again all the same."""
    file = _experiment(tmp_path, "PodChaos", _fault("pod-failure", duration="15s"), "10s")
    with gameday.started(file) as run:
        await asyncio.to_thread(run.until, lambda e: e["type"] == "fault" and e.get("state") == "in", "in")
        name = run.kill()
    (chaos,) = await _experiments(kube)
    await eventually(lambda: kube.get(Ref.of(chaos)), lambda o: is_true(o, "AllRecovered"))
    await _well(kube)
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output


async def test_a_deletion_in_the_foreground_injects_again(kube: Kube) -> None:
    """Why an undo never does that: the Workflow's controller misses its entry node, and makes another one."""
    meta = {"name": "again", "namespace": SPACE}
    spec = {"entry": "break", "templates": [FAILURE]}
    body = {"apiVersion": API, "kind": "Workflow", "metadata": meta, "spec": spec}
    async with _watching(kube) as made:
        ref = Ref.of(await kube.create(body))
        await eventually(lambda: _experiments(kube))
        await kube.delete(ref, propagation="Foreground")
        await eventually(lambda: kube.find(ref), lambda found: found is None, within=60)
        # The garbage collector comes to the second node later.
        await eventually(lambda: _made(kube), lambda left: not left, within=60)
    assert len(made) > 1
