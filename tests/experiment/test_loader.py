"""A right file becomes an Experiment; a wrong one is refused with every problem at its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gameday.experiment.loader import InvalidExperiment, load, loads
from gameday.experiment.values import Bound, picked
from tests.experiment.conftest import GOOD
from tests.experiment.support import Write, meant, only, problems

pytestmark = pytest.mark.fast
STEP = """\
    - acmeBreak:
        nodes: {selector: gpu=true, pick: "{{ count }}"}
      for: 1m
"""


def test_a_good_file(write: Write) -> None:
    loaded = load(write())
    spec = loaded.experiment.spec
    assert loaded.experiment.metadata.name == "two-nodes"
    assert spec.steady_state[0].kind == "acmeQuery"
    assert spec.steady_state[0].spec.query == 'p99{job="inference"}'
    assert spec.steady_state[0].is_.text == "< 500ms"
    assert spec.steady_state[0].interval == 5
    assert spec.method[0].name == "1 acmeBreak"
    assert spec.method[0].is_fault
    assert spec.method[0].spec.nodes.pick == 2
    assert spec.method[0].for_ == 60
    assert spec.blast_radius.nodes == Bound.parse(2)
    assert spec.blast_radius.gpus is None
    assert spec.recovery.within == 300
    assert loaded.variables == {"latency": "500ms", "count": 2}
    assert loaded.document["spec"]["method"][0]["acmeBreak"]["nodes"]["pick"] == 2


def test_the_rendered_document_is_the_same_experiment(write: Write) -> None:
    loaded = load(write())
    assert meant(loaded.document) == loaded.experiment
    assert loads(yaml.safe_dump(loaded.document), Path("x")).experiment == loaded.experiment
    dumped = loaded.experiment.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert meant(dumped) == loaded.experiment


def test_steps_within_steps(write: Write) -> None:
    nested = """\
    - name: 2.1 wait
      wait: 5s
    - parallel:
        - wait: 1s
        - sequence:
            - {acmeBreak: {nodes: {names: [a]}}, name: mine}
            - repeat: {times: 3, steps: [{wait: 1s}, {acmeBreak: {nodes: {names: [a]}}}]}
