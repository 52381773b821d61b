"""No fault of the catalogue can keep state or change its plan; what was done is known however far it came."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gameday import extend
from gameday.experiment.model import NodePick
from gameday.extend import Evidence, Fault, FaultPlan, Injected, Made, Spec, Step, Victim
from gameday.faults.nodes import NodeEditSpec
from gameday.platform.objects import Ref
from tests.extend.catalogue import catalogue

pytestmark = pytest.mark.fast
MUTABLE = (list, dict, set)


@pytest.mark.parametrize(("name", "fault"), catalogue().items(), ids=catalogue())
def test_no_fault_can_remember_anything(name: str, fault: type[Fault[Any]]) -> None:
    made = fault()
    with pytest.raises(TypeError, match="keeps no state"):
        made.seen = ()
    assert vars(made) == {}
    shared = {n for c in fault.__mro__ for n, v in vars(c).items() if isinstance(v, MUTABLE)}
    assert {n for n in shared if not n.startswith("__")} == set()


@pytest.fixture
def plan() -> FaultPlan[NodeEditSpec]:
    spec = NodeEditSpec(nodes=NodePick(names=["gpu-0"]))
    victims = (Victim(Ref("v1", "Node", "gpu-0"), "node"),)
    return FaultPlan(spec, victims, data={"before": {"gpu-0": ["a", {"b": 1}]}, "many": ("x", "y")})


def test_a_plan_cannot_be_changed_anywhere(plan: FaultPlan[NodeEditSpec]) -> None:
    data: Any = plan.data
    changes: list[Callable[[], Any]] = [
        lambda: data.update(hit=1),
        lambda: data.__setitem__("hit", 1),
        lambda: data["before"].pop("gpu-0"),
        lambda: data["before"]["gpu-0"].append("c"),
        lambda: data["before"]["gpu-0"][1].setdefault("c", 1),
        lambda: data["many"].sort(),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="are not changed"):
            change()
    with pytest.raises(AttributeError):
        plan.victims = ()  # type: ignore[misc]


def test_a_plan_is_the_same_after_it_was_kept_in_a_file(plan: FaultPlan[NodeEditSpec]) -> None:
    assert FaultPlan.from_data(plan.spec, json.loads(json.dumps(plan.to_data()))) == plan
    mine = copy.deepcopy(plan.data)
    mine["before"]["gpu-0"].append("c")
    assert plan.data["before"]["gpu-0"] == ["a", {"b": 1}]


def test_what_is_no_plain_data_is_refused_at_once(plan: FaultPlan[NodeEditSpec]) -> None:
    with pytest.raises(TypeError, match="a Ref is not plain data"):
        FaultPlan(plan.spec, plan.victims, data={"refs": [plan.victims[0].ref]})
    with pytest.raises(TypeError, match="a set is not plain data"):
        Step(None, None).record(worked={"gpu-0"})  # type: ignore[arg-type]


def test_a_change_that_was_refused_is_no_change_of_the_injection() -> None:
    patch = {"op": "patch", "ref": Ref("v1", "Node", "gpu-0").to_data()}
    injected = Injected(
        made=(Made(patch, "not-made"), Made(patch, "intended"), Made({"op": "evict"}, "made"))
    )
    assert [m.state for m in injected.of("patch")] == ["intended"]


def test_a_fault_needs_no_more_than_three_methods() -> None:
    class Least(Fault[Spec]):
        async def plan(self, spec: Spec, world: Any) -> FaultPlan[Spec]:
            return FaultPlan(spec, ())

        async def inject(self, plan: FaultPlan[Spec], step: Step) -> None: ...

        async def settled(self, plan: FaultPlan[Spec], injected: Injected, world: Any) -> Evidence:
            return Evidence("in")

    assert not Least.inspects()
    assert Least().settle_within(Spec()) == 120.0


def test_everything_that_is_offered_is_there() -> None:
    """By the same modules to a type checker and at run time."""
    assert [name for name in extend.__all__ if getattr(extend, name, None) is None] == []
    tree = ast.parse(Path(extend.__file__).read_text())
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    typed = {name.name: str(node.module) for node in imports for name in node.names if name.asname}
    assert typed == extend._HOMES
    with pytest.raises(AttributeError, match="offers no Ledger"):
        _ = extend.Ledger
