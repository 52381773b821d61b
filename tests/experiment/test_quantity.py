"""Durations and quantities read as people write them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment.quantity import (
    LONGEST,
    format_duration,
    parse_duration,
    parse_go_duration,
    parse_measure,
    parse_quantity,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("500ms", 0.5, "500ms"),
        ("10s", 10, "10s"),
        ("1h30m", 5400, "1h30m"),
        ("90s", 90, "1m30s"),
        (5, 5, "5s"),
        (0.25, 0.25, "250ms"),
        ("1.5s", 1.5, "1.5s"),
        ("0", 0, "0s"),
        ("250us", 0.00025, "0.25ms"),
    ],
)
def test_durations(text: object, seconds: float, shown: str) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    "text", ["", "5 parsecs", "1m1", "-5s", -1, True, None, [], "1e9", "31d", "721h", 10**400, "1" * 100_000]
)
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("1h30m", 5400), ("1.5s", 1.5), (".5s", 0.5), ("1.s", 1), ("+5s", 5), ("0", 0), ("250μs", 250e-6)),
        *((text, None) for text in ("5", "1 m", " 5s", "5s ", "1d", "1m1", "1m-5s", ".s", "٣s", "", 5, None)),
    ],
)
def test_what_go_takes_for_a_duration(text: object, seconds: float | None) -> None:
    """Each of them as time.ParseDuration had it."""
    if seconds is not None:
        assert parse_go_duration(text) == pytest.approx(seconds)
        return
    with pytest.raises(ValueError, match="expected a duration"):
        parse_go_duration(text)


@given(st.floats(0, LONGEST))
def test_a_duration_survives_being_shown(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=6e-4, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("100m", 0.1),
        ("1Gi", 2**30),
        ("1k", 1000),
        ("1e3", 1000),
        ("2E", 2e18),
        ("-1.5", -1.5),
        ("3n", 3e-9),
    ],
)
def test_kubernetes_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 6000), ("10%", 0.1), ("3 Mi", 3 * 2**20), ("1h30m", 5400)]
)
def test_measures(text: str, value: float) -> None:
    assert parse_measure(text) == pytest.approx(value)


@given(st.text(), st.sampled_from([parse_duration, parse_measure, parse_quantity]))
def test_anything_is_a_number_or_refused(text: str, parse: Callable[[str], float]) -> None:
    try:
        value = parse(text)
    except ValueError:
        return
    assert math.isfinite(value)
