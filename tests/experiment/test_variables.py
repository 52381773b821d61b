"""A variable's value goes into values, keeps its type, and can do no harm."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment import templates
from gameday.experiment.loader import InvalidExperiment, assignment, load
from gameday.experiment.variables import render_text
from tests.experiment.support import Write, only, problems

pytestmark = pytest.mark.fast


def test_overrides_go_before_the_values_file_and_that_before_the_file(write: Write, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("latency: 1s\ncount: 3\n")
    loaded = load(write(), dict([assignment("count=4")]), values)
    assert loaded.variables == {"latency": "1s", "count": 4}
    assert loaded.experiment.spec.method[0].spec.nodes.pick == 4
    assert loaded.experiment.spec.variables == loaded.variables


def test_a_value_cannot_change_the_structure(write: Write) -> None:
    title = "x\n  owner: me # {a: b}"
    path = write(("title: Two nodes may break", "title: '{{ latency }}'"), ("is: < {{ latency }}", "is: < 1"))
    loaded = load(path, {"latency": title})
    assert loaded.experiment.spec.title == title
    assert loaded.experiment.spec.owner is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=500ms", "500ms"),
        ("a='1'", "1"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=yes", "yes"),
        ("a=010", "010"),
    ],
)
def test_assignments(text: str, value: Any) -> None:
    name, found = assignment(text)
    assert (name, found, type(found)) == ("a", value, type(value))


@pytest.mark.parametrize("text", ["", "a", "=1"])
def test_no_assignments(text: str) -> None:
    with pytest.raises(InvalidExperiment, match="--set: expected name=value"):
        assignment(text)


def test_an_undeclared_override(write: Write) -> None:
    assert only(write(), overrides={"latncy": "1s"}) == (
        "--set: latncy: no such variable in spec.variables; expected one of latency, count "
        "(did you mean `latency`?)"
    )


def test_a_wrong_values_file(write: Write, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("latency: 1s\ncuont: 3\ncount: [1]\n")
    assert problems(write(), values_file=values) == [
        "values.yaml:2:1: cuont: no such variable in spec.variables; expected one of latency, count "
        "(did you mean `count`?)",
        "values.yaml:3:1: count: expected a text, a number, or true or false, found a list",
    ]
    values.write_text("- a\n")
    assert only(write(), values_file=values) == "values.yaml:1:1: expected `name: value` lines, found a list"
    assert only(write(), values_file=tmp_path / "none.yaml") == "none.yaml: does not exist"


def test_an_undefined_variable(write: Write) -> None:
    assert only(write(("{{ latency }}", "{{ latncy }}"))) == (
        "experiment.yaml:14:11: spec.steadyState[0].is: the variable `latncy` is not defined "
        "(did you mean `latency`?)"
    )


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("my-var", "1", "is no name for a variable"),
        ("none", "1", "is no name for a variable"),
        ("a", "[1]", "expected a text, a number, or true or false, found a list"),
        ("a", "", "found nothing"),
        ("a", "'{{ latency }}'", "can't use another variable"),
        ("a", "x" * 9000, "at most 8,192 characters, found 9,000"),
    ],
)
def test_wrong_declarations(write: Write, name: str, value: str, part: str) -> None:
    shown = only(write(("count: 2}", f"count: 2, {name}: {value}}}")))
    assert f"spec.variables.{name}: " in shown
    assert part in shown


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ n }}", 2),
        ("{{ n }}0", "20"),
        (" {{n}} ", 2),
        ("{{ yes }}", True),
        ("is {{ yes }}", "is true"),
        ("{{ text }}", "a b"),
        ("{{ n + 1 }}", 3),
        ("{{ n * 30 }}s", "60s"),
        ("{{ text | upper }}", "A B"),
        ("{{ 'many' if n > 1 else 'one' }}", "many"),
        ("{{ n }}{{ n }}", "22"),
        ('sum(up{job="x"})', 'sum(up{job="x"})'),
        ('sum(up{job="{{ text }}"})', 'sum(up{job="a b"})'),
        ("{{ '{{' }} $labels.x }}", "{{ $labels.x }}"),
        ("line\n{{ text }}\n", "line\na b\n"),
    ],
)
def test_renders(text: str, value: Any) -> None:
    found = render_text(text, {"n": 2, "yes": True, "text": "a b"})
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{{ 'a' * 10**9 }}", "`pow` is not for experiments"),
        ("{{ 'a' * 1000000000 }}", "works on numbers"),
        ("{{ '%1000000000d' % n }}", "works on numbers"),
        ("{{ 10 ** 10 ** 10 }}", "`pow` is not for experiments"),
        ("{{ range(1000000000) }}", "`call` is not for experiments"),
        ("{{ text.__class__ }}", "`getattr` is not for experiments"),
        ("{{ text[0] }}", "`getitem` is not for experiments"),
        ("{{ text.upper() }}", "is not for experiments"),
        ("{% for i in text %}{{ i }}{% endfor %}", "`for` is not for experiments"),
        ("{{ n | round(-1000000000) }}", "takes no arguments here"),
        ("{{ text | center(1000000000) }}", "`center` is not for experiments; expected one of abs, default"),
        ("{{ n / 0 }}", "division by zero"),
        ("{{ n + text }}", "can't be worked out"),
        ("{{ [n] }}", "`list` is not for experiments"),
        ("{{ none }}", "the template gives nothing"),
        ("{{ 'inf' | float }}", "no finite number"),
        ("{{ n", "the template is wrong"),
        ("{{ }}", "the template is wrong"),
        ("{{ " + "(" * 3000 + "n" + ")" * 3000 + " }}", "too complicated"),
        ("{{ " + "n + " * 3000 + "n }}", "at most 10,000 characters"),
        ("{{ " + "n + " * 1000 + "n }}", "too complicated"),
        ("{{ " + "big ~ " * 60 + "big }}", "more than 65,536 characters"),
    ],
)
def test_refuses_what_could_do_harm(text: str, part: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=re.escape(part)):
        render_text(text, {"n": 2, "text": "a b", "big": "x" * 8000})
    assert time.process_time() - start < 2


def test_many_templates_are_refused_once_and_soon(write: Write) -> None:
    observe = "".join(f"    - up{{{{ count + {index} }}}}\n" for index in range(5000))
    start = time.process_time()
    assert "spec.observe[1999]: a file has at most 2,000 templates" in only(
        write(("  method:", f"  observe:\n{observe}  method:"))
    )
    assert time.process_time() - start < 10


scalars = st.text(max_size=5) | st.integers() | st.booleans()


@given(
    st.lists(st.sampled_from(["{{ a }}", "{{b}}", "{{  a}}", " ", "x", "{", "}", "{x}", "\n", '{job="'])),
    scalars,
    scalars,
)
def test_plain_names_are_rendered_as_jinja_renders_them(parts: list[str], a: Any, b: Any) -> None:
    text, variables = "".join(parts).strip(), {"a": a, "b": b}

    def by_jinja() -> Any:
        found = [each for each in templates.render(text, variables) if each != ""] or [""]
        if len(found) == 1:
            return found[0]
        return "".join(str(each).lower() if isinstance(each, bool) else str(each) for each in found)

    def attempt(render: Any) -> Any:
        try:
            return render()
        except ValueError as error:
            return str(error)

    if "{{" in text:
        assert attempt(lambda: render_text(text, variables)) == attempt(by_jinja)
