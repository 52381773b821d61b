"""A native Chaos Toolkit experiment becomes one of ours, and says what it loses on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaoslib.hypothesis import within_tolerance
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment.chaostoolkit import NotConvertible, expectation, is_native, to_experiment
from gameday.experiment.expect import Expectation
from gameday.experiment.loader import InvalidExperiment, load
from tests.experiment.support import meant

pytestmark = pytest.mark.fast

PYTHON = {"type": "python", "module": "os", "func": "getpid"}
HTTP = {"type": "http", "url": "http://127.0.0.1:9/"}


def activity(name: str, kind: str = "action", **more: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "provider": PYTHON, **more}


def native(**more: Any) -> dict[str, Any]:
    hypothesis = {"title": "all is well", "probes": [activity("pid", "probe", tolerance=[1, 99999])]}
    document = {
        "title": "What if the cache is gone?",
        "description": "d",
        "tags": ["cache", "monthly"],
        "steady-state-hypothesis": hypothesis,
        "method": [activity("break")],
        "rollbacks": [activity("mend"), activity("sweep")],
    }
    return document | more


def method(**more: Any) -> list[dict[str, Any]]:
    document, _ = to_experiment(native(**more))
    steps: list[dict[str, Any]] = document["spec"]["method"]
    return [step for step in steps if "wait" not in step]


@pytest.mark.parametrize("indent", [2, "\t"])
def test_a_json_file_runs_unchanged(tmp_path: Path, indent: Any) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(native(), indent=indent))
    loaded = load(file)
    assert loaded.experiment.metadata.name == "what-if-the-cache-is-gone"
    assert loaded.experiment.metadata.annotations == {"chaostoolkit.org/tags": "cache,monthly"}
    (probe,) = loaded.experiment.spec.steady_state
    assert (probe.name, probe.is_.text, probe.during) == ("pid", "1..99999", "ignore")
    (step,) = loaded.experiment.spec.method
    assert (step.name, step.spec.name, step.spec.ignore_failure) == ("break", "break", True)
    assert [r.name for r in step.spec.rollbacks] == ["mend", "sweep"]
    assert meant(loaded.document) == loaded.experiment


def test_so_does_a_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(native()))
    assert load(file).experiment.spec.title == "What if the cache is gone?"


def test_ours_is_not_native() -> None:
    assert is_native(native())
    assert is_native({"title": "t", "method": []})
    assert not is_native({"apiVersion": "gameday.dev/v1alpha1", "method": []})
    assert not is_native([1])


def test_values_replace_those_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(native(configuration={"size": 1, "region": {"type": "env", "key": "REGION"}})))
    spec = load(file, {"size": 3}).experiment.spec.method[0].spec
    assert spec.configuration == {"size": 3, "region": {"type": "env", "key": "REGION"}}
    with pytest.raises(InvalidExperiment, match="there is no colour that could be set"):
        load(file, {"colour": "red"})


def test_secrets_and_configuration_reach_every_activity() -> None:
    secrets = {"api": {"token": {"type": "env", "key": "TOKEN"}}}
    document, _ = to_experiment(native(secrets=secrets, configuration={"a": "b"}))
    step = document["spec"]["method"][0]["chaostoolkit"]
    everything = [document["spec"]["steadyState"][0]["chaostoolkit"], step, *step["rollbacks"]]
    assert [(a["secrets"], a["configuration"]) for a in everything] == [(secrets, {"a": "b"})] * 4


def test_what_runs_in_the_background_runs_beside_the_rest() -> None:
    steps = method(method=[activity("a"), activity("b", background=True), activity("c"), activity("d")])
    assert [s.get("name") for s in steps] == ["a", None]
    first, rest = steps[1]["parallel"]
    assert first["name"] == "b"
    assert [s["name"] for s in rest["sequence"]] == ["c", "d"]
    assert [s["name"] for s in method(method=[activity("a"), activity("b", background=True)])] == ["a", "b"]


def test_pauses_and_references() -> None:
    pauses = {"before": 2, "after": "${calm}"}
    first, second = method(
        configuration={"calm": {"type": "env", "key": "GAMEDAY_NOT_SET", "default": 5}},
        method=[activity("break", pauses=pauses, timeout=9), {"ref": "pid"}],
    )
    assert first["chaostoolkit"]["pauses"] == {"before": 2, "after": 5}
    assert first["chaostoolkit"]["timeout"] == 9
    assert second["chaostoolkit"]["type"] == "probe"
    assert second["name"] == "pid (2)"


def test_what_is_left_out_is_said() -> None:
    document = native(method=[activity("break", dry="actions")], rollbacks=[])
    document.pop("steady-state-hypothesis")
    converted, warnings = to_experiment(document)
    assert warnings == [
        "there is no steady-state-hypothesis, so nothing can deviate from it",
        "break: dry is ignored",
    ]
    assert meant(converted).spec.steady_state[0].name == "no hypothesis"


def test_controls_hear_of_the_experiment_as_it_was_written() -> None:
    document = native(method=[activity("break", controls=[{"name": "hook", "provider": PYTHON}])])
    converted, _ = to_experiment(document)
    assert converted["spec"]["chaosToolkit"]["experiment"] == document | {"configuration": {}}
    assert "experiment" not in to_experiment(native())[0]["spec"]["chaosToolkit"]


def test_rollbacks_run_without_a_method_too() -> None:
    (step,) = method(method=[])
    assert [r["name"] for r in step["chaostoolkit"]["rollbacks"]] == ["mend", "sweep"]
    converted, _ = to_experiment(native(method=[], rollbacks=[]))
    assert [step.kind for step in meant(converted).spec.method] == ["wait"]


@pytest.mark.parametrize(
    ("runtime", "looked", "during"),
    [
        ({}, "default", "ignore"),
        ({"strategy": "before-method-only"}, "before-method-only", "ignore"),
        ({"strategy": "continuously", "frequency": 3}, "continuously", None),
        ({"strategy": "continously"}, "continuously", None),  # as older versions of its command had it
    ],
)
def test_the_strategy_of_the_hypothesis(runtime: dict[str, Any], looked: str, during: str | None) -> None:
    converted, _ = to_experiment(native(runtime={"hypothesis": runtime}))
    spec = meant(converted).spec
    assert spec.chaos_toolkit is not None
    assert (spec.chaos_toolkit.hypothesis, spec.steady_state[0].during) == (looked, during)
    assert spec.steady_state[0].interval == runtime.get("frequency", 1.0)


def test_rollbacks_that_never_run_are_left_out() -> None:
    converted, warnings = to_experiment(native(runtime={"rollbacks": {"strategy": "never"}}))
    assert "rollbacks" not in converted["spec"]["method"][0]["chaostoolkit"]
    assert warnings == ["the rollbacks never run: runtime.rollbacks.strategy is never"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (native(title="", **{"steady-state-hypothesis": {}}), "needs a title"),
        (native(method=[{"ref": "nobody"}]), "no activity named 'nobody'"),
        (native(method=["x"]), "method: expected a list of activities"),
        (native(method=[{"name": "x"}]), "x needs a name and a provider"),
        (
            native(runtime={"rollbacks": {"strategy": "maybe"}}),
            "never, deviated, found 'maybe'",
        ),
        (native(runtime={"hypothesis": {"strategy": "x"}}), "runtime.hypothesis.strategy: expected one of"),
        (native(runtime={"hypothesis": {"frequency": "x"}}), "runtime.hypothesis.frequency: expected"),
        (native(configuration=[1]), "configuration: expected a mapping"),
        (native(method=[activity("a", pauses={"after": "${x}"})]), "a: pauses: expected a duration"),
        (native(**{"steady-state-hypothesis": {"probes": [activity("p", "probe")]}}), "'p' has no tolerance"),
    ],
)
def test_what_cannot_be_converted_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(NotConvertible) as refused:
        to_experiment(document)
    assert words in str(refused.value)


NUMBERS = st.integers(-50, 50)


@given(st.booleans() | NUMBERS | st.lists(NUMBERS, max_size=3), NUMBERS)
def test_an_expectation_says_what_the_tolerance_says(tolerance: Any, value: int) -> None:
    text = expectation(tolerance, PYTHON)
    if text is None or isinstance(tolerance, bool):
        return
    assert Expectation.parse(text).judge(value, None) is within_tolerance(tolerance, value)


@pytest.mark.parametrize(
    ("tolerance", "provider", "text"),
    [
        (True, PYTHON, "true"),
        (200, HTTP, "== 200"),
        ([200, 204], HTTP, None),  # one of them, not between them
        ({"type": "range", "range": [1, 2.5]}, PYTHON, "1..2.5"),
        ({"type": "range", "range": [1, 2], "target": "x"}, PYTHON, None),
        ("ok", PYTHON, None),
        ({"type": "regex", "pattern": "a"}, PYTHON, None),
    ],
)
def test_the_rest_is_judged_by_chaos_toolkit_itself(tolerance: Any, provider: Any, text: str | None) -> None:
    assert expectation(tolerance, provider) == text
