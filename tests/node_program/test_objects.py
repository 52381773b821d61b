"""What is put into the cluster for a program: no more permissions than needed, and names that always fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gameday.experiment.model import NodeProgram as Options
from gameday.extend import PlanError
from gameday.faults.on_node import OnNode, check_management, name_of, needs
from gameday.ledger.node_pod import Settings, files_name, helpers, pod, run_of
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.operations import RUN_LABEL, from_data
from gameday.node.task import Task
from gameday.platform.objects import Ref
from gameday.platform.world import World

pytestmark = pytest.mark.fast
REF = Ref("v1", "Pod", "x-1-gpu-0", "tools")
TASK = Task(
    id="x-1-gpu-0",
    action="kubelet-stop",
    options={"unit": "kubelet"},
    lease=("gameday", "gameday-x"),
    pod=("tools", "x-1-gpu-0"),
)
FILES = files_name(REF, TASK)
SETTINGS = Settings(
    "registry.example/python:3", "Always", ({"key": "gpu", "operator": "Exists"},), ("registry",)
)


def _rules(namespace: str) -> list[dict[str, Any]]:
    roles = [o for o in helpers(REF, TASK, "x", FILES) if o["kind"] == "Role"]
    return [rule for o in roles if o["metadata"]["namespace"] == namespace for rule in o["rules"]]


def test_it_may_get_its_lease_and_its_own_pod_and_nothing_else() -> None:
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["gameday-x"]}
    own = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x-1-gpu-0"]}
    assert _rules("gameday") == [lease | {"verbs": ["get"]}]
    assert _rules("tools") == [own | {"verbs": ["get"]}]
    bindings = [o for o in helpers(REF, TASK, "x", FILES) if o["kind"] == "RoleBinding"]
    account = {"kind": "ServiceAccount", "name": "x-1-gpu-0", "namespace": "tools"}
    assert all(b["subjects"] == [account] for b in bindings)


def test_everything_carries_the_runs_label() -> None:
    made = [*helpers(REF, TASK, "x", FILES), pod(REF, TASK, "x", "gpu-0", SETTINGS, "run", FILES)]
    assert {o["metadata"]["labels"][RUN_LABEL] for o in made} == {"x"}
    assert {o["metadata"]["name"] for o in made} == {"x-1-gpu-0", FILES}


def test_the_pod_is_as_the_experiment_says() -> None:
    spec = pod(REF, TASK, "x", "gpu-0", SETTINGS, "check", FILES)["spec"]
    container = spec["containers"][0]
    assert (spec["nodeName"], spec["hostNetwork"], spec["hostPID"]) == ("gpu-0", True, True)
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert container["image"] == "registry.example/python:3"
    assert container["imagePullPolicy"] == "Always"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert container["securityContext"]["privileged"]
    assert container["command"][-2:] == ["--mode", "check"]
    paths = {i["path"] for i in spec["volumes"][0]["configMap"]["items"]}
    assert {"task.json", "gameday/node/__main__.py", "gameday/node/program.py"} <= paths


def test_its_files_can_not_be_exchanged() -> None:
    """Who may edit ConfigMaps there must not choose what runs as root on a node."""
    files = next(o for o in helpers(REF, TASK, "x", FILES) if o["kind"] == "ConfigMap")
    assert (files["immutable"], files["metadata"]["name"]) == (True, FILES)
    assert files_name(REF, replace(TASK, options={"unit": "sshd"})) != FILES
    made = pod(REF, TASK, "x", "gpu-0", SETTINGS, "run", FILES)
    assert made["spec"]["volumes"][0]["configMap"]["name"] == FILES


def test_a_pod_that_starts_late_ends_by_itself() -> None:
    limit = pod(REF, TASK, "x", "gpu-0", SETTINGS, "run", FILES)["spec"]["activeDeadlineSeconds"]
    assert TASK.begin_within + TASK.seconds < limit <= TASK.begin_within + TASK.seconds + 600


@pytest.mark.parametrize("name", [REF.name, f"{REF.name}-revert"])
def test_it_is_the_programs_of_its_own_run_alone(name: str) -> None:
    made = pod(replace(REF, name=name), TASK, "x", "gpu-0", SETTINGS, "run", FILES)
    assert (run_of(made, "tools"), run_of(made, "gameday")) == ("x", "")
    made["metadata"]["labels"] = {}
    assert run_of(made, "tools") == ""


def test_a_label_makes_nobodys_pod_a_program() -> None:
    theirs = {"name": "job", "namespace": "tools", "labels": {RUN_LABEL: "x"}}
    assert run_of({"metadata": theirs, "spec": {"serviceAccountName": "default"}}, "tools") == ""
    assert run_of({"metadata": theirs, "spec": {}}, "tools") == ""


def test_a_record_is_enough_to_undo() -> None:
    made = NodeProgram(REF, "x", "gpu-0", TASK, SETTINGS)
    assert from_data(made.to_data()) == made


@pytest.mark.parametrize(
    ("step", "node"),
    [
        ("1", "gpu-0"),
        ("2.1.3", "gpu-0"),
        ("1", "ip-10-0-12-34.eu-central-1.compute.internal"),
        ("1", "n" * 200),
    ],
)
@pytest.mark.parametrize("mode", ["run", "check"])
def test_names_fit(step: str, node: str, mode: str) -> None:
    name = name_of("a-run-with-a-long-name-here-261122-051843-6ba0", step, node, mode)
    assert len(f"{name}-revert") <= 63
    assert "." not in name
    other = name_of("a-run-with-a-long-name-here-261122-051843-6ba0", step, f"{node}1", mode)
    assert name != other


def test_what_is_planned_survives_a_file() -> None:
    program = OnNode(Ref("v1", "Node", "gpu-0", uid="1"), "link-down", {"interface": "ens1f0"})
    assert OnNode.from_data(program.to_data()) == program


def _world(hold: float | None = None, **options: Any) -> World:
    return World(None, hold=hold, node_program=Options(**options))  # type: ignore[arg-type]


def test_permissions_are_asked_for_where_they_are_needed() -> None:
    asked = needs(_world(namespace="tools"))
    assert "create pods tools" in asked
    assert "create roles.rbac.authorization.k8s.io gameday" in asked
    assert "create pods gameday" not in asked


def test_management_may_be_cut_for_less_than_two_minutes() -> None:
    check_management(True, _world(hold=119))
    check_management(False, _world(hold=600))
    with pytest.raises(PlanError, match="below 120 s, and this one is 120 s"):
        check_management(True, _world(hold=120))
