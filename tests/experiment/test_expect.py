"""`is:` means one thing everywhere."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment.expect import Expectation, Measured

pytestmark = pytest.mark.fast
finite = st.floats(-1e12, 1e12).map(lambda number: round(number, 3))
NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "value", "baseline", "holds"),
    [
        ("< 500ms", 0.4999, None, True),
        ("< 500ms", 0.5, None, False),
        ("<= 300ms", 0.1 + 0.2, None, True),
        ("> 1Gi", 2.0**30 + 1, None, True),
        (">= 90% of baseline", 90.0, 100.0, True),
        (">= 90% of baseline", 89.0, 100.0, False),
        (">= 90% of baseline", 100.0, None, False),
        (">= 90% of baseline", 100.0, NAN, False),
        (">= 90% of baseline", 0.0, 0.0, True),
        ("within 10% of baseline", 109.9, 100.0, True),
        ("within 10% of baseline", 89.0, 100.0, False),
        ("within 10% of baseline", -105.0, -100.0, True),
        ("90%..110% of baseline", 110.0, 100.0, True),
        ("100ms..500ms", 0.1, None, True),
        ("100ms..500ms", 0.5001, None, False),
        ("-5..-1", -3.0, None, True),
        ("< 5%", 0.049, None, True),
        ("<1m30s", 89.0, None, True),
        ("== 3", 3.0, None, True),
        ("== 3", "3", None, True),
        ("!= 0", 0.0, None, False),
        ("!= 0", "many", None, True),
        ("> 0", "many", None, False),
        ("> 0", "100m", None, True),
        ("5", 5.0, None, True),
        (5, 5.0, None, True),
        ("Healthy", "Healthy", None, True),
        ("Healthy", "healthy", None, False),
        ("!= Degraded", "Healthy", None, True),
        ("!= Degraded", "Degraded", None, False),
        ("True", "True", None, True),
        (True, "True", None, True),
        (True, True, None, True),
        ("False", True, None, False),
        ('"1.2.3"', "1.2.3", None, True),
        ("== 'v1 <beta>'", "v1 <beta>", None, True),
        ("> 5", math.inf, None, True),
    ],
)
def test_judges(text: object, value: Measured, baseline: float | None, holds: bool) -> None:
    assert Expectation.parse(text).judge(value, baseline) is holds


@pytest.mark.parametrize(
    "text", ["< 5", "!= 5", "5", "Healthy", "!= Healthy", "1..2", "within 10% of baseline"]
)
def test_no_data_is_never_healthy(text: str) -> None:
    assert not Expectation.parse(text).judge(NAN, 1.0)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "found an empty text"),
        ("< " + "9" * 100_000, "expected a comparison"),
        ("=> 5", "write `>=`"),
        ("= 5", "write `==`"),
        ("≥ 5", "write `>=`"),
        ("less than 5", "prose"),
        ("at least 5", "prose"),
        ("90% of baseline", "needs a comparison, as in `>= 90% of baseline`"),
        (">", "expected a number"),
        ("> 5 pods", "unknown unit 'pods'"),
        ("> 1.5 of baseline", "is a percentage"),
        ("> 90% of basline", "expected a number"),
        ("> baseline", "`90% of baseline`"),
        ("within 10%", "expected `within 10% of baseline`"),
        ("within 200% of baseline", "expected `within 10% of baseline`"),
        ("5..1", "is empty"),
        ("1..", "expected a number"),
        ("nan", "never healthy"),
        ("1.2.3", "quote it twice"),
        ("< 1e999", "too large"),
        (None, "expected one value, found nothing"),
        ([1], "expected one value, found a list"),
    ],
)
def test_refuses_with_what_was_expected(text: object, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        Expectation.parse(text)


@pytest.mark.parametrize(
    ("text", "baseline", "limits"),
    [
        ("< 500ms", None, (None, 0.5)),
        ("> 5", None, (5.0, None)),
        ("1..2", None, (1.0, 2.0)),
        ("5", None, (5.0, 5.0)),
        (">= 50% of baseline", 10.0, (5.0, None)),
        (">= 50% of baseline", None, (None, None)),
        ("!= 5", None, (None, None)),
        ("Healthy", None, (None, None)),
    ],
)
def test_limits(text: str, baseline: float | None, limits: tuple[float | None, float | None]) -> None:
    assert Expectation.parse(text).limits(baseline) == limits


@pytest.mark.parametrize(
    ("text", "value", "margin"),
    [
        ("< 500ms", 0.4, 0.2),
        ("< 500ms", 1.0, -1.0),
        ("> 5", 6.0, 0.2),
        ("1..2", 1.5, 0.25),
        ("> 0", 3.0, 3.0),
        ("== 4", 5.0, -0.25),
        ("!= 4", 5.0, None),
        ("Healthy", "Healthy", None),
        ("< 5", NAN, None),
    ],
)
def test_margin(text: str, value: Measured, margin: float | None) -> None:
    assert Expectation.parse(text).margin(value) == pytest.approx(margin)


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none() | st.lists(st.text()))
def test_anything_parses_or_is_refused_in_words(value: object) -> None:
    try:
        parsed = Expectation.parse(value)
    except ValueError:
        return
    assert Expectation.parse(parsed.text) == parsed


@given(st.text("<>=!.%0123456789mskMGi abof\"'-", max_size=20), finite, finite)
def test_what_parses_judges_anything(text: str, value: float, baseline: float) -> None:
    try:
        parsed = Expectation.parse(text)
    except ValueError:
        return
    assert not parsed.judge(NAN, baseline)
    low, high = parsed.limits(baseline)
    if parsed.judge(value, baseline) and low is not None and high is not None:
        assert low - abs(low) * 1e-8 <= value <= high + abs(high) * 1e-8


@given(st.sampled_from(["<", "<=", ">", ">=", "=="]), finite, finite)
def test_a_margin_is_negative_exactly_when_broken(op: str, bound: float, value: float) -> None:
    expectation = Expectation.parse(f"{op} {bound:.3f}")
    margin = expectation.margin(value)
    assert margin is not None
    if abs(margin) > 1e-6:
        assert expectation.judge(value) == (margin > 0)


@given(finite, finite)
def test_opposites(bound: float, value: float) -> None:
    def judge(op: str) -> bool:
        return Expectation.parse(f"{op} {bound:.3f}").judge(value)

    assert judge("==") != judge("!=")
    assert judge("<=") >= judge("<")
    assert judge("<=") or judge(">")
