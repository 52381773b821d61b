"""The node's program takes its change back by itself, whatever happens around it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node_program.support import OLDEST, FakeApi, Node


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


@pytest.fixture
def node(tmp_path: Path, api: FakeApi) -> Node:
    return Node(tmp_path, api)


def test_a_whole_life(node: Node, api: FakeApi) -> None:
    started = node.start(seconds=1.0)
    events = started.ended()
    assert [e["event"] for e in events] == ["checked", "before", "in", "reverting", "out"]
    assert events[1]["before"] == {"was": "up"}
    assert events[3]["why"] == "its 1 s are over"
    assert events[4]["facts"] == ["state is up"]
    assert started.process.returncode == 0
    assert json.loads(started.message.read_text()) == events[-1]
    assert node.state.read_text() == "up"
    assert float((node.root / "held").read_text()) > 0.3  # it was called while the change was held
    assert not (node.root / "var" / "lib" / "gameday").exists()  # nothing left after


def test_it_asks_with_its_own_account_for_two_objects_only(node: Node, api: FakeApi) -> None:
    node.start(seconds=0.5).ended()
    asked = {path for path, _ in api.paths}
    assert asked == {
        "/apis/coordination.k8s.io/v1/namespaces/gameday/leases/gameday-test",
        "/api/v1/namespaces/gameday/pods/program",
    }
    assert {authorization for _, authorization in api.paths} == {"Bearer secret"}


def test_sigterm_reverts(node: Node) -> None:
    started = node.start().is_in()
    started.signal(signal.SIGTERM)
    assert started.ended()[-1]["why"] == "stopped by SIGTERM"
    assert node.state.read_text() == "up"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"deleting": True}, "the program's pod is being deleted"),
        ({"pod": False}, "the program's pod is gone from the API"),
        ({"lease": False}, "the run's Lease is gone"),
    ],
)
def test_it_hears_of_the_end_through_the_api(
    change: dict[str, bool], why: str, node: Node, api: FakeApi
) -> None:
    started = node.start().is_in()
    for name, value in change.items():
        setattr(api, name, value)
    assert started.ended()[-1]["why"] == why
    assert node.state.read_text() == "up"


def test_a_lease_that_nobody_renews(node: Node, api: FakeApi) -> None:
    api.duration = 2
    started = node.start().is_in()
    api.renews = False
    assert "was not renewed for 2 s" in started.ended()[-1]["why"]
    assert node.state.read_text() == "up"


def test_a_program_that_starts_late_for_a_dead_run_changes_nothing(node: Node, api: FakeApi) -> None:
    """Its image came slowly, and the orchestrator was killed meanwhile: its Lease stands still."""
    api.age, api.renews, api.duration = 60, False, 2
    last = node.start().ended()[-1]
    assert (last["event"], last["facts"]) == ("out", ["nothing was changed"])
    assert "was not renewed for 2 s" in last["problems"][0]
    assert node.state.read_text() == "up"


def test_a_program_that_starts_late_for_a_run_that_lives_waits_for_a_sign_of_life(
    node: Node, api: FakeApi
) -> None:
    api.age = 60
    started = node.start().is_in()
    assert len([path for path, _ in api.paths if "/leases/" in path]) > 1
    started.signal(signal.SIGTERM)
    started.ended()


def test_a_program_that_starts_too_late_changes_nothing_though_its_run_lives(
    node: Node, api: FakeApi
) -> None:
    api.age = 3600
    last = node.start().ended()[-1]
    assert last["facts"] == ["nothing was changed"]
    assert last["problems"] == [
        "too late: the change was to be made within 120 s of the pod's creation, or not at all"
    ]
    assert node.state.read_text() == "up"


def test_an_api_server_that_does_not_answer(node: Node, api: FakeApi) -> None:
    started = node.start(patience=2.0).is_in()
    api.silence()
    why = started.ended()[-1]["why"]
    assert why.startswith("the API server did not answer for 2 s")
    assert "refused" in why  # and says what it saw instead
    assert node.state.read_text() == "up"


def test_forbidden_counts_as_no_answer(node: Node, api: FakeApi) -> None:
    started = node.start(patience=2.0).is_in()
    api.forbids = True
    assert "Forbidden" in started.ended()[-1]["why"]


def test_silence_does_not_count_against_the_lease(node: Node, api: FakeApi) -> None:
    """A run whose node is cut off goes on renewing; the node can't know, and patience decides alone."""
    api.duration = 1
    started = node.start(patience=4.0).is_in()
    api.silence()
    assert "did not answer for 4 s" in started.ended()[-1]["why"]


def test_killed_and_started_again_it_reverts(node: Node) -> None:
    first = node.start().is_in()
    first.signal(signal.SIGKILL)
    first.process.communicate()
    assert node.state.read_text() == "down"
    events = node.start().ended()
    assert [e["event"] for e in events] == ["reverting", "out"]
    assert events[0]["why"] == "the program was cut off and started again"
    assert node.state.read_text() == "up"


