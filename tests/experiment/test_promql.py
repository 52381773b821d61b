"""A mistake in a query is found offline, at its own line and column, however YAML and templates write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment.loader import InvalidExperiment, loads
from gameday.experiment.promql import mistake
from tests.experiment.conftest import GOOD
from tests.experiment.support import meant

pytest.importorskip("promql_parser")
pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("query", "said", "at"),
    [
        ("sum(", "unclosed left parenthesis", "("),
        ("sum by (le (x)", "unclosed left parenthesis", "(le (x)"),
        ("x[5m]]", "unexpected right bracket", "]"),
        ("(x))", "unexpected right parenthesis", ")"),
        ('up{a="b}', "unterminated quoted string", '"b}'),
        ("foo bar", "unexpected `bar`", "bar"),
        ("sum(rate(x[5m])) / ", "it ends too early", ""),
        ("sum(x) by", "it ends too early", ""),
        ("rate(x[5m]) > 1 andd y", "unexpected `andd`", "andd y"),
        ("histogram_quantile(0.9 sum(x))", "unexpected `sum`", "sum(x))"),
        ('x{a="b" c="d"}', "unexpected `c`", 'c="d"}'),
        ("sum(rate(ok[5m])) + rate(bad)", "expected type matrix in call to function 'rate'", "rate(bad)"),
        ("sum(nosuch(x))", "unknown function with name 'nosuch'", "nosuch(x))"),
        ("1 + abs(1, 2)", "expected 1 argument", "abs(1, 2)"),
        ("max_over_time(x[$__interval])", "unexpected character inside brackets", "$__interval])"),
        ('x{job=~"("}', "illegal regex", '("}'),
    ],
)
def test_the_character_that_is_to_blame(query: str, said: str, at: str) -> None:
    found = mistake(query)
    assert found is not None
    assert said in found.message
    assert query.rstrip()[found.offset :] == at


@pytest.mark.parametrize(
    "query",
    [
        'histogram_quantile(0.99, sum by (le) (rate(x_bucket{job!~"a|b"}[1m]))) or vector(0)',
        "quantile_over_time(0.9, x[5m:1m] offset -1h) / on (a) group_left (b) y > bool 2 # said",
        '{"utf8.name", a="b"} @ end()',
    ],
)
def test_what_prometheus_takes(query: str) -> None:
    assert mistake(query) is None


@given(st.text(st.sampled_from(list("ab(){}[]\"'`=~!<>+-*/^%,:@#$ \n1m.é")) | st.characters(), max_size=30))
def test_any_text_has_a_verdict_and_a_place(text: str) -> None:
    found = mistake(text)
    assert found is None or 0 <= found.offset <= len(text)


QUERY = '      acmeQuery: p99{job="inference"}\n'
VARIABLES = "variables: {latency: 500ms, count: 2}"
FORMS = {
    "plain": "sum(up) + rate(up)",
    "in double quotes": r'"sum(up{job=\"a\"}) + rate(up)"',
    "in single quotes": "'sum(up{job=\"it''s\"}) + rate(up)'",
    "folded over lines": "sum(up)\n        + rate(up)",
    "quoted over lines": '"sum(up)\n        + rate(up)"',
    "a block": "|\n        # of all\n        sum(up)\n\n        + rate(up)",
    "a folded block": ">\n        sum(up)\n        + rate(up)",
    "with what is no ASCII": "sum(up{job='größer'}) + rate(up)",
    "behind a short variable": '"sum(max_over_time(up[{{ latency }}])) + rate(up)"',
    "behind a long variable": '"{{ long }} + rate(up)"',
    "as a mapping": "{query: sum(up) + rate(up)}",
}


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(InvalidExperiment) as refused:
        loads(text, Path("a.yaml"))
    return [(each.line, each.column, each.message) for each in refused.value.problems]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_line_and_column_are_those_of_the_file(form: str) -> None:
    variables = "variables: {latency: 500ms, count: 2, long: 'sum(rate(requests_total[5m]))'}"
    text = GOOD.replace(VARIABLES, variables).replace(QUERY, f"      acmeQuery: {form}\n")
    ((line, column, message),) = problems(text)
    assert "expected type matrix in call to function 'rate'" in message
    assert text.splitlines()[line - 1][column - 1 :].startswith("rate(up)")


def test_a_mistake_inside_a_variable_is_told_where_it_is_used() -> None:
    text = GOOD.replace(VARIABLES, 'variables: {latency: 500ms, count: 2, selector: "{a=}"}')
    text = text.replace(QUERY, '      acmeQuery: "sum(up{{ selector }})"\n')
    ((line, column, message),) = problems(text)
    assert message == "is no PromQL: unexpected `}`"
    assert text.splitlines()[line - 1][column - 1 :].startswith("{{ selector }}")


def test_observe_and_no_go_are_checked_too() -> None:
    text = GOOD + '  observe: [sum(up]\n  noGo: {alerts: [\'severity=="x"\', \'a="b"} or x{c="d"\']}\n'
    assert [message.split(":")[0] for _, _, message in problems(text)] == ["is no PromQL"] * 3


def test_metrics_ql_is_left_to_its_server() -> None:
    text = GOOD.replace("  target:\n", "  target:\n    prometheus: {metricsQL: true}\n", 1)
    text += "  observe: ['WITH (x = up) x default 0']\n"
    loaded = loads(text, Path("a.yaml"))
    assert loaded.experiment.spec.observe == ["WITH (x = up) x default 0"]
    assert meant(loaded.document).spec.observe == ["WITH (x = up) x default 0"]
    assert "unexpected `=`" in problems(text.replace("true", "false"))[0][2]
