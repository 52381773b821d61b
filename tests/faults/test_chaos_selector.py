"""What a Chaos Mesh selector means: by its rules for any input, and as its controller itself resolves it."""

from __future__ import annotations

import math
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.extend import PlanError
from gameday.faults.chaos_manifest import parts, set_ends
from gameday.faults.chaos_selector import how_many, matching, meets, namespaces_of, pin
from gameday.platform.chaos_mesh import API_VERSION, records
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.world import World
from tests.faults.chaos import delay
from tests.support.polling import eventually

PHASES = ("Pending", "Running", "Succeeded", "Failed")
NAMES = st.text("abc", min_size=1, max_size=3)


def world(seed: int = 0, *namespaces: str) -> World:
    """Nothing here asks a cluster."""
    return World(cast(Kube, None), seed=seed, namespaces=namespaces, step="1")


def pod(namespace: str, name: str, phase: str = "Running", node: str = "n", **annotations: str) -> Object:
    meta = {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}", "annotations": annotations}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": node}, "status": {"phase": phase}}


@given(st.integers(1, 500), st.integers(1, 600))
def test_fixed_is_at_most_all(total: int, value: int) -> None:
    assert how_many("fixed", str(value), total, world()) == min(total, value)


@given(st.integers(1, 500), st.integers(1, 100), st.integers(0, 1000))
def test_a_percentage_is_rounded_up_and_a_maximum_is_one(total: int, percent: int, seed: int) -> None:
    exact = how_many("fixed-percent", str(percent), total, world())
    assert exact == math.ceil(total * percent / 100)
    chosen = how_many("random-max-percent", str(percent), total, world(seed))
    assert 1 <= chosen <= exact
    assert chosen == how_many("random-max-percent", str(percent), total, world(seed))


@given(st.sampled_from(["fixed", "fixed-percent", "random-max-percent"]), st.text(max_size=4))
def test_any_other_value_is_refused_or_a_sound_number(mode: str, value: str) -> None:
    try:
        count = how_many(mode, value, 10, world())
    except PlanError:
        return
    assert 1 <= count <= 10


@given(st.lists(st.sampled_from([*PHASES, *(f"!{p}" for p in PHASES)])), st.sampled_from(PHASES))
def test_phases(wanted: list[str], phase: str) -> None:
    included = [p for p in wanted if not p.startswith("!")]
    expected = (not included or phase in included) and f"!{phase}" not in wanted
    assert meets(pod("a", "p", phase), {"podPhaseSelectors": wanted}, None) is expected


@given(st.dictionaries(NAMES, NAMES, max_size=3), st.dictionaries(NAMES, NAMES, max_size=3))
def test_annotations(wanted: dict[str, str], there: dict[str, str]) -> None:
    assert meets(pod("a", "p", **there), {"annotationSelectors": wanted}, None) is (
        wanted.items() <= there.items()
    )


@given(st.sets(NAMES, max_size=3), NAMES)
def test_nodes(allowed: set[str], node: str) -> None:
    assert meets(pod("a", "p", node=node), {}, allowed) is (node in allowed)
    assert meets(pod("a", "p", node=node), {}, None)


@given(st.sets(st.tuples(NAMES, NAMES), min_size=1), st.sampled_from(["one", "fixed", "all"]))
def test_pinned_is_exactly_those(chosen: set[tuple[str, str]], mode: str) -> None:
    holder: Object = {"mode": mode, "value": "3", "selector": {"labelSelectors": {"a": "b"}}}
    pin(holder, [pod(namespace, name) for namespace, name in chosen])
    pods = holder["selector"]["pods"]
    assert {(namespace, name) for namespace, found in pods.items() for name in found} == chosen
    assert holder["mode"] == "all"
    assert "value" not in holder


@given(st.sets(NAMES), st.sets(NAMES), st.sets(NAMES), st.none() | NAMES)
def test_no_selector_reaches_outside_the_target(
    target: set[str], pods: set[str], namespaces: set[str], own: str | None
) -> None:
    selector = {"pods": {n: ["p"] for n in pods}, "namespaces": sorted(namespaces)}
    try:
        reached = set(namespaces_of(selector, own, world(0, *target)))
    except PlanError:
        return
    assert reached
    assert reached <= target
    assert reached == (pods or namespaces or ({own} if own else target))


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ({"templateType": "PodChaos", "podChaos": {}}, ("deadline", "1m10s")),
        ({"templateType": "PodChaos", "podChaos": {}, "deadline": "5s"}, ("deadline", "5s")),
        ({"templateType": "PhysicalMachineChaos", "physicalmachineChaos": {}}, ("deadline", "1m10s")),
        ({"templateType": "Suspend"}, ("deadline", "1m10s")),
        ({"templateType": "Task", "task": {}}, ("deadline", "1m10s")),
        ({"templateType": "Serial", "children": []}, ("deadline", None)),
    ],
)
def test_what_lasts_in_a_workflow_ends(template: Object, end: tuple[str, str | None]) -> None:
    for spec in (
        {"templates": [template]},
        {"type": "Workflow", "workflow": {"templates": [template]}, "schedule": "@every 1m"},
    ):
        set_ends("Schedule" if "schedule" in spec else "Workflow", spec, 10)
        assert template.get(end[0]) == end[1]