def test_a_second_program_reverts_what_the_first_one_left(node: Node) -> None:
    first = node.start().is_in()
    first.signal(signal.SIGKILL)
    first.process.communicate()
    assert node.start("revert").ended()[-1]["facts"] == ["state is up"]
    assert node.state.read_text() == "up"
    assert node.start("revert").ended()[-1]["facts"] == ["nothing of this task is left on the node"]


def test_what_someone_else_changed_meanwhile_is_left(node: Node) -> None:
    started = node.start().is_in()
    node.state.write_text("theirs")
    started.signal(signal.SIGTERM)
    assert started.ended()[-1]["event"] == "out"
    assert node.state.read_text() == "theirs"


def test_a_change_that_is_not_seen_is_taken_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said "made", but the system says otherwise."""
    program = node.folder / "program" / "gameday" / "node" / "program.py"
    program.write_text(program.read_text().replace("IN_WITHIN = 15.0", "IN_WITHIN = 0.5"))
    events = node.start(options={"to": "sideways"}).ended()
    assert [e["event"] for e in events] == ["checked", "before", "reverting", "out"]
    assert "not seen in force within 0.5 s: state is sideways" in events[-1]["error"]


def test_a_change_that_can_not_be_reverted_is_reported_and_tried_again(node: Node) -> None:
    program = node.folder / "program" / "gameday" / "node" / "program.py"
    program.write_text(program.read_text().replace("OUT_WITHIN = 45.0", "OUT_WITHIN = 1.0"))
    first = node.start(seconds=0.5, options={"stuck": True})
    last = first.ended()[-1]
    assert last["event"] == "failed"
    assert "missing" in last["facts"][0]
    assert first.process.returncode == 1  # so that the kubelet starts it again
    (node.root / "missing").write_text("")
    assert node.start(seconds=0.5, options={"stuck": True}).ended()[-1]["event"] == "out"
    assert node.state.read_text() == "up"


def test_check_changes_nothing(node: Node) -> None:
    assert [e["event"] for e in node.start("check").ended()] == ["checked", "out"]
    node.state.write_text("")
    assert node.start("check").ended()[-1]["problems"] == ["/state is empty"]
    events = node.start("run").ended()  # nor does a run that has problems
    assert events[-1]["problems"] == ["/state is empty"]
    assert events[-1]["facts"] == ["nothing was changed"]


def test_it_does_not_begin_where_it_could_not_hear_of_an_abort(node: Node, api: FakeApi) -> None:
    api.forbids = True
    problems = node.start().ended()[-1]["problems"]
    assert "would not hear of an abort" in problems[0]
    assert "Forbidden" in problems[0]
    assert node.state.read_text() == "up"


def test_an_action_that_it_does_not_know(node: Node) -> None:
    problem = node.start(action="explode").ended()[-1]["problems"][0]
    assert problem.startswith("this program can't do explode: there is no such action, only ")
    assert "kubelet-stop" in problem


def test_what_another_version_left_is_not_called_reverted(node: Node) -> None:
    first = node.start().is_in()
    first.signal(signal.SIGKILL)
    first.process.communicate()
    second = node.start("revert", action="explode")
    assert second.ended()[-1]["event"] == "failed"
    assert second.process.returncode == 1
    assert node.start("revert").ended()[-1]["event"] == "out"
    assert node.state.read_text() == "up"


def test_a_tool_that_the_node_does_not_have(node: Node) -> None:
    module = node.folder / "program" / "gameday" / "node" / "for_tests.py"
    module.write_text(module.read_text().replace('host.read("/state").strip()', 'host.run("no-such-tool")'))
    said = node.start("check").ended()[-1]["problems"][0]
    assert "no-such-tool" in said
    assert node.state.read_text() == "up"


def test_last_words_fit_into_a_pods_status(node: Node) -> None:
    module = node.folder / "program" / "gameday" / "node" / "for_tests.py"
    many = '["state is " + now] * 2000'
    module.write_text(module.read_text().replace('["state is " + now]', many))
    started = node.start(seconds=0.5)
    assert len(started.ended()[-1]["facts"]) == 2000
    text = started.message.read_text()
    assert len(text) <= 4096
    assert json.loads(text)["facts"][0] == "state is up"


@pytest.mark.skipif(OLDEST is None, reason="this machine has no Python 3.9")
def test_the_oldest_python_runs_it(node: Node) -> None:
    assert [e["event"] for e in node.start(seconds=0.5, python=OLDEST).ended()][-2:] == ["reverting", "out"]


def test_a_defect_in_an_action_does_not_keep_it_from_reverting(node: Node) -> None:
    module = node.folder / "program" / "gameday" / "node" / "for_tests.py"
    module.write_text(module.read_text().replace('host.write("/held", str(elapsed))', "len(elapsed)"))
    events = node.start().ended()
    assert [e["event"] for e in events] == ["checked", "before", "in", "reverting", "out"]
    assert "TypeError" in events[-1]["error"]
    assert node.state.read_text() == "up"