"""
    method = load(write((STEP, nested))).experiment.spec.method
    inner = method[1].steps[1].steps
    assert [each.name for each in (*method, *method[1].steps, *inner, *inner[1].steps)] == [
        *("2.1 wait", "2 parallel", "step 2.1 wait", "2.2 sequence"),
        *("mine", "2.2.2 repeat", "2.2.2.1 wait", "2.2.2.2 acmeBreak"),
    ]
    assert inner[1].kind == "repeat"
    assert inner[1].spec.times == 3
    assert not inner[1].is_fault


def test_an_abort_condition_is_named_by_its_text(write: Write) -> None:
    path = write(("  method:", '  abortIf:\n    - {acmeQuery: up, is: "< 2", for: 10s}\n  method:'))
    abort = load(path).experiment.spec.abort_if[0]
    assert (abort.name, abort.for_) == ("up < 2", 10)


@pytest.mark.parametrize(
    ("during", "text"), [("ignore", "ignore"), ("< 2s", "< 2s"), ("Progressing", "Progressing")]
)
def test_during(write: Write, during: str, text: str) -> None:
    loaded = load(write(("      is: <", f"      during: {during}\n      is: <")))
    assert str(loaded.experiment.spec.steady_state[0].during) == text
    assert (loaded.experiment.spec.steady_state[0].during == "ignore") is (during == "ignore")
    dumped = loaded.experiment.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert dumped["spec"]["steadyState"][0]["during"] == text


def test_every_problem_at_once(write: Write) -> None:
    path = write(
        ("kind: Experiment", "kind: Experimnt"),
        ("  target:\n", "  owner: 5\n  targt:\n"),
        ("is: < {{ latency }}", "is: > 5\n      intervall: 5s"),
        ("for: 1m", "for: 1 parsec"),
        ("nodes: {selector: gpu=true", "nodes: {selectr: gpu=true"),
        ("- name: p99\n", "- name: p99\n      during: <2s\n      timeout: 0\n"),
    )
    assert [each.partition("; expected")[0] for each in problems(path)] == [
        'experiment.yaml:2:7: kind: expected `Experiment`, found the text "Experimnt" '
        "(did you mean `Experiment`?)",
        "experiment.yaml:5:1: spec.target: is missing",
        "experiment.yaml:7:10: spec.owner: expected text, found the number 5; put it in quotes",
        "experiment.yaml:8:3: spec.targt: unknown key",
        "experiment.yaml:15:16: spec.steadyState[0].timeout: must be longer than 0s",
        "experiment.yaml:17:11: spec.steadyState[0].is: `>` starts a block of text in YAML; "
        "put the bound in quotes: '> 5'",
        "experiment.yaml:18:7: spec.steadyState[0].intervall: "
        "`intervall` is neither a probe nor a key of one",
        "experiment.yaml:21:17: spec.method[0].acmeBreak.nodes.selectr: unknown key",
        "experiment.yaml:22:12: spec.method[0].for: expected a duration such as 500ms, 10s, 2m or 1h30m, "
        'found the text "1 parsec"',
    ]
    hints = [each.rpartition("; expected")[2] for each in problems(path) if "did you mean" in each]
    assert [each.split("`")[-2] for each in hints] == ["Experiment", "target", "interval", "selector"]
    assert "expected the cluster and the part of it that may be touched" in problems(path)[1]


@pytest.mark.parametrize(
    ("old", "new", "place", "part"),
    [
        ("acmeBreak:", "acmeBraek:", "16:7", "is neither a fault nor a key of a step; expected acmeBreak, "),
        ("acmeBreak:", "acmeBraek:", "16:7", "did you mean `acmeBreak`?"),
        (
            "acmeQuery: p",
            "acmeQery: p",
            "13:7",
            "is neither a probe nor a key of one; expected acmeQuery, alert",
        ),
        ("for: 1m", "wait: 5s", "18:7", "exactly one fault key, found 2: acmeBreak, wait"),
        (
            STEP,
            "    - for: 5s\n",
            "16:7",
            "a step has exactly one fault key, found none; expected one of acmeBreak",
        ),
        (STEP, "    - acmeBreak:\n", "16:7", "expected what acmeBreak needs, found nothing"),
        (STEP, "    - {wait: 5s, for: 3s}\n", "16:18", "`for` belongs to a fault, not to wait"),
        (STEP, "    []\n", "16:5", "expected at least 1 in the list, found 0"),
        (STEP, "    - drain\n", "16:7", 'expected a mapping, found the text "drain"'),
        (
            STEP,
            STEP.replace("for: 1m", "name: x") * 2,
            "21:13",
            "`x` is the name of another step, in line 18",
        ),
        (
            "      acmeQuery",
            "      kubernetes: {}\n      acmeQuery",
            "14:7",
            "found 2: kubernetes, acmeQuery",
        ),
        (
            '      acmeQuery: p99{job="inference"}\n',
            "",
            "12:7",
            "a probe has exactly one key that says how to measure",
        ),
        ("nodes: 2", "nodes: -1", "9:24", "expected a number from 0, or a share"),
        ("pods: 10%", "pods: 101%", "9:33", "expected a number from 0, or a share"),
        ("blastRadius: {", "blastRadius: {racks: 1, ", "9:17", "unknown key; expected nodes, pods, gpus"),
        ("context: staging-.*", "context: staging-(", "8:14", "is not a regular expression: missing )"),
        ("selector: gpu=true", "selector: ''", "17:27", "an empty selector would select everything"),
        ("selector: gpu=true", "names: [a], selector: a=b", "17:16", "expected either `names` or `selector`"),
        (
            'pick: "{{ count }}"',
            "pick: 0",
            "17:43",
            "expected a number from 1, a share such as 20%, or `all`",
        ),
        ("name: two-nodes", "name: Two nodes", "4:9", "must be lowercase letters, digits and `-`"),
        ("      is: <", "      interval: 0.1\n      is: <", "14:17", "must be at least 500ms, found 100ms"),
        ("      is: <", "      during: =>3\n      is: <", "14:15", "write `>=`"),
        ("      is: <", "      during: ignor\n      is: <", "14:15", "did you mean `ignore`?"),
        ("      is: <", "      match: some\n      is: <", "14:14", "expected `all` or `any`, found"),
        ('acmeQuery: p99{job="inference"}', "acmeQuery: ''", "13:18", "must not be empty"),
        (
            'acmeQuery: p99{job="inference"}',
            "acmeQuery: {}",
            "13:7",
            "acmeQuery.query: is missing; expected what",
        ),
        ("  method:", "  observe: ['']\n  method:", "15:13", "must not be empty"),
        (STEP, "    - repeat: {times: 1001, steps: [{wait: 1s}]}\n", "16:23", "expected at most 1000"),
        (STEP, "    - repeat: {times: 3, steps: {}}\n", "16:33", "expected a list, found a mapping"),
        ("selector: gpu=true", "names: [gpu_0]", "17:25", "is no object's name: expected lowercase letters"),
        ("title: Two nodes may break", "title: ' '", "6:10", "must not be empty"),
        (
            "apiVersion: gameday.dev/v1alpha1",
            "apiVersion: v1",
            "1:13",
            "expected `gameday.dev/v1alpha1`, found",
        ),
        (
            "acmeBreak:",
            "acmeBroken:",
            "16:7",
            "`acmeBroken` from acme-gameday (acme_missing:Break) can't be loaded",
        ),
        ("acmeBreak:", "acmeNoSpec:", "16:7", "is not a class with a `Spec`"),
    ],
)
def test_what_is_wrong_and_where(write: Write, old: str, new: str, place: str, part: str) -> None:
    shown = [each for each in problems(write((old, new))) if part in each]
    assert [each.partition(": ")[0] for each in shown] == [f"experiment.yaml:{place}"]


def test_deep_and_many_steps(write: Write) -> None:
    deep = "{wait: 1s}"
    for _ in range(9):
        deep = f"{{sequence: [{deep}]}}"
    assert "steps are nested more than 8 deep" in problems(write((STEP, f"    - {deep}\n")))[0]
    many = "{wait: 1s}"
    for _ in range(3):
        many = f"{{repeat: {{times: 1000, steps: [{many}]}}}}"
    assert "more than 10,000 steps" in problems(write((STEP, f"    - {many}\n")))[0]


def test_a_run_that_only_a_person_can_end_early_is_a_warning(write: Write) -> None:
    (warning,) = load(write()).warnings
    assert "only a person ends this run early" in warning
    assert load(write(("  target:", "  abortIf: none\n  target:"))).warnings == ()
    (problem,) = problems(write(("  target:", "  abortIf: []\n  target:")))
    assert "expected at least one condition, or `none`" in problem


@pytest.mark.parametrize(
    ("limits", "place", "said"),
    [
        ("maxHold: 30s", "19:12", "would stay in for 60 s, but spec.maxHold is 30 s"),
        ("maxDuration: 50s", "16:3", "the steps alone take 60 s, but spec.maxDuration is 50 s"),
    ],
)
def test_steps_longer_than_they_may_be(limits: str, place: str, said: str, write: Write) -> None:
    (problem,) = problems(write(("  target:", f"  {limits}\n  target:")))
    assert problem.startswith(f"experiment.yaml:{place}: ")
    assert said in problem


def test_a_missing_runbook_is_a_warning(write: Write, tmp_path: Path) -> None:
    path = write(("  target:", "  abortIf: none\n  runbook: runbooks/nodes.md\n  target:"))
    assert load(path).warnings == (
        "spec.runbook: there is no file runbooks/nodes.md here or in a folder above",
    )
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "nodes.md").touch()
    assert load(path).warnings == ()


@pytest.mark.parametrize(
    ("pick", "total", "count"), [(2, 1, 1), ("all", 7, 7), ("29%", 100, 29), ("1%", 8, 1), ("1%", 0, 0)]
)
def test_picks(pick: int | str, total: int, count: int) -> None:
    assert picked(pick, total) == count


@pytest.mark.parametrize(
    ("bound", "total", "limit"), [(2, 100, 2), ("10%", 19, 1), ("29%", 100, 29), ("0", 5, 0)]
)
def test_bounds(bound: int | str, total: int, limit: int) -> None:
    assert Bound.parse(bound).limit(total) == limit


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("#" * (1024 * 1024 + 1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert only(tmp_path / "nothing.yaml") == "nothing.yaml: does not exist"
    assert "is a directory" in only(tmp_path)
    assert only(large) == "large.yaml: is 1.0 MiB; an experiment has at most 1 MiB"
    assert "is not a regular file" in only(tmp_path / "pipe")
    assert "can't be read: Too many levels" in only(tmp_path / "loop")
    assert "can't be read" in only(tmp_path / "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write: Write) -> None:
    path = write()
    path.chmod(0)
    assert only(path) == "experiment.yaml: can't be read: Permission denied"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _load(content: bytes, folder: Path) -> None:
    path = folder / "any.yaml"
    path.write_bytes(content)
    try:
        load(path)
    except InvalidExperiment as error:
        refused = error
    else:
        return
    assert refused.problems
    assert all(str(each) and "pydantic" not in str(each) for each in refused.problems)


BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@BOUNDED
@given(st.binary(max_size=200) | st.text("{}[]:- \n\t&*!<>|'\"a%@`#,?", max_size=60).map(str.encode))
def test_any_bytes_load_or_are_refused(tmp_path: Path, content: bytes) -> None:
    _load(content, tmp_path)


@BOUNDED
@given(st.data())
def test_any_value_anywhere_loads_or_is_refused(tmp_path: Path, data: Any) -> None:
    document = yaml.safe_load(GOOD.replace("< {{ latency }}", "'< {{ latency }}'"))
    for _ in range(data.draw(st.integers(1, 3))):
        parent: Any = document
        while True:
            places = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not places:
                break
            place = data.draw(st.sampled_from(places))
            if isinstance(parent[place], dict | list) and data.draw(st.booleans()):
                parent = parent[place]
                continue
            parent[place] = data.draw(anything)
            break
    _load(yaml.safe_dump(document, allow_unicode=True).encode(errors="replace"), tmp_path)


@BOUNDED
@given(st.integers(0, len(GOOD)), st.integers(0, 30), st.text(max_size=5))
def test_any_edit_of_a_good_file_loads_or_is_refused(
    tmp_path: Path, start: int, length: int, new: str
) -> None:
    _load((GOOD[:start] + new + GOOD[start + length :]).encode(errors="replace"), tmp_path)