def test_a_schedule_inside_a_workflow_is_found() -> None:
    inner = {"schedule": "@every 1m", "type": "StressChaos", "stressChaos": {"mode": "one"}}
    spec = {"templates": [{"name": "s", "templateType": "Schedule", "schedule": inner}]}
    (part,) = parts("Workflow", spec)
    assert (part.kind, part.later, part.repeated, part.spec) == ("StressChaos", True, True, {"mode": "one"})


def _made(kind: str, spec: Object, lives: float = 0) -> dict[str, int]:
    """How often each action is done, at most."""
    return {part.action: part.times for part in parts(kind, spec, lives)}


def test_a_template_is_counted_as_often_as_it_is_begun() -> None:
    kill = {"templateType": "PodChaos", "podChaos": {"action": "pod-kill"}}
    often = {"schedule": "@every 10s", "type": "PodChaos", "podChaos": {"action": "container-kill"}}
    templates = [
        {"name": "all", "templateType": "Serial", "children": ["some", "some", "kill"]},
        {"name": "some", "templateType": "Parallel", "children": ["kill", "kill", "task"]},
        {"name": "task", "templateType": "Task", "conditionalBranches": [{"target": "often"}]},
        {"name": "kill", **kill},
        {"name": "often", "templateType": "Schedule", "deadline": "1m", "schedule": often},
    ]
    flow = {"entry": "all", "templates": templates}
    often_in_a_minute = 61 // 10 + 1
    assert _made("Workflow", flow) == {"pod-kill": 5, "container-kill": 2 * often_in_a_minute}
    nightly = {"schedule": "0 3 * * *", "type": "Workflow", "workflow": flow}
    fires = 2  # once, and once more before it hears that it is paused
    assert _made("Schedule", nightly, 60)["pod-kill"] == 5 * fires


def test_a_template_inside_itself_is_refused() -> None:
    templates = [
        {"name": "a", "templateType": "Serial", "children": ["b"]},
        {"name": "b", "templateType": "Parallel", "children": ["a"]},
    ]
    with pytest.raises(PlanError, match="template a is inside itself"):
        list(parts("Workflow", {"entry": "a", "templates": templates}))


def test_a_type_without_its_spec_is_refused() -> None:
    with pytest.raises(PlanError, match="says type StressChaos, but holds no spec"):
        list(parts("Schedule", {"type": "StressChaos", "networkChaos": {}}))


@pytest.mark.parametrize(
    "selector",
    [
        {"namespaces": ["inference"]},
        {"namespaces": ["inference", "training"], "labelSelectors": {"app": "trainer"}},
        {
            "namespaces": ["inference", "training"],
            "expressionSelectors": [{"key": "app", "operator": "In", "values": ["inference", "x"]}],
        },
        {
            "namespaces": ["inference"],
            "nodes": ["gpu-0"],
            "nodeSelectors": {"topology.kubernetes.io/zone": "zone-b"},
        },
        {"namespaces": ["inference"], "fieldSelectors": {"spec.nodeName": "gpu-1"}},
        {"namespaces": ["inference"], "podPhaseSelectors": ["Running"]},
        {
            "namespaces": ["inference", "training"],
            "labelSelectors": {"app": "trainer"},
            "expressionSelectors": [{"key": "gameday.dev/protect", "operator": "DoesNotExist"}],
        },
    ],
)
async def test_the_controller_selects_the_same(kube: Kube, selector: Any) -> None:
    ours = await matching(selector, selector["namespaces"], kube)
    assert ours
    body = delay(selector=selector, duration="30s")
    meta = {"name": f"select-{uuid4().hex[:6]}", "namespace": "inference"}
    ref = Ref.of(await kube.create({"apiVersion": API_VERSION, **body, "metadata": meta}))
    try:
        theirs = await eventually(lambda: kube.get(ref), lambda chaos: bool(records(chaos)))
        found = sorted(f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in ours)
        assert sorted(r["id"] for r in records(theirs)) == found
    finally:
        await kube.delete(ref)
        await eventually(lambda: kube.find(ref), lambda obj: obj is None)
